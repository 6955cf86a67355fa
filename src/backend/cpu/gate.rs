//! out = activation(gate · n) * (up · n) with n = rms_norm(x): what both feed-forward parts have in common.

use super::Context;
use super::product::{self, Epilogue, Matrix, Piece, Product};
use crate::graph::{BufferId, WeightId};

/// The buffers and weights of a gated pair of products.
pub struct Gated {
    /// (R, F)
    pub out: BufferId,
    /// (R, C)
    pub x: BufferId,
    /// (C)
    pub norm: WeightId,
    /// (F, C)
    pub gate: WeightId,
    /// (F, C)
    pub up: WeightId,
    /// F
    pub hidden_dim: usize,
    /// C
    pub dim: usize,
    pub eps: f32,
}

pub fn run(op: &Gated, cx: &Context<'_>, activation: impl Fn(f32) -> f32 + Copy) {
    let x = product::normalize(cx, op.x, op.norm, op.gate, op.dim, op.eps);
    let [gate, up] = [op.gate, op.up].map(|weight| {
        let weight = Matrix::of(cx, weight);
        Product { weight, first: 0, x, depth: op.dim, rows: cx.extent.rows }
    });
    let (out, width) = (cx.buffer(op.out), op.hidden_dim);
    cx.member.deal_streams(op.hidden_dim, gate.pieces(), |rows, next| {
        // The gate's half of a piece goes to `out` first, then the other half multiplies it; then comes the next piece.
        let first = Piece { rows: rows.clone(), next: up.address(rows.start) };
        let second = Piece { rows, next: gate.address(next) };
        // SAFETY: both weights are (hidden_dim, dim), of one type, the rows (R, dim), `out` (R, hidden_dim) by the graph.
        unsafe {
            product::product(cx.isa, gate, first, &mut Gate { out, width, activation });
            product::product(cx.isa, up, second, &mut Up { out, width });
        }
    });
}

/// out = activation(sum)
struct Gate<F> {
    out: *mut f32,
    width: usize,
    activation: F,
}

impl<F: Fn(f32) -> f32> Epilogue for Gate<F> {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: element (r, n + i) is inside `out` and this member's.
            unsafe { *self.out.add(r * self.width + n + i) = (self.activation)(*sum) }
        }
    }
}

/// out *= sum
struct Up {
    out: *mut f32,
    width: usize,
}

impl Epilogue for Up {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: as `Gate`; the same member wrote the element just before.
            unsafe { *self.out.add(r * self.width + n + i) *= *sum }
        }
    }
}
