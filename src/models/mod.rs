//! The models: each builds a graph that reads like the paper. They know ops, never backends.

pub mod gpt;
mod gpt_lookahead;
mod gpt_text;
pub mod t5;
mod vq_blocks;
pub mod vq_decoder;
pub mod vq_encoder;

pub use gpt::{GptGraph, GptShape};
pub use gpt_lookahead::GptLookahead;
pub use gpt_text::GptText;
pub use t5::{T5Graph, T5Shape};
pub use vq_blocks::{Held, Pixels, latent_size};
pub use vq_decoder::VqDecoder;
pub use vq_encoder::VqEncoder;
