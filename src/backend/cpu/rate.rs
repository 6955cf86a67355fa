//! How fast all cores together multiply and add: the inner loop of convolutions on what fits the first cache.

use std::time::Instant;

use super::panels::{self, DEPTH, Factor, Rows, WIDTH};
use super::simd::{Isa, Simd, pair_kernel};
use super::team::Team;

/// Rows that meet a panel: as many as tiles of bf16 take at once.
const HEIGHT: usize = 32;

/// Products of a panel that each member does: some 10 ms.
const TIMES: usize = 4096;

/// FLOP/s of a team on factors of type `T`.
pub fn measure<T: Factor + Default + Send + Sync>(team: &Team, isa: Isa) -> f64 {
    let started = Instant::now();
    team.run(|member| {
        // Zeros are as fast as any other numbers on a CPU.
        let (rows, panel) = (vec![T::default(); HEIGHT * DEPTH], vec![T::default(); DEPTH * WIDTH]);
        let mut sums = vec![0f32; HEIGHT * WIDTH];
        member.deal(member.team_size(), 1, |pieces| {
            for _ in pieces {
                let rows = Rows { at: rows.as_ptr(), stride: DEPTH, count: HEIGHT };
                // SAFETY: all three are of the sizes that `multiply` is told.
                unsafe { repeat::<T>(isa, sums.as_mut_ptr(), rows, panel.as_ptr()) }
            }
        });
        std::hint::black_box(&sums);
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
