//! Matches `graph::ops::nearest_code`.

use super::panels::{self, Rows, WIDTH};
use super::simd::{Simd, kernel};
use super::{Arrangement, Context};
use crate::graph::{WeightId, ops};

/// Pixels that meet the codebook together.
const TOGETHER: usize = 8;

/// The codebook in panels of codes.
pub(super) fn arrangement(op: &ops::NearestCode) -> (WeightId, Arrangement) {
    let (v, e) = (op.codebook_size, op.codebook_embed_dim);
    let pack = move |codebook: &[f32], packed: &mut [f32]| panels::pack(codebook, v, e, 1, packed);
    (op.codebook, Arrangement::new("panels", panels::packed_len(v, e, 1), pack))
}

pub(super) fn run(op: &ops::NearestCode, cx: &Context<'_>) {
    let (codes, z) = (cx.buffer::<u32>(op.codes), cx.buffer::<f32>(op.z));
    cx.member.deal(cx.extent.rows * op.pixels, TOGETHER, |range| {
        // SAFETY: z holds E elements per pixel, `codes` one; these pixels are this member's.
        unsafe {
            let rows = Rows {
                at: z.add(range.start * op.codebook_embed_dim),
                stride: op.codebook_embed_dim,
                count: range.len(),
            };
            search(cx.isa, codes.add(range.start), rows, cx.weight(op.codebook).ptr(), op);
        }
    });
}

kernel!(fn search(codes: *mut u32, z: Rows, codebook: *const f32, op: &ops::NearestCode) = search_body);

#[inline(always)]
unsafe fn search_body<S: Simd>(codes: *mut u32, z: Rows, codebook: *const f32, op: &ops::NearestCode) {
    let e = op.codebook_embed_dim;
    // Per lane: the largest product and the first panel that has it.
    let mut best = [[(f32::NEG_INFINITY, 0u32); WIDTH]; TOGETHER];
    let mut products = [[0.0f32; WIDTH]; TOGETHER];
    for panel in 0..op.codebook_size.div_ceil(WIDTH) {
        let codes = WIDTH.min(op.codebook_size - panel * WIDTH);
        // SAFETY: at most TOGETHER rows; every panel holds E rows of WIDTH.
        unsafe {
            let weight = codebook.add(panel * e * WIDTH);
            panels::multiply::<S, f32>(products.as_mut_ptr().cast(), z, weight, e, true, false);
        }
        for (best, products) in best.iter_mut().zip(&products) {
            for (best, product) in best[..codes].iter_mut().zip(products) {
                *best = if *product > best.0 { (*product, panel as u32) } else { *best };
            }
        }
    }
    for (p, best) in best.iter().take(z.count).enumerate() {
        let (mut largest, mut code) = (f32::NEG_INFINITY, 0);
        for (lane, &(product, panel)) in best.iter().enumerate() {
            let candidate = panel * WIDTH as u32 + lane as u32;
            if product > largest || product == largest && candidate < code {
                (largest, code) = (product, candidate);
            }
        }
        // SAFETY: pixel p is the caller's.
        unsafe { *codes.add(p) = code }
    }
}
