//! Configurations: of the models, read off their tensors, and of a generation.
//!
//! Plain data with checks; depends on [`crate::checkpoint`] and [`crate::Error`] alone.

mod check;
mod generation;
mod gpt;
mod image_size;
mod labels;
mod model;
mod presets;
mod print;
mod t5;
mod vq;

pub use check::TensorSpec;
pub use generation::{GenerationOptions, Sampling};
pub use gpt::{Condition, GptConfig};
pub use image_size::default_image_size;
pub(crate) use image_size::named_image_size;
pub use labels::{Labels, resolve_class, resolve_classes};
pub use model::{ModelConfig, ModelKind};
pub use presets::{PRESETS, Preset};
pub use t5::T5Config;
pub use vq::VqConfig;
