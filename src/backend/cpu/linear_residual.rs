//! Matches `graph::ops::linear_residual`.

use super::Context;
use super::product::{self, Epilogue, TILE};
use crate::graph::ops;

pub(super) fn run(op: &ops::LinearResidual, cx: &Context<'_>) {
    let epilogue = Add { x: cx.buffer(op.x), width: op.width };
    // SAFETY: `input` is (R, depth) and `x` (R, width) by the graph, two different buffers.
    unsafe { product::deal(cx, op.weight, cx.buffer(op.input), (op.width, op.depth), epilogue) }
}

struct Add {
    x: *mut f32,
    width: usize,
}

impl Epilogue for Add {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: element (r, n + i) is inside x and this member's.
            unsafe { *self.x.add(r * self.width + n + i) += sum }
        }
    }
}
