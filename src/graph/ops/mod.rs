//! The fused ops, one file each: what it computes, its shapes, its cost and its plain f64 twin.
//!
//! The file's name is the op's name everywhere: `kernels/`, `backend/*/` and `tests/ops/` use it too.

mod accept;
mod attention;
mod codebook_lookup;
mod conv2d;
mod embed;
mod group_norm_stats;
mod linear;
mod linear_residual;
mod moments;
mod nearest_code;
mod norm_gated_gelu;
mod norm_linear;
mod norm_logits;
mod norm_qkv_rope;
mod norm_rows;
mod norm_swiglu;
mod pixels_to_input;
mod prefix_mean;
mod sample;
mod set_prefix;
mod spatial_attention;
mod text_attention;

pub use accept::{Accept, Guess};
pub use attention::Attention;
pub use codebook_lookup::CodebookLookup;
pub use conv2d::{Conv2d, Kernel, Norm, Store};
pub use embed::Embed;
pub use group_norm_stats::{GROUPS, GroupNormStats};
pub use linear::{Activation, Linear};
pub use linear_residual::LinearResidual;
pub use moments::{Patches, Run};
pub use nearest_code::NearestCode;
pub use norm_gated_gelu::NormGatedGelu;
pub use norm_linear::NormLinear;
pub use norm_logits::NormLogits;
pub use norm_qkv_rope::{CacheShape, NormQkvRope};
pub use norm_rows::NormRows;
pub use norm_swiglu::NormSwiglu;
pub use pixels_to_input::PixelsToInput;
pub use prefix_mean::PrefixMean;
pub use sample::{NO_CODE, Sample, cutoff, gumbel, gumbel_of, philox};
pub use set_prefix::SetPrefix;
pub use spatial_attention::SpatialAttention;
pub use text_attention::TextAttention;

use super::twin::Twin;
use super::{Cost, Extent, Graph, Load};

/// Declares the closed enum of ops; a new op is a new variant, and the compiler names every place that lacks it.
macro_rules! ops {
    ($($name:ident: $text:literal),* $(,)?) => {
        /// One fused op.
        #[derive(Clone, Debug)]
        pub enum Op {
            $(#[doc = $text] $name($name),)*
        }

        impl Op {
            /// All ops' names.
            pub const NAMES: &[&str] = &[$($text),*];

            /// The op's name: its file's, its kernel's and its test's.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => $text,)* }
            }

            /// Bytes and FLOPs of one run.
            pub fn cost(&self, graph: &Graph, load: &Load) -> Cost {
                match self { $(Self::$name(op) => op.cost(graph, load),)* }
            }

            /// The op in f64, plainly.
            pub fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
                match self { $(Self::$name(op) => op.twin(twin, extent),)* }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self {
                Self::$name(op)
            }
        })*
    };
}

ops! {
    Embed: "embed",
    NormQkvRope: "norm_qkv_rope",
    Attention: "attention",
    LinearResidual: "linear_residual",
    NormSwiglu: "norm_swiglu",
    NormLogits: "norm_logits",
    Sample: "sample",
    Accept: "accept",
    CodebookLookup: "codebook_lookup",
    GroupNormStats: "group_norm_stats",
    Conv2d: "conv2d",
    SpatialAttention: "spatial_attention",
    PixelsToInput: "pixels_to_input",
    NearestCode: "nearest_code",
    Linear: "linear",
    NormLinear: "norm_linear",
    NormGatedGelu: "norm_gated_gelu",
    NormRows: "norm_rows",
    TextAttention: "text_attention",
    PrefixMean: "prefix_mean",
    SetPrefix: "set_prefix",
}
