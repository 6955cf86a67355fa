//! Configurations: of the models, read off their tensors, and of a generation.
//!
//! Plain data with checks; depends on [`crate::checkpoint`] and [`crate::error`] alone.

mod generation;
mod gpt;
mod vq;

pub use generation::{GenerationOptions, Sampling};
pub use gpt::{Condition, GptConfig};
pub use vq::VqConfig;
