//! Matches `graph::ops::codebook_lookup`.

use super::Context;
use crate::graph::ops;

pub(super) fn run(op: &ops::CodebookLookup, cx: &Context<'_>) {
    let (x, codes) = (cx.buffer::<f32>(op.x), cx.buffer::<u32>(op.codes));
    let (e, z) = (op.codebook_embed_dim, op.z_channels);
    let (codebook, weight, bias) = (cx.weight(op.codebook), cx.weight(op.weight), cx.weight(op.bias));
    cx.member.deal(cx.extent.rows * op.pixels, 16, |pixels| {
        for p in pixels {
            // SAFETY: the code is checked; all sizes are the graph's; pixel p of x is this member's.
            unsafe {
                let code = *codes.add(p) as usize;
                assert!(code < op.codebook_size, "code {code} of a codebook of {}", op.codebook_size);
                let vector = std::slice::from_raw_parts(codebook.ptr::<f32>().add(code * e), e);
                let weight = std::slice::from_raw_parts(weight.ptr::<f32>(), z * e);
                let bias = std::slice::from_raw_parts(bias.ptr::<f32>(), z);
                let out = std::slice::from_raw_parts_mut(x.add(p * z), z);
                for ((out, row), bias) in out.iter_mut().zip(weight.chunks_exact(e)).zip(bias) {
                    *out = row.iter().zip(vector).fold(0.0f32, |sum, (w, x)| w.mul_add(*x, sum)) + bias;
                }
            }
        }
    });
}
