//! Matches `graph::ops::attention`.

use super::device::{Kernel, Launch};
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::{Elem, Graph, ops};

const WARP: usize = 32;
const LARGEST_HEAD: usize = 256;

/// The kernel for a head's width, the channels that it loads at once, and its warps: each takes 32 keys.
fn kernel(head_dim: usize) -> (Kernel, usize, usize) {
    match head_dim {
        64 => (kernels::ATTENTION_64, 8, 8),
        100 => (kernels::ATTENTION_100, 4, 4),
        128 => (kernels::ATTENTION_128, 8, 4),
        _ => (kernels::ATTENTION_ANY, 4, 4),
    }
}

/// How many blocks share the keys of a row that sees all of them.
fn parts(op: &ops::Attention) -> usize {
    let (_, _, warps) = kernel(op.cache.head_dim);
    op.cache.positions.div_ceil(warps * WARP)
}

impl Lower for ops::Attention {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        let needs = [
            (self.q, Elem::F32),
            (self.k_cache, Elem::Bf16),
            (self.v_cache, Elem::Bf16),
            (self.prefix_log_n, Elem::F32),
        ];
        for (id, elem) in needs {
            let buffer = graph.at(id);
            if buffer.elem != elem {
                return Err(format!("needs `{}` in {}, found {}", buffer.name, elem.name(), buffer.elem.name()));
            }
        }
        let out = graph.at(self.out);
        if !matches!(out.elem, Elem::F32 | Elem::Bf16) {
            return Err(format!("needs `{}` in f32 or bf16, found {}", out.name, out.elem.name()));
        }
        let head_dim = self.cache.head_dim;
        match head_dim.is_multiple_of(4) && head_dim <= LARGEST_HEAD {
            true => Ok(()),
            false => Err(format!("needs heads of a width divisible by 4, at most {LARGEST_HEAD}, found {head_dim}")),
        }
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        match parts(self) {
            1 => 0,
            // A part's mix, maximum and sum.
            parts => graph.max().rows * self.cache.n_head * parts * (self.cache.head_dim + 2) * size_of::<f32>(),
        }
    }

    fn counters(&self, graph: &Graph) -> usize {
        match parts(self) {
            1 => 0,
            _ => graph.max().rows * self.cache.n_head,
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let (heads, positions, head_dim) = (self.cache.n_head, self.cache.positions, self.cache.head_dim);
        let (kernel, vector, warps) = kernel(head_dim);
        // An odd number of loads from row to row: no two of a column are in one bank.
        let stride = ((head_dim / vector) | 1) * vector;
        // A warp's q in f32, and 32 rows of keys and of values in bf16.
        let shared = warps * (4 * head_dim + 2 * 2 * WARP * stride);
        let layer = self.cache.at(self.layer, 0, 0, 0) * Elem::Bf16.size();
        vec![
            Launch::new(kernel, [cx.extent.rows * parts(self), heads, 1], warps * WARP)
                .shared(shared)
                .arg(cx.buffer(self.out))
                .arg(cx.scratch)
                .arg(cx.counters)
                .arg(cx.buffer(self.q))
                .arg(cx.buffer(self.k_cache).offset(layer))
                .arg(cx.buffer(self.v_cache).offset(layer))
                .arg(cx.buffer(self.rows))
                .arg(cx.buffer(self.prefix_log_n))
                .size(positions)
                .size(head_dim)
                .arg(self.scale())
                .arg(u32::from(cx.elem(self.out) == Elem::Bf16)),
        ]
    }
}
