//! Configurations: of the models, read off their tensors, and of a generation.
//!
//! Plain data with checks; depends on [`crate::checkpoint`] and [`crate::error`] alone.

mod gpt;
mod labels;
mod vq;

pub use gpt::{Condition, GptConfig};
pub use labels::{Labels, resolve_class, resolve_classes};
pub use vq::VqConfig;
