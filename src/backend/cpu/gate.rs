//! out = activation(gate · n) * (up · n) with n = rms_norm(x): what both feed-forward parts have in common.

use super::Context;
use super::product::{self, Epilogue, Matrix, Out, Piece, Product, Store};
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
    let mut x = product::normalize(cx, op.x, op.norm, op.gate, op.dim, op.eps);
    let [gate, up] = [op.gate, op.up].map(|weight| {
        let weight = Matrix::of(cx, weight);
        Product { weight, first: 0, depth: op.dim, rows: cx.extent.rows }
    });
    let out = Out { at: cx.buffer(op.out), width: op.hidden_dim };
    cx.member.deal_streams(op.hidden_dim, gate.pieces(), |rows, next| {
        // The gate's half of a piece goes to `out` first, then the other half multiplies it; then comes the next piece.
        let first = Piece { rows: rows.clone(), next: up.address(rows.start) };
        let second = Piece { rows, next: gate.address(next) };
        let x = x.get(cx, |row| gate.ask(first.rows.start, row));
        // SAFETY: both weights are (hidden_dim, dim), of one type, the rows (R, dim), `out` (R, hidden_dim) by the graph,
        // another buffer.
        unsafe {
            product::product(cx.isa, gate, x, first, &mut Store { out, map: activation });
            product::product(cx.isa, up, x, second, &mut Multiply(out));
        }
    });
}

/// out *= sum
struct Multiply(Out);

impl Epilogue for Multiply {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
        // SAFETY: these elements are inside `out`; the same member stored the gate's there just before.
        let out = unsafe { self.0.part(r, n, sums.len()) };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out *= *sum;
        }
    }
}
