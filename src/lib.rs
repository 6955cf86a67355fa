//! smalti: LlamaGen image generation at the speed of the hardware.
//!
//! ```text
//! checkpoint ─▶ config ─▶ graph ─▶ backend (cpu) ─▶ codes ─▶ pixels
//! ```
//!
//! An image is a fixed number of tokens, known before the first one. So everything is static: every
//! buffer, every op and every cache row is laid out once per model, image size and batch, and replayed.
//!
//! # Letters
//!
//! Used in shapes everywhere, in Rust, CUDA, tests and docs:
//!
//! | letter | means |
//! |---|---|
//! | R | rows of this step: one token of one sequence each |
//! | B | slots: sequences in the cache (two per image under guidance) |
//! | N | image tokens of one picture |
//! | S | cache length, 1 + N: the prefix row and one row per token |
//! | H, D | heads, channels per head |
//! | C | model width, `dim` |
//! | F | feed-forward width, `hidden_dim` |
//! | V | codebook size, which is the vocabulary |
//! | E | width of a code vector |
//! | P | latent side: N = P * P for a square picture |

pub mod backend;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
mod error;
mod files;
pub mod generate;
pub mod graph;
pub mod image;
pub mod math;
pub mod models;
pub mod selftest;
pub mod text;
pub mod units;

pub use error::{Error, Result};
