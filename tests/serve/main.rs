//! `smalti serve`, the program itself on a port of its own: what it answers, and what it survives.
#![cfg(feature = "server")]

mod api;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod faults;
mod load;
mod stream;
