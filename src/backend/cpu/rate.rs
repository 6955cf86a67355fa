//! How fast all cores together multiply and add: the inner loop of convolutions on what fits the first cache.

use std::time::Instant;

use bytemuck::Pod;

use super::memory::Buffer;
use super::panels::{self, DEPTH, Factor, Rows, WIDTH};
use super::simd::{Isa, Simd, pair_kernel};
use super::team::Team;

/// Rows that meet a panel: as many as tiles of bf16 take at once.
const HEIGHT: usize = 32;

/// Products of a panel that each member does: some milliseconds.
const TIMES: usize = 4096;

/// FLOP/s of a team on factors of type `T`.
pub fn measure<T: Factor + Pod>(team: &Team, isa: Isa) -> f64 {
    let started = Instant::now();
    team.run(|member| {
        // Zeros are as fast as any other numbers on a CPU; at cache lines they lie as a plan's.
        let [rows, panel, sums] = [HEIGHT * DEPTH, DEPTH * WIDTH, HEIGHT * WIDTH].map(|len| Buffer::new(4 * len));
        member.deal(member.team_size(), 1, |pieces| {
            for _ in pieces {
                let rows = Rows { at: rows.ptr::<T>().cast_const(), stride: DEPTH, count: HEIGHT };
                // SAFETY: all three are of the sizes that `multiply` is told; elements of both kinds have four bytes.
                unsafe { repeat::<T>(isa, sums.ptr(), rows, panel.ptr()) }
            }
        });
        std::hint::black_box(sums.ptr::<f32>());
    });
    let products = team.size() * TIMES * HEIGHT * DEPTH * WIDTH * T::PER;
    2.0 * products as f64 / started.elapsed().as_secs_f64()
}

pair_kernel!(fn repeat[T: Factor](sums: *mut f32, rows: Rows<T>, panel: *const T) = body);

#[inline(always)]
unsafe fn body<S: Simd, T: Factor>(sums: *mut f32, rows: Rows<T>, panel: *const T) {
    for _ in 0..TIMES {
        // SAFETY: passed on.
        unsafe { panels::multiply::<S, T>(sums, rows, panel, DEPTH, false, false) }
    }
}
