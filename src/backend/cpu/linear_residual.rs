//! Matches `graph::ops::linear_residual`.

use super::product::{self, Epilogue};
use super::{Context, Scratch};
use crate::graph::{Graph, ops};

pub(super) fn scratch(op: &ops::LinearResidual, graph: &Graph) -> Scratch {
    product::scratch(op.depth, graph)
}

pub(super) fn run(op: &ops::LinearResidual, cx: &Context<'_>) {
    let epilogue = Add { x: cx.buffer(op.x), width: op.width };
    let x = product::rows(cx, op.input, op.weight, op.depth);
    // SAFETY: `input` is (R, depth) and `x` (R, width) by the graph, two different buffers.
    unsafe { product::deal(cx, op.weight, x, (op.width, op.depth), epilogue) }
}

struct Add {
    x: *mut f32,
    width: usize,
}

impl Epilogue for Add {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: element (r, n + i) is inside x and this member's.
            unsafe { *self.x.add(r * self.width + n + i) += *sum }
        }
    }
}
