//! Matches `graph::ops::linear`.

use super::product::{self, Out, Store};
use super::{Context, Scratch};
use crate::graph::Graph;
use crate::graph::ops::{self, Activation};
use crate::math;

pub(super) fn scratch(op: &ops::Linear, graph: &Graph) -> Scratch {
    product::scratch(op.depth, graph)
}

pub(super) fn run(op: &ops::Linear, cx: &Context<'_>) {
    let out = Out { at: cx.buffer(op.out), width: op.width };
    let x = product::rows(cx, op.input, op.weight, op.depth);
    let shape = (op.width, op.depth);
    // SAFETY: `input` is (R, depth) and `out` (R, width) by the graph, two different buffers.
    unsafe {
        match op.activation {
            Activation::Identity => product::deal(cx, op.weight, x, shape, Store { out, map: |sum| sum }),
            Activation::GeluTanh => {
                product::deal(cx, op.weight, x, shape, Store { out, map: math::gelu_tanh });
            }
        }
    }
}
