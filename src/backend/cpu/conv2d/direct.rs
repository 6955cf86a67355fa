//! Tap by tap: Σ over taps of (pixels seen by that tap) times (that tap's panel).

use super::load;
use super::{Task, store};
use crate::backend::cpu::panels::{self, DEPTH, Factor, Rows, WIDTH};
use crate::backend::cpu::simd::{LANES, Simd, pair_kernel};
use crate::graph::ops::Conv2d;

/// Output rows and columns of a block: as many as keep what it sees in the second-level cache.
pub fn block(op: &Conv2d) -> (usize, usize) {
    const BUDGET: usize = 1 << 16;
    let fits = |block| {
        let (height, width) = seen(op, block);
        height * width * op.channels_in <= BUDGET
    };
    [(8, 32), (4, 16)].into_iter().find(|&block| fits(block)).unwrap_or((2, 16))
}

/// Rows and columns that a block's taps see.
fn seen(op: &Conv2d, (height, width): (usize, usize)) -> (usize, usize) {
    let (side, stride) = (op.kernel.side(), op.kernel.stride());
    ((height - 1) * stride + side, (width - 1) * stride + side)
}

pub fn scratch(op: &Conv2d) -> usize {
    let block = block(op);
    let (height, width) = seen(op, block);
    height * width * op.channels_in + block.0 * block.1 * WIDTH
}

pair_kernel!(pub fn run[T: Factor](task: &Task, op: &Conv2d) = body);

#[inline(always)]
unsafe fn body<S: Simd, T: Factor>(task: &Task, op: &Conv2d) {
    let (side, stride, c) = (op.kernel.side(), op.kernel.stride(), op.channels_in);
    let (rows, columns) = (task.rows.clone(), task.columns.clone());
    let (height, width) = seen(op, (rows.len(), columns.len()));
    let start = |first: usize| (first * stride) as isize - op.kernel.border() as isize;
    // SAFETY: `scratch` has room for what the block sees and for the sums of one panel; see `super::run`.
    unsafe {
        let x = task.scratch;
        let sums = x.add(height * width * c);
        load::copy::<S>(x, &task.source, (start(rows.start), start(columns.start)), (height, width), 0..c);
        let (x, c) = (T::convert::<S>(x, height * width * c), c / T::PER);
        for panel in task.panels.clone() {
            let narrow = task.sink.channels() <= panel * WIDTH + LANES;
            for (tap, k) in (0..side * side).flat_map(|tap| (0..c).step_by(DEPTH).map(move |k| (tap, k))) {
                let weight = task.weight.cast::<T>().add(((panel * side * side + tap) * c + k) * WIDTH);
                let depth = DEPTH.min(c - k);
                for i in 0..rows.len() {
                    let at = x.add(((i * stride + tap / side) * width + tap % side) * c + k);
                    let pixels = Rows { at, stride: stride * c, count: columns.len() };
                    let sums = sums.add(i * columns.len() * WIDTH);
                    panels::multiply::<S, T>(sums, pixels, weight, depth, tap + k == 0, narrow);
                }
            }
            for (i, y) in rows.clone().enumerate() {
                for (j, x) in columns.clone().enumerate() {
                    let sums = sums.add((i * columns.len() + j) * WIDTH);
                    for v in 0..if narrow { 1 } else { WIDTH / LANES } {
                        task.sink.put::<S>((y, x), store::channel(panel, v), S::load(sums.add(v * LANES)));
                    }
                }
            }
        }
    }
}
