//! Matches `graph::ops::linear_residual`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    16,
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

fn product_of(op: &ops::LinearResidual, rows: usize) -> Product {
    Product { rows, width: op.width, depth: op.depth, matrices: 1, normed: false }
}

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

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        product_of(self, graph.max().rows).split_scratch_bytes()
    }

    fn counters(&self, graph: &Graph) -> usize {
        product_of(self, graph.max().rows).split_counters()
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product = product_of(self, cx.extent.rows);
        let (shape, parts) = product.choose_split(&SHAPES, cx.capacity);
        let mut launch = product.launch(shape, cx.capacity).arg(cx.buffer(self.x));
        if shape.is_wide() {
            launch.grid[2] = parts as u32;
            launch = launch.arg(cx.scratch).arg(cx.counters);
        }
        let launch = launch
            .arg(cx.buffer(self.input))
            .arg(cx.weight(self.weight))
            .size(cx.extent.rows)
            .size(self.width)
            .size(self.depth);
        vec![launch]
    }
}
