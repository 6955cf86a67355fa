//! The models: each builds a graph that reads like the paper. They know ops, never backends.

pub mod gpt;

pub use gpt::{GptGraph, GptShape};
