//! Matches `graph::ops::pixels_to_input`.

use super::Context;
use crate::graph::ops;

pub(super) fn run(op: &ops::PixelsToInput, cx: &Context<'_>) {
    let (x, pixels) = (cx.buffer::<f32>(op.x), cx.buffer::<u8>(op.pixels));
    cx.member.deal(cx.extent.rows * op.len, 1 << 14, |range| {
        for i in range {
            // SAFETY: both hold `len` elements per image; element i is this member's.
            unsafe { *x.add(i) = f32::from(*pixels.add(i)) / 127.5 - 1.0 }
        }
    });
}
