//! Matches `graph::ops::norm_logits`.

use super::product::{self, Epilogue, TILE};
use super::{Context, Scratch};
use crate::graph::{Graph, ops};

pub(super) fn scratch(op: &ops::NormLogits, graph: &Graph) -> Scratch {
    Scratch { shared: graph.max().rows * op.dim, own: 0 }
}

pub(super) fn run(op: &ops::NormLogits, cx: &Context<'_>) {
    let x = product::normalize(cx, op.x, op.norm, op.dim, op.eps);
    let epilogue = Store { out: cx.buffer(op.logits), width: op.vocab_size };
    // SAFETY: the scratch holds (R, dim), `logits` is (R, vocab_size) by the graph.
    unsafe { product::deal(cx, op.output, x, (op.vocab_size, op.dim), epilogue) }
}

struct Store {
    out: *mut f32,
    width: usize,
}

impl Epilogue for Store {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: element (r, n + i) is inside the logits and this member's.
            unsafe { *self.out.add(r * self.width + n + i) = sum }
        }
    }
}
