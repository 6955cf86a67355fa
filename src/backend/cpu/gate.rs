//! out = activation(gate · n) * (up · n) with n = rms_norm(x): what both feed-forward parts have in common.

use std::ops::Range;

use super::product::{self, Epilogue, Piece, Product, TILE};
use super::simd::{Element, Isa};
use super::{Context, Scratch};
use crate::graph::{BufferId, Elem, Graph, WeightId};

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

pub fn scratch(dim: usize, graph: &Graph) -> Scratch {
    Scratch { shared: graph.max().rows * dim, own: 0 }
}

pub fn run(op: &Gated, cx: &Context<'_>, activation: impl Fn(f32) -> f32 + Copy) {
    let x = product::normalize(cx, op.x, op.norm, op.dim, op.eps);
    let (gate, up) = (cx.weight(op.gate), cx.weight(op.up));
    let out = Gate { out: cx.buffer(op.out), width: op.hidden_dim, activation };
    let (depth, rows) = (op.dim, cx.extent.rows);
    cx.member.deal_streams(op.hidden_dim, product::PIECES, |range, next| {
        // SAFETY: both weights are (hidden_dim, dim), the scratch (R, dim), `out` (R, hidden_dim) by the graph.
        unsafe {
            match gate.elem() {
                Elem::Bf16 => {
                    let product = |weight| Product::<u16> { weight, x, depth, rows };
                    gated(cx.isa, product(gate.ptr()), product(up.ptr()), range, next, out);
                }
                _ => {
                    let product = |weight| Product::<f32> { weight, x, depth, rows };
                    gated(cx.isa, product(gate.ptr()), product(up.ptr()), range, next, out);
                }
            }
        }
    });
}

/// The gate's half of a piece goes to `out` first, then the other half multiplies it; then comes the piece at `next`.
unsafe fn gated<T: Element, F: Fn(f32) -> f32 + Copy>(
    isa: Isa,
    gate: Product<T>,
    up: Product<T>,
    range: Range<usize>,
    next: usize,
    mut out: Gate<F>,
) {
    // SAFETY: passed on from `run`; `next` is at most the number of rows.
    unsafe {
        let first = Piece { rows: range.clone(), next: up.weight.add(range.start * up.depth) };
        let second = Piece { rows: range, next: gate.weight.add(next * gate.depth) };
        product::product(isa, gate, first, &mut out);
        product::product(isa, up, second, &mut Up { out: out.out, width: out.width });
    }
}

/// out = activation(sum)
#[derive(Clone, Copy)]
struct Gate<F> {
    out: *mut f32,
    width: usize,
    activation: F,
}

impl<F: Fn(f32) -> f32> Epilogue for Gate<F> {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: element (r, n + i) is inside `out` and this member's.
            unsafe { *self.out.add(r * self.width + n + i) = (self.activation)(sum) }
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
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: as `Gate`; the same member wrote the element just before.
            unsafe { *self.out.add(r * self.width + n + i) *= sum }
        }
    }
}
