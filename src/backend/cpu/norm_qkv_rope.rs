//! Matches `graph::ops::norm_qkv_rope`.

use std::ops::Range;

use super::product::{self, Epilogue};
use super::simd::{Element, LINE, prefetch};
use super::{Context, Scratch};
use crate::graph::{Elem, Graph, NO_SLOT, Row, ops};

pub(super) fn scratch(op: &ops::NormQkvRope, graph: &Graph) -> Scratch {
    product::scratch(op.cache.dim(), graph)
}

pub(super) fn run(op: &ops::NormQkvRope, cx: &Context<'_>) {
    let dim = op.cache.dim();
    let x = product::normalize(cx, op.x, op.norm, op.wqkv, dim, op.eps);
    // SAFETY: wqkv is (3 dim, dim), `x` (R, dim) by the graph; the epilogue writes this run's rows of q and of the cache,
    // other buffers.
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
    /// The cache's lines, of each row and head others, which stores would wait for one after the other. Where heads are no
    /// whole lines, some are left to the stores.
    #[inline(always)]
    fn expect(&self, rows: usize, n: Range<usize>) {
        let cache = &self.op.cache;
        for r in 0..rows {
            // SAFETY: row r is one of the run's.
            let row = unsafe { *self.rows.add(r) };
            if row.slot == NO_SLOT {
                continue;
            }
            for n in n.clone().step_by(LINE / size_of::<T>()) {
                let (head, c) = (n / cache.head_dim, n % cache.head_dim);
                let (part, head) = (head / cache.n_head, head % cache.n_head);
                if part > 0 {
                    prefetch(self.cached(row, (part, head), c));
                }
            }
        }
    }

    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        // SAFETY: row r is one of the run's.
        let row = unsafe { *self.rows.add(r) };
        if row.slot == NO_SLOT {
            return;
        }
        let cache = &self.op.cache;
        cache.check(&row);
        let head_dim = cache.head_dim;
        let (mut rest, mut n) = (sums, n);
        // Heads of q, then of k, then of v; what is here may end one and begin another.
        while !rest.is_empty() {
            let (head, c) = (n / head_dim, n % head_dim);
            let sums;
            (sums, rest) = rest.split_at_mut(rest.len().min(head_dim - c));
            n += sums.len();
            // SAFETY: the row is checked against the cache; head and channels are inside of the row.
            unsafe { self.place(r, row, (head / cache.n_head, head % cache.n_head), c, sums) }
        }
    }
}

impl<T: Element> Place<'_, T> {
    /// Where in the cache a head's channel `c` of k (part 1) or v (2) goes.
    #[inline(always)]
    fn cached(&self, row: Row, (part, head): (usize, usize), c: usize) -> *mut T {
        let at = self.op.cache.at(self.op.layer, row.slot as usize, head, row.position as usize) + c;
        let cache = if part == 1 { self.k_cache } else { self.v_cache };
        cache.wrapping_add(at)
    }

    /// Channels of a head from `c` on, of q (part 0), k (1) or v (2).
    ///
    /// # Safety
    /// They exist, and the row's slot and position do.
    #[inline(always)]
    unsafe fn place(&self, r: usize, row: Row, (part, head): (usize, usize), c: usize, sums: &mut [f32]) {
        let cache = &self.op.cache;
        // SAFETY: the caller's.
        unsafe {
            if part < 2 {
                let table = self.freqs_cis.add(row.position as usize * cache.head_dim + c);
                for (pair, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let (cos, sin) = (*table.add(2 * pair), *table.add(2 * pair + 1));
                    let (even, odd) = (sums[0], sums[1]);
                    sums[0] = even * cos - odd * sin;
                    sums[1] = odd * cos + even * sin;
                }
            }
            if part == 0 {
                let q = self.q.add(r * cache.dim() + head * cache.head_dim + c);
                q.copy_from_nonoverlapping(sums.as_ptr(), sums.len());
                return;
            }
            let to = self.cached(row, (part, head), c);
            for (to, sum) in std::slice::from_raw_parts_mut(to, sums.len()).iter_mut().zip(sums) {
                *to = T::from_f32(*sum);
            }
        }
    }
}
