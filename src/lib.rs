//! smalti: LlamaGen image generation at the speed of the hardware.
//!
//! ```text
//! checkpoint ─▶ config ─▶ graph ─▶ backend (cpu) ─▶ codes ─▶ pixels
//! ```
//!
//! An image is a fixed number of tokens, known before the first one. So everything is static: every
//! buffer, every op and every cache row is laid out once per model, image size and batch, and replayed.
//!
//! # Embedding
//!
//! A [`Model`] is opened once, a [`Session`] lays it out on a device and draws any number of [`Request`]s at a time;
//! each is a [`Job`] with its [`Event`]s, and every failure is one [`Error`]. [`Session`] has the example and the
//! rules of threads. The modules below are the parts that these are made of.
//!
//! ```
//! let mut files = smalti::ModelFiles::new("tests/golden/c2i/gpt.pt", "tests/golden/vq16/vq.pt");
//! files.image_size = Some(64);
//! let model = smalti::Model::open(&files)?;
//! let session = smalti::Session::start(&model, &smalti::SessionOptions::default())?;
//! let images = session.draw(smalti::Request::class(7))?;
//! assert!(images[0].png(&[])?.starts_with(b"\x89PNG"));
//! # Ok::<(), smalti::Error>(())
//! ```
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
pub mod capi;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod demo;
pub mod engine;
mod error;
mod files;
pub mod generate;
pub mod graph;
pub mod image;
pub mod math;
pub mod models;
pub mod process;
pub mod selftest;
#[cfg(feature = "server")]
pub mod serve;
pub mod text;
pub mod units;

pub use engine::{
    Canceller, Event, Image, Job, Model, ModelFiles, Request, Session, SessionOptions, Stats, Subject, Timings,
};
pub use error::{Error, Result};
