//! The program itself, run on the golden models: what it writes, what it prints, how it ends.

mod bad_input;
mod bench;
mod cards;
#[path = "../common/mod.rs"]
mod common;
mod generate;
mod models;
mod pictures;
mod program;
mod selftest;
mod text;
