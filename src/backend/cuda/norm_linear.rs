//! Matches `graph::ops::norm_linear`.

use super::device::Launch;
use super::fragments;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, NormedInput, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    16,
    8,
    [
        kernels::NORM_LINEAR_THIN_8,
        kernels::NORM_LINEAR_THIN_16,
        kernels::NORM_LINEAR_THIN_32,
        kernels::NORM_LINEAR_WIDE_64X32,
        kernels::NORM_LINEAR_WIDE_64X64,
        kernels::NORM_LINEAR_WIDE_64X128,
        kernels::NORM_LINEAR_WIDE_128X128,
        kernels::NORM_LINEAR_WIDE_160X128,
    ],
);

fn input(op: &ops::NormLinear) -> NormedInput {
    NormedInput { x: op.x, norm: op.norm, eps: op.eps, dim: op.depth }
}

impl Lower for ops::NormLinear {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.weight, Elem::Bf16)?;
        product::check_buffer(graph, self.out, Elem::F32)?;
        if !self.first.is_multiple_of(fragments::TILE) {
            let (tile, name) = (fragments::TILE, &graph.weight_at(self.weight).name);
            return Err(format!("needs a first row of `{name}` that {tile} divides, found {}", self.first));
        }
        input(self).check(graph)
    }

    /// All of the weight's rows: other ops may want others of them.
    fn arrangements(&self, graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        let rows = graph.weight_at(self.weight).shape[0];
        vec![product::fragments_of(self.weight, rows, self.depth)]
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        input(self).scratch_bytes(graph)
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product = Product { rows: cx.extent.rows, width: self.width, depth: self.depth, matrices: 1, normed: true };
        let shape = product.choose(&SHAPES, cx.capacity);
        let before = fragments::len(self.first, self.depth) * Elem::Bf16.size();
        let launch = input(self)
            .pass(cx, shape, product.launch(shape, cx.capacity).arg(cx.buffer(self.out)))
            .arg(cx.weight(self.weight).offset(before))
            .size(cx.extent.rows)
            .size(self.width)
            .size(self.depth);
        input(self).launches(cx, shape, launch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Extent, Per, Role, Source};

    #[test]
    fn rows_begin_with_a_tile() {
        let mut graph = Graph::new("norm_linear", Extent { rows: 2, draws: 0 });
        let op = ops::NormLinear {
            out: graph.buffer("v", Elem::F32, Per::Row, &[24], Role::Scratch),
            x: graph.buffer("x", Elem::F32, Per::Row, &[24], Role::Scratch),
            norm: graph.weight("norm", Elem::F32, &[24], Source::Tensor),
            weight: graph.weight("wqkv", Elem::Bf16, &[72, 24], Source::Tensor),
            first: 48,
            width: 24,
            depth: 24,
            eps: 1e-5,
        };
        assert_eq!(op.check(&graph), Ok(()));
        let said = "needs a first row of `wqkv` that 16 divides, found 40";
        assert_eq!(ops::NormLinear { first: 40, ..op }.check(&graph), Err(said.into()));
    }
}
