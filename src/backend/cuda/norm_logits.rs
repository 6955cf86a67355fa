//! Matches `graph::ops::norm_logits`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, NormedInput, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    16,
    8,
    [
        kernels::NORM_LOGITS_THIN_8,
        kernels::NORM_LOGITS_THIN_16,
        kernels::NORM_LOGITS_THIN_32,
        kernels::NORM_LOGITS_WIDE_64X32,
        kernels::NORM_LOGITS_WIDE_64X64,
        kernels::NORM_LOGITS_WIDE_64X128,
        kernels::NORM_LOGITS_WIDE_128X128,
        kernels::NORM_LOGITS_WIDE_160X128,
    ],
);

fn input(op: &ops::NormLogits) -> NormedInput {
    NormedInput { x: op.x, norm: op.norm, eps: op.eps, dim: op.dim }
}

impl Lower for ops::NormLogits {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.output, Elem::Bf16)?;
        product::check_buffer(graph, self.logits, Elem::F32)?;
        input(self).check(graph)
    }

    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        vec![product::fragments_of(self.output, self.vocab_size, self.dim)]
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        input(self).scratch_bytes(graph)
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product =
            Product { rows: cx.extent.rows, width: self.vocab_size, depth: self.dim, matrices: 1, normed: true };
        let shape = product.choose(&SHAPES, cx.capacity);
        let launch = input(self)
            .pass(cx, shape, product.launch(shape, cx.capacity).arg(cx.buffer(self.logits)))
            .arg(cx.weight(self.output))
            .size(cx.extent.rows)
            .size(self.vocab_size)
            .size(self.dim);
        input(self).launches(cx, shape, launch)
    }
}
