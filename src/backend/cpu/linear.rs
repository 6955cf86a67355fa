//! Matches `graph::ops::linear`.

use super::Context;
use super::product::{self, Store};
use crate::graph::ops::{self, Activation};
use crate::math;

pub(super) fn run(op: &ops::Linear, cx: &Context<'_>) {
    let (out, width, input) = (cx.buffer(op.out), op.width, cx.buffer(op.input));
    let shape = (op.width, op.depth);
    // SAFETY: `input` is (R, depth) and `out` (R, width) by the graph, two different buffers.
    unsafe {
        match op.activation {
            Activation::Identity => product::deal(cx, op.weight, input, shape, Store { out, width, map: |sum| sum }),
            Activation::GeluTanh => {
                product::deal(cx, op.weight, input, shape, Store { out, width, map: math::gelu_tanh });
            }
        }
    }
}
