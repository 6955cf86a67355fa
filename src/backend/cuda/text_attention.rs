//! Matches `graph::ops::text_attention`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::{Elem, Graph, ops};

const WARPS: usize = 4;

/// Rows of a block.
const ROWS: usize = 16 * WARPS;

/// Keys of a step.
const KEYS: usize = 64;

const LARGEST_HEAD: usize = 128;

/// The biases of all its distances fit beside the keys.
const LONGEST_TEXT: usize = 4096;

/// Dynamic shared memory of a block: a step's keys and values in bf16, padded so that rows read together lie in
/// different banks, and the bias of every distance.
fn shared_bytes(op: &ops::TextAttention) -> usize {
    2 * KEYS * (op.head_dim * Elem::Bf16.size() + 16) + (2 * op.tokens - 1) * size_of::<f32>()
}

impl Lower for ops::TextAttention {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        for id in [self.q, self.k, self.v] {
            let buffer = graph.at(id);
            if buffer.elem != Elem::F32 {
                return Err(format!("needs `{}` in f32, found {}", buffer.name, buffer.elem.name()));
            }
        }
        for id in [self.bias, self.buckets] {
            let weight = graph.weight_at(id);
            if weight.elem != Elem::F32 {
                return Err(format!("needs `{}` in f32, found {}", weight.name, weight.elem.name()));
            }
        }
        let out = graph.at(self.out);
        if !matches!(out.elem, Elem::F32 | Elem::Bf16) {
            return Err(format!("needs `{}` in f32 or bf16, found {}", out.name, out.elem.name()));
        }
        let head_dim = self.head_dim;
        if !head_dim.is_multiple_of(16) || head_dim > LARGEST_HEAD {
            return Err(format!("needs heads of a width divisible by 16, at most {LARGEST_HEAD}, found {head_dim}"));
        }
        match self.tokens <= LONGEST_TEXT {
            true => Ok(()),
            false => Err(format!("needs texts of at most {LONGEST_TEXT} rows, found {}", self.tokens)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let kernel = match self.head_dim {
            64 => kernels::TEXT_ATTENTION_64,
            _ => kernels::TEXT_ATTENTION_ANY,
        };
        let rows = cx.extent.rows;
        vec![
            Launch::new(kernel, [rows.div_ceil(ROWS), self.n_head, 1], WARPS * 32)
                .shared(shared_bytes(self))
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.q))
                .arg(cx.buffer(self.k))
                .arg(cx.buffer(self.v))
                .arg(cx.buffer(self.rows))
                .arg(cx.weight(self.bias))
                .arg(cx.weight(self.buckets))
                .size(rows)
                .size(self.tokens)
                .size(self.head_dim)
                .arg(u32::from(cx.elem(self.out) == Elem::Bf16)),
        ]
    }
}
