//! Tap by tap: Σ over taps of (pixels seen by that tap) times (that tap's panel).

use super::load;
use super::{Task, store};
use crate::backend::cpu::panels::{self, DEPTH, Factor, Rows, WIDTH};
use crate::backend::cpu::simd::{LANES, Simd, pair_kernel};
use crate::graph::ops::Conv2d;

/// Output rows and columns of a block: as many as keep what it sees in the second-level cache, where an element holds
/// `per` channels.
pub fn block(op: &Conv2d, per: usize) -> (usize, usize) {
    const BUDGET: usize = 1 << 16;
    let blocks: &[_] = if per == 1 { &[(8, 32), (4, 16)] } else { &[(16, 32), (8, 32), (8, 16), (4, 16)] };
    let fits = |block| {
        let (height, width) = seen(op, block);
        height * width * op.channels_in / per <= BUDGET
    };
    blocks.iter().copied().find(|&block| fits(block)).unwrap_or((2, 16))
}

/// Rows and columns that a block's taps see.
fn seen(op: &Conv2d, (height, width): (usize, usize)) -> (usize, usize) {
    let (side, stride) = (op.kernel.side(), op.kernel.stride());
    ((height - 1) * stride + side, (width - 1) * stride + side)
}

/// Room for what a block sees, and for the sums of a panel.
pub fn scratch(op: &Conv2d, per: usize) -> usize {
    let block = block(op, per);
    let (height, width) = seen(op, block);
    (height * width * op.channels_in / per).next_multiple_of(LANES) + block.0 * block.1 * WIDTH
}

pair_kernel!(pub fn run[T: Factor](task: &Task, op: &Conv2d) = body);

#[inline(always)]
unsafe fn body<S: Simd, T: Factor>(task: &Task, op: &Conv2d) {
    let (side, stride, c) = (op.kernel.side(), op.kernel.stride(), op.channels_in);
    let columns = task.columns.len();
    let (height, width) = seen(op, (task.rows.len(), columns));
    let start = |first: usize| (first * stride) as isize - op.kernel.border() as isize;
    let (top, left) = (start(task.rows.start), start(task.columns.start));
    // SAFETY: `scratch` has room for both, the sums behind what is copied; see `super::run`.
    unsafe {
        let x = task.scratch.cast::<T>();
        let sums = task.scratch.add((height * width * c / T::PER).next_multiple_of(LANES));
        load::copy::<S, T>(x, &task.source, (top, left), (height, width), 0..c);
        let c = c / T::PER;
        let taps: [usize; 9] = std::array::from_fn(|tap| (tap / side * width + tap % side) * c);
        let taps = &taps[..side * side];
        let pixels =
            |i: usize, offset| Rows { at: x.add(i * stride * width * c + offset), stride: stride * c, count: columns };
        let weight = |panel, tap, k| task.weight.cast::<T>().add(((panel * taps.len() + tap) * c + k) * WIDTH);
        let narrow = |panel: usize| task.sink.channels() <= panel * WIDTH + LANES;
        let put = |i, panel, sums: *const f32| {
            for (j, x) in task.columns.clone().enumerate() {
                for v in 0..if narrow(panel) { 1 } else { WIDTH / LANES } {
                    let sums = S::load(sums.add(j * WIDTH + v * LANES));
                    task.sink.put::<S>((task.rows.start + i, x), store::channel(panel, v), sums);
                }
            }
        };
        for panel in task.panels.clone() {
            for (tap, k) in (0..taps.len()).flat_map(|tap| (0..c).step_by(DEPTH).map(move |k| (tap, k))) {
                let depth = DEPTH.min(c - k);
                for i in 0..task.rows.len() {
                    let sums = sums.add(i * columns * WIDTH);
                    let (rows, weight) = (pixels(i, taps[tap] + k), weight(panel, tap, k));
                    panels::multiply::<S, T>(sums, rows, weight, depth, tap + k == 0, narrow(panel));
                }
            }
            for i in 0..task.rows.len() {
                put(i, panel, sums.add(i * columns * WIDTH));
            }
        }
    }
}
