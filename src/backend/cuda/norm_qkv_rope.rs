//! Matches `graph::ops::norm_qkv_rope`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, NormedInput, Product, Shape};
use crate::graph::{Elem, Graph, WeightId, ops};

const SHAPES: [Shape; 8] = product::shapes(
    16,
    8,
    [
        kernels::NORM_QKV_ROPE_THIN_8,
        kernels::NORM_QKV_ROPE_THIN_16,
        kernels::NORM_QKV_ROPE_THIN_32,
        kernels::NORM_QKV_ROPE_WIDE_64X32,
        kernels::NORM_QKV_ROPE_WIDE_64X64,
        kernels::NORM_QKV_ROPE_WIDE_64X128,
        kernels::NORM_QKV_ROPE_WIDE_128X128,
        kernels::NORM_QKV_ROPE_WIDE_160X128,
    ],
);

fn input(op: &ops::NormQkvRope) -> NormedInput {
    NormedInput { x: op.x, norm: op.norm, eps: op.eps, dim: op.cache.dim() }
}

impl Lower for ops::NormQkvRope {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.wqkv, Elem::Bf16)?;
        product::check_weight(graph, self.freqs_cis, Elem::F32)?;
        product::check_buffer(graph, self.q, Elem::F32)?;
        product::check_buffer(graph, self.k_cache, Elem::Bf16)?;
        product::check_buffer(graph, self.v_cache, Elem::Bf16)?;
        if !self.cache.head_dim.is_multiple_of(2) {
            return Err(format!("needs heads of an even width, found {}", self.cache.head_dim));
        }
        input(self).check(graph)
    }

    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        let dim = self.cache.dim();
        vec![product::fragments_of(self.wqkv, 3 * dim, dim)]
    }

    fn scratch_bytes(&self, graph: &Graph) -> usize {
        input(self).scratch_bytes(graph)
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let dim = self.cache.dim();
        let product = Product { rows: cx.extent.rows, width: 3 * dim, depth: dim, matrices: 1, normed: true };
        let shape = product.choose(&SHAPES, cx.capacity);
        let layer_bytes = self.cache.at(self.layer, 0, 0, 0) * self.cache.elem.size();
        let launch = product
            .launch(shape, cx.capacity)
            .arg(cx.buffer(self.q))
            .arg(cx.buffer(self.k_cache).offset(layer_bytes))
            .arg(cx.buffer(self.v_cache).offset(layer_bytes))
            .arg(cx.buffer(self.rows))
            .arg(cx.weight(self.freqs_cis));
        let launch = input(self)
            .pass(cx, shape, launch)
            .arg(cx.weight(self.wqkv))
            .size(cx.extent.rows)
            .size(dim)
            .size(self.cache.head_dim)
            .size(self.cache.positions);
        input(self).launches(cx, shape, launch)
    }
}
