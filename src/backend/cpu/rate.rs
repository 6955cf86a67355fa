//! How fast all cores together multiply and add: the inner loop of convolutions on what fits the first cache.

use std::time::Instant;

use bytemuck::Pod;

use super::memory::Buffer;
use super::panels::tiles::{PIXELS, Panels, Pixels, convolve};
use super::panels::{self, DEPTH, Factor, Rows, WIDTH};
use super::simd::tiles::{ByTiles, SIDE, Tiles};
use super::simd::{Isa, Simd, pair_kernel, tile_kernel};
use super::team::Team;
use crate::Result;

/// Rows that meet a panel: as many as tiles of bf16 take at once.
const HEIGHT: usize = PIXELS;

/// Products of a panel that each member does: some milliseconds.
const TIMES: usize = 4096;

/// FLOP/s of a team on factors of type `T`.
pub fn measure<T: Factor + Pod>(team: &Team, isa: Isa) -> Result<f64> {
    let filled = |len| {
        // At cache lines, as a plan's.
        let mut buffer = Buffer::new(4 * len)?;
        fill(&mut buffer);
        Ok(buffer)
    };
    let members = (0..team.size())
        .map(|_| Ok([filled(HEIGHT * DEPTH)?, filled(DEPTH * WIDTH)?, filled(HEIGHT * WIDTH)?]))
        .collect::<Result<Vec<[Buffer; 3]>>>()?;
    let started = Instant::now();
    team.run(|member| {
        member.deal(members.len(), 1, |pieces| {
            for [x, panel, sums] in &members[pieces] {
                // SAFETY: all three are of the sizes that both take them to have; elements of both kinds have four bytes,
                // and those of two channels are pairs.
                unsafe {
                    if isa.by_tiles() && T::PER == 2 {
                        repeat_tiles(isa, sums.ptr(), rows(x), panel.ptr())
                    } else {
                        repeat::<T>(isa, sums.ptr(), rows(x), panel.ptr())
                    }
                }
            }
        });
    });
    let products = team.size() * TIMES * HEIGHT * DEPTH * WIDTH * T::PER;
    Ok(2.0 * products as f64 / started.elapsed().as_secs_f64())
}

fn rows<T: Pod>(x: &Buffer) -> Rows<T> {
    Rows { at: x.ptr::<T>().cast_const(), stride: DEPTH, count: HEIGHT }
}

/// Numbers between 1/2 and 1 of either sign, read as f32 or as bf16: with zeros, tiles of bf16 draw so much less power
/// that they run a quarter faster.
fn fill(factors: &mut Buffer) {
    let mut state = 1u32;
    for word in bytemuck::cast_slice_mut::<_, u32>(factors.bytes_mut()) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *word = 0x3f00_3f00 | state & 0x807f_807f;
    }
}

pair_kernel!(fn repeat[T: Factor](sums: *mut f32, rows: Rows<T>, panel: *const T) = body);

#[inline(always)]
unsafe fn body<S: Simd, T: Factor>(sums: *mut f32, rows: Rows<T>, panel: *const T) {
    for _ in 0..TIMES {
        // SAFETY: passed on.
        unsafe { panels::multiply::<S, T>(sums, rows, panel, DEPTH, false, false) }
    }
}

tile_kernel!(
    /// The same of pairs by tiles.
    fn repeat_tiles(sums: *mut f32, rows: Rows<u32>, panel: *const u32) = tiles_body
);

#[inline(always)]
unsafe fn tiles_body<S: ByTiles>(sums: *mut f32, rows: Rows<u32>, panel: *const u32) {
    let mut tiles = S::Tiles::new();
    let pixels = Pixels { at: rows.at, stride: rows.stride, counts: [SIDE; 2] };
    let taps = [[0, SIDE * rows.stride]];
    let panels = Panels { at: panel, depth: DEPTH, narrow: false };
    for _ in 0..TIMES {
        // SAFETY: there are as many rows, columns and channels.
        unsafe { convolve(&mut tiles, sums, pixels, &taps, panels, &mut ()) }
    }
}
