//! Matches `graph::ops::norm_swiglu`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, NormedInput, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    32,
    8,
    [
        kernels::NORM_SWIGLU_THIN_8,
        kernels::NORM_SWIGLU_THIN_16,
        kernels::NORM_SWIGLU_THIN_32,
        kernels::NORM_SWIGLU_WIDE_64X32,
        kernels::NORM_SWIGLU_WIDE_64X64,
        kernels::NORM_SWIGLU_WIDE_64X128,
        kernels::NORM_SWIGLU_WIDE_128X128,
        kernels::NORM_SWIGLU_WIDE_160X128,
    ],
);

fn input(op: &ops::NormSwiglu) -> NormedInput {
    NormedInput { x: op.x, norm: op.norm, eps: op.eps, dim: op.dim }
}

impl Lower for ops::NormSwiglu {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.w1, Elem::Bf16)?;
        product::check_weight(graph, self.w3, Elem::Bf16)?;
        product::check_buffer(graph, self.out, Elem::Bf16)?;
        input(self).check(graph)
    }

    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        [self.w1, self.w3].map(|weight| product::fragments_of(weight, self.hidden_dim, self.dim)).into()
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        input(self).scratch_bytes(graph)
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product =
            Product { rows: cx.extent.rows, width: self.hidden_dim, depth: self.dim, matrices: 2, normed: true };
        let shape = product.choose(&SHAPES, cx.capacity);
        let launch = input(self)
            .pass(cx, shape, product.launch(shape, cx.capacity).arg(cx.buffer(self.out)))
            .arg(cx.weight(self.w1))
            .arg(cx.weight(self.w3))
            .size(cx.extent.rows)
            .size(self.hidden_dim)
            .size(self.dim);
        input(self).launches(cx, shape, launch)
    }
}
