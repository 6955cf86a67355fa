//! Matches `graph::ops::norm_logits`.

use super::product::{self, Out, Store};
use super::{Context, Scratch};
use crate::graph::{Graph, ops};

pub(super) fn scratch(op: &ops::NormLogits, graph: &Graph) -> Scratch {
    product::scratch(op.dim, graph)
}

pub(super) fn run(op: &ops::NormLogits, cx: &Context<'_>) {
    let x = product::normalize(cx, op.x, op.norm, op.output, op.dim, op.eps);
    let epilogue = Store { out: Out { at: cx.buffer(op.logits), width: op.vocab_size }, map: |logit| logit };
    // SAFETY: `x` is (R, dim) and `logits` (R, vocab_size) by the graph, two different buffers.
    unsafe { product::deal(cx, op.output, x, (op.vocab_size, op.dim), epilogue) }
}
