//! Matches `graph::ops::linear_residual`.

use super::product::{self, Epilogue, Out};
use super::{Context, Scratch};
use crate::graph::{Graph, ops};

pub(super) fn scratch(op: &ops::LinearResidual, graph: &Graph) -> Scratch {
    product::scratch(op.depth, graph)
}

pub(super) fn run(op: &ops::LinearResidual, cx: &Context<'_>) {
    let epilogue = Add(Out { at: cx.buffer(op.x), width: op.width });
    let x = product::rows(cx, op.input, op.weight, op.depth);
    // SAFETY: `input` is (R, depth) and `x` (R, width) by the graph, two different buffers.
    unsafe { product::deal(cx, op.weight, x, (op.width, op.depth), epilogue) }
}

/// x += sum
struct Add(Out);

impl Epilogue for Add {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        // SAFETY: these elements are inside x and this member's.
        let x = unsafe { self.0.part(r, n, sums.len()) };
        for (x, sum) in x.iter_mut().zip(sums) {
            *x += *sum;
        }
    }
}
