//! Matches `graph::ops::norm_linear`.

use super::product::{self, Out, Store};
use super::{Context, Scratch};
use crate::graph::{Graph, ops};

pub(super) fn scratch(op: &ops::NormLinear, graph: &Graph) -> Scratch {
    product::scratch(op.depth, graph)
}

pub(super) fn run(op: &ops::NormLinear, cx: &Context<'_>) {
    assert_ne!(op.out, op.x, "rows may be read while results are stored");
    let x = product::normalize(cx, op.x, op.norm, op.weight, op.depth, op.eps);
    let epilogue = Store { out: Out { at: cx.buffer(op.out), width: op.width }, map: |sum| sum };
    // SAFETY: `x` is (R, depth) and `out` (R, width) by the graph, two different buffers.
    unsafe { product::deal_from(cx, (op.weight, op.first), x, (op.width, op.depth), epilogue) }
}
