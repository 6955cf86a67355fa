//! Matches `graph::ops::norm_gated_gelu`.

use super::gate::{self, Gated};
use super::{Context, Scratch, product};
use crate::graph::{Graph, ops};
use crate::math;

pub(super) fn scratch(op: &ops::NormGatedGelu, graph: &Graph) -> Scratch {
    product::scratch(op.dim, graph)
}

pub(super) fn run(op: &ops::NormGatedGelu, cx: &Context<'_>) {
    let ops::NormGatedGelu { out, x, norm, wi_0: gate, wi_1: up, hidden_dim, dim, eps } = *op;
    gate::run(&Gated { out, x, norm, gate, up, hidden_dim, dim, eps }, cx, math::gelu_tanh);
}
