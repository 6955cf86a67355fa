//! Matches `graph::ops::norm_qkv_rope`.

use super::product::{self, Epilogue, TILE};
use super::simd::Element;
use super::{Context, Scratch};
use crate::graph::{Elem, Graph, NO_SLOT, Row, ops};

pub(super) fn scratch(op: &ops::NormQkvRope, graph: &Graph) -> Scratch {
    Scratch { shared: graph.max().rows * op.cache.dim(), own: 0 }
}

pub(super) fn run(op: &ops::NormQkvRope, cx: &Context<'_>) {
    let dim = op.cache.dim();
    let x = product::normalize(cx, op.x, op.norm, dim, op.eps);
    // SAFETY: wqkv is (3 dim, dim), the scratch (R, dim) by the graph; the epilogue writes this run's rows of q and of the cache.
    unsafe {
        match op.cache.elem {
            Elem::Bf16 => product::deal(cx, op.wqkv, x, (3 * dim, dim), Place::<u16>::new(op, cx)),
            _ => product::deal(cx, op.wqkv, x, (3 * dim, dim), Place::<f32>::new(op, cx)),
        }
    }
}

/// Turns q and k and puts each element where it belongs; the cache holds `T`.
struct Place<'a, T> {
    op: &'a ops::NormQkvRope,
    q: *mut f32,
    k_cache: *mut T,
    v_cache: *mut T,
    rows: *const Row,
    freqs_cis: *const f32,
}

impl<'a, T: Element + bytemuck::Pod> Place<'a, T> {
    fn new(op: &'a ops::NormQkvRope, cx: &Context<'_>) -> Self {
        Self {
            op,
            q: cx.buffer(op.q),
            k_cache: cx.buffer(op.k_cache),
            v_cache: cx.buffer(op.v_cache),
            rows: cx.buffer(op.rows),
            freqs_cis: cx.weight(op.freqs_cis).ptr(),
        }
    }
}

impl<T: Element> Epilogue for Place<'_, T> {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, mut sums: [f32; TILE], count: usize) {
        let cache = &self.op.cache;
        let (dim, head_dim) = (cache.dim(), cache.head_dim);
        let (part, c) = (n / dim, n % dim);
        // SAFETY: row r is one of the run's; it is checked against the cache, head and channel are inside the
        // row; head_dim is a multiple of the tile, so no tile crosses a head.
        unsafe {
            let row = *self.rows.add(r);
            if row.slot == NO_SLOT {
                return;
            }
            cache.check(&row);
            let (slot, position) = (row.slot as usize, row.position as usize);
            if part < 2 {
                let table = self.freqs_cis.add(position * head_dim + c % head_dim);
                for pair in 0..count / 2 {
                    let (cos, sin) = (*table.add(2 * pair), *table.add(2 * pair + 1));
                    let (even, odd) = (sums[2 * pair], sums[2 * pair + 1]);
                    sums[2 * pair] = even * cos - odd * sin;
                    sums[2 * pair + 1] = odd * cos + even * sin;
                }
            }
            let cached = cache.at(self.op.layer, slot, c / head_dim, position) + c % head_dim;
            for (i, sum) in sums.into_iter().take(count).enumerate() {
                match part {
                    0 => *self.q.add(r * dim + c + i) = sum,
                    1 => *self.k_cache.add(cached + i) = T::from_f32(sum),
                    _ => *self.v_cache.add(cached + i) = T::from_f32(sum),
                }
            }
        }
    }
}
