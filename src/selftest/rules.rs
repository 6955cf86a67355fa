//! How far an op on a device may be from the same op on the CPU.
//!
//! Both start from equal values that bf16 holds. Where a device rounds something to bf16 on the way, it is off by up
//! to half a last place of eight bits: a relative error within ±2^-8, so of deviation 2^-8 / sqrt(3) at most, and
//! independent of the others. The values are independent with mean 0, so a sum of products whose terms carry r such
//! errors is off by sqrt(r) · 2^-8 / sqrt(3) of the sum's own deviation, however long it is. Eight deviations are
//! allowed: not one in 10^14 right elements is farther off, while one wrong term among a thousand may be already.
//!
//! Sums in f32 differ by their order. A tensor core cuts what a partial sum cannot hold, 2^-23 of it per step of 16
//! terms; partial sums reach four deviations. The CPU's chains of multiply-adds err less. A result is rounded once
//! more on each side that holds it in bf16.

use crate::graph::Op;
use crate::graph::ops::{Kernel, Store};

/// What is compared how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Every bit: integers, and values that are only moved.
    Exact,
    /// Sums of `depth` products whose terms carry `roundings` errors of bf16.
    Rounded { roundings: f64, depth: usize },
    /// Bytes of pixels that were rounded as said before they were cut: half the range per 1.
    Pixels { roundings: f64, depth: usize },
    /// At most this share of the choices differs: those between candidates that are all but equal.
    Choices(f64),
}

/// Deviation of one rounding to bf16, relative.
const BF16: f64 = 1.0 / 256.0 / 1.732_050_8;

/// Allowed deviations.
const DEVIATIONS: f64 = 8.0;

impl Rule {
    /// The op's rule, with its reason.
    pub fn of(op: &Op) -> Self {
        let rounded = |roundings: f64, depth: usize| Self::Rounded { roundings, depth };
        match op {
            // Looks up and widens.
            Op::Embed(_) => Self::Exact,
            // The normalized row is rounded, and once more behind the norm's weight; then q and k turn.
            Op::NormQkvRope(op) => rounded(2.0, op.cache.dim()),
            // q, and the weights of the keys that make the sum of values. A score of deviation 1 that is off by one
            // rounding moves its weight by as much.
            Op::Attention(op) => rounded(3.0, op.cache.positions + op.cache.head_dim),
            // The input is bf16 already.
            Op::LinearResidual(op) => rounded(0.0, op.depth),
            // Two rounded sums are multiplied; both at most some three deviations from 0 where it matters.
            Op::NormSwiglu(op) => rounded(2.0 * 9.0, op.dim),
            Op::NormLogits(op) => rounded(2.0, op.dim),
            // Noise is equal in every bit, and so is what is done to the logits.
            Op::Sample(_) | Op::Accept(_) => Self::Exact,
            // The normalized vectors and the weights.
            Op::CodebookLookup(op) => rounded(2.0, op.codebook_embed_dim),
            Op::GroupNormStats(op) => rounded(0.0, op.patches.count()),
            // The input behind norm and SiLU is rounded, and of a doubled map the sums of taps that meet one pixel.
            Op::Conv2d(op) => {
                let (roundings, depth) = (2.0, op.channels_in * op.kernel.side() * op.kernel.side());
                match op.store {
                    Store::Plain => rounded(roundings, depth),
                    Store::Rgb8 => Self::Pixels { roundings, depth },
                }
            }
            // As for attention.
            Op::SpatialAttention(op) => rounded(3.0, op.pixels + op.channels),
            Op::PixelsToInput(_) => rounded(1.0, 1),
            // The best two of thousands of cosines are within an f32 sum's error now and then.
            Op::NearestCode(_) => Self::Choices(0.01),
            // The input; GELU passes an error on 1.13 times at most.
            Op::Linear(op) => rounded(2.0, op.depth),
            Op::NormLinear(op) => rounded(2.0, op.depth),
            // As SwiGLU.
            Op::NormGatedGelu(op) => rounded(2.0 * 9.0, op.dim),
            Op::NormRows(op) => rounded(0.0, op.dim),
            // As for attention, with scores that are not scaled: of deviation sqrt(D), and so are their errors.
            Op::TextAttention(op) => rounded(3.0 * op.head_dim as f64, op.tokens + op.head_dim),
            // One sum after the other down a text of 120 tokens, not by steps of 16.
            Op::PrefixMean(_) => rounded(0.0, 16 * 120),
            Op::SetPrefix(_) => Self::Exact,
        }
    }

    /// What a result may be off by, where the results' deviation from 0 is `spread`.
    pub fn allowed(&self, spread: f64) -> f64 {
        let sums = |depth: usize| 4.0 * (depth as f64 / 16.0 + 8.0) / f64::from(1u32 << 23);
        match *self {
            Self::Exact | Self::Choices(_) => 0.0,
            Self::Rounded { roundings, depth } => (DEVIATIONS * roundings.sqrt() * BF16 + sums(depth)) * spread,
            // One more where the cut falls between them.
            Self::Pixels { roundings, depth } => 1.0 + (DEVIATIONS * roundings.sqrt() * BF16 + sums(depth)) * spread,
        }
    }
}

/// What tells kernels of one op apart that may cost the same.
pub(super) fn variant(op: &Op) -> Option<(Kernel, bool, bool)> {
    match op {
        Op::Conv2d(op) => Some((op.kernel, op.norm.is_some(), op.residual.is_some())),
        _ => None,
    }
}
