//! Matches `graph::ops::linear_residual`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    16,
    [
        kernels::LINEAR_RESIDUAL_THIN_8,
        kernels::LINEAR_RESIDUAL_THIN_16,
        kernels::LINEAR_RESIDUAL_THIN_32,
        kernels::LINEAR_RESIDUAL_WIDE_64X32,
        kernels::LINEAR_RESIDUAL_WIDE_64X64,
        kernels::LINEAR_RESIDUAL_WIDE_64X128,
        kernels::LINEAR_RESIDUAL_WIDE_128X128,
        kernels::LINEAR_RESIDUAL_WIDE_160X128,
    ],
);

impl Lower for ops::LinearResidual {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.weight, Elem::Bf16)?;
        product::check_buffer(graph, self.input, Elem::Bf16)?;
        product::check_buffer(graph, self.x, Elem::F32)?;
        product::check_depth(self.depth)
    }

    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        vec![product::fragments_of(self.weight, self.width, self.depth)]
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product =
            Product { rows: cx.extent.rows, width: self.width, depth: self.depth, matrices: 1, normed: false };
        let launch = product
            .launch(product.choose(&SHAPES, cx.capacity), cx.capacity)
            .arg(cx.buffer(self.x))
            .arg(cx.buffer(self.input))
            .arg(cx.weight(self.weight))
            .size(cx.extent.rows)
            .size(self.width)
            .size(self.depth);
        vec![launch]
    }
}
