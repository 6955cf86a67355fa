//! Matches `graph::ops::norm_swiglu`.

use super::gate::{self, Gated};
use super::{Context, Scratch, product};
use crate::graph::{Graph, ops};
use crate::math;

pub(super) fn scratch(op: &ops::NormSwiglu, graph: &Graph) -> Scratch {
    product::scratch(op.dim, graph)
}

pub(super) fn run(op: &ops::NormSwiglu, cx: &Context<'_>) {
    let ops::NormSwiglu { out, x, norm, w1: gate, w3: up, hidden_dim, dim, eps } = *op;
    gate::run(&Gated { out, x, norm, gate, up, hidden_dim, dim, eps }, cx, math::silu);
}
