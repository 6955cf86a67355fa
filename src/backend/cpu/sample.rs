//! Matches `graph::ops::sample`.

use super::simd::{LANES, Simd, kernel};
use super::{Context, Scratch};
use crate::graph::ops::{self, NO_CODE, gumbel_of, philox};
use crate::graph::{Draw, NO_ROW, Row};

/// Codes that are compared with what is kept at once: a bit each.
const BLOCK: usize = u32::BITS as usize;

pub(super) fn scratch(op: &ops::Sample) -> Scratch {
    // z and the copy that `cutoff` sorts.
    Scratch { shared: 0, own: 2 * op.vocab_size.next_multiple_of(LANES) }
}

pub(super) fn run(op: &ops::Sample, cx: &Context<'_>) {
    let (rows, draws) = (cx.buffer::<Row>(op.rows), cx.buffer::<Draw>(op.draws));
    let (logits, codes) = (cx.buffer::<f32>(op.logits), cx.buffer::<u32>(op.codes));
    let drawn = op.drawn.map(|drawn| cx.buffer::<u32>(drawn));
    cx.member.deal(cx.extent.draws, 1, |range| {
        for d in range {
            // SAFETY: the table holds the run's draws.
            let draw = unsafe { &*draws.add(d) };
            if draw.cond_row == NO_ROW {
                continue;
            }
            op.check(draw, cx.extent);
            // SAFETY: the draw was checked; draw d, its rows and its picture's codes are this member's alone, as
            // `Draw` demands of who writes the table. The scratch holds two vocabularies.
            unsafe {
                let draw = &mut *draws.add(d);
                let row = |r: usize| std::slice::from_raw_parts(logits.add(r * op.vocab_size), op.vocab_size);
                let room = op.vocab_size.next_multiple_of(LANES);
                let z = std::slice::from_raw_parts_mut(cx.own_scratch(), op.vocab_size);
                let copy = std::slice::from_raw_parts_mut(cx.own_scratch().add(room), op.vocab_size);
                // What is no number has no code: the mark goes to the session, a harmless token to the rows.
                let code = match guide(cx.isa, z, row(draw.cond_row as usize), draw.guided_by().map(row), draw) {
                    true => pick(cx.isa, z, cutoff(cx.isa, z, draw, copy), draw),
                    false => NO_CODE,
                };
                if let Some(drawn) = drawn {
                    *drawn.add(d) = code;
                    continue;
                }
                *codes.add(draw.picture as usize * op.tokens + draw.token as usize) = code;
                for r in draw.rows() {
                    let row = &mut *rows.add(r);
                    row.token = if code == NO_CODE { 0 } else { code };
                    row.position += 1;
                    row.settled = row.position;
                }
                draw.token += 1;
            }
        }
    });
}

kernel!(
    /// z = (uncond + (cond - uncond) * cfg_scale) / temperature; whether all of it are numbers.
    fn guide(z: &mut [f32], cond: &[f32], uncond: Option<&[f32]>, draw: &Draw) -> bool = guide_body
);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // S only names the instantiation
unsafe fn guide_body<S: Simd>(z: &mut [f32], cond: &[f32], uncond: Option<&[f32]>, draw: &Draw) -> bool {
    match uncond {
        Some(uncond) => {
            for ((z, cond), uncond) in z.iter_mut().zip(cond).zip(uncond) {
                *z = (cond - uncond).mul_add(draw.cfg_scale, *uncond) / draw.temperature;
            }
        }
        None => {
            for (z, cond) in z.iter_mut().zip(cond) {
                *z = cond / draw.temperature;
            }
        }
    }
    // Counted rather than looked for: a search that may end early takes one after the other.
    let mut others = 0u32;
    for z in z {
        others += u32::from(z.is_nan());
    }
    others == 0
}

kernel!(
    /// The smallest z that the draw keeps; `scratch` is as long as z.
    fn cutoff(z: &[f32], draw: &Draw, scratch: &mut [f32]) -> f32 = cutoff_body
);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // S only names the instantiation
unsafe fn cutoff_body<S: Simd>(z: &[f32], draw: &Draw, scratch: &mut [f32]) -> f32 {
    ops::cutoff(z, draw.top_k as usize, draw.top_p, scratch)
}

kernel!(
    /// The lowest code of the largest z + noise among those with z ≥ keep; NO_CODE when there is none.
    fn pick(z: &[f32], keep: f32, draw: &Draw) -> u32 = pick_body
);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // S only names the instantiation
unsafe fn pick_body<S: Simd>(z: &[f32], keep: f32, draw: &Draw) -> u32 {
    let mut best = (f32::NEG_INFINITY, NO_CODE);
    // Noise is made for sixteen kept codes at a time, in ascending order.
    let mut codes = [0u32; LANES];
    let mut count = 0;
    for (block, scores) in z.chunks(BLOCK).enumerate() {
        let mut kept = 0u32;
        for (i, &score) in scores.iter().enumerate() {
            kept |= u32::from(score >= keep) << i;
        }
        while kept != 0 {
            codes[count] = block as u32 * BLOCK as u32 + kept.trailing_zeros();
            kept &= kept - 1;
            count += 1;
            if count == LANES {
                best = better(best, z, &codes, draw);
                count = 0;
            }
        }
    }
    better(best, z, &codes[..count], draw).1
}

/// The better of the best so far, score and code, and the best of up to sixteen codes.
///
/// A function, and loops rather than closures in it: these would be compiled without the instructions that the
/// processor has.
#[inline(always)]
fn better(mut best: (f32, u32), z: &[f32], codes: &[u32], draw: &Draw) -> (f32, u32) {
    let mut padded = [0u32; LANES];
    padded[..codes.len()].copy_from_slice(codes);
    let noise = if draw.greedy == 1 { [0.0; LANES] } else { noise_of(&padded, draw) };
    for (&v, noise) in codes.iter().zip(noise) {
        let score = z[v as usize] + noise;
        if score > best.0 {
            best = (score, v);
        }
    }
    best
}

/// `gumbel` of sixteen codes, written so that it vectorizes.
#[inline(always)]
fn noise_of(codes: &[u32; LANES], draw: &Draw) -> [f32; LANES] {
    let image = [draw.image as u32, (draw.image >> 32) as u32];
    let mut bits = [0u32; LANES];
    for (bits, code) in bits.iter_mut().zip(codes) {
        let words = philox([code / 4, draw.token, image[0], image[1]], draw.seed);
        let (low, high) = if code % 2 == 0 { (words[0], words[2]) } else { (words[1], words[3]) };
        *bits = if code % 4 < 2 { low } else { high };
    }
    let mut noise = [0.0; LANES];
    for (noise, bits) in noise.iter_mut().zip(bits) {
        *noise = gumbel_of(bits);
    }
    noise
}
