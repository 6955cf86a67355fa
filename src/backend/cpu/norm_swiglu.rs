//! Matches `graph::ops::norm_swiglu`.

use super::product::{self, Epilogue, Product, TILE};
use super::simd::{Element, Isa};
use super::{Context, Scratch};
use crate::graph::{Elem, Graph, ops};
use crate::math;

pub(super) fn scratch(op: &ops::NormSwiglu, graph: &Graph) -> Scratch {
    Scratch { shared: graph.max().rows * op.dim, own: 0 }
}

pub(super) fn run(op: &ops::NormSwiglu, cx: &Context<'_>) {
    let x = product::normalize(cx, op.x, op.norm, op.dim, op.eps);
    let (w1, w3) = (cx.weight(op.w1), cx.weight(op.w3));
    let out = Gate { out: cx.buffer(op.out), width: op.hidden_dim };
    let (depth, rows) = (op.dim, cx.extent.rows);
    cx.member.deal(op.hidden_dim, product::chunk(op.hidden_dim, cx.member.team_size()), |range| {
        // SAFETY: w1 and w3 are (hidden_dim, dim), the scratch (R, dim), `out` (R, hidden_dim) by the graph.
        unsafe {
            match w1.elem() {
                Elem::Bf16 => {
                    let product = |weight| Product::<u16> { weight, x, depth, rows };
                    gated(cx.isa, product(w1.ptr()), product(w3.ptr()), range, out);
                }
                _ => {
                    let product = |weight| Product::<f32> { weight, x, depth, rows };
                    gated(cx.isa, product(w1.ptr()), product(w3.ptr()), range, out);
                }
            }
        }
    });
}

/// The gate's half of a chunk goes to `out` first, then the other half multiplies it.
unsafe fn gated<T: Element>(isa: Isa, w1: Product<T>, w3: Product<T>, range: std::ops::Range<usize>, mut out: Gate) {
    // SAFETY: passed on from `run`.
    unsafe {
        product::product(isa, w1, range.clone(), &mut out);
        product::product(isa, w3, range, &mut Up(out));
    }
}

/// out = silu(sum)
#[derive(Clone, Copy)]
struct Gate {
    out: *mut f32,
    width: usize,
}

impl Epilogue for Gate {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: element (r, n + i) is inside `out` and this member's.
            unsafe { *self.out.add(r * self.width + n + i) = math::silu(sum) }
        }
    }
}

/// out *= sum
struct Up(Gate);

impl Epilogue for Up {
    #[inline(always)]
    fn store(&mut self, r: usize, n: usize, sums: [f32; TILE], count: usize) {
        for (i, sum) in sums.into_iter().take(count).enumerate() {
            // SAFETY: as `Gate`; the same member wrote the element just before.
            unsafe { *self.0.out.add(r * self.0.width + n + i) *= sum }
        }
    }
}
