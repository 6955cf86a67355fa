//! By tiles of bf16, a strip of the map at a time, from top to bottom.
//!
//! The rows that the next outputs see lie in a ring; while tiles multiply, the row that comes next is read, normalized,
//! activated and rounded into it, which costs hardly more time than the multiplication alone.
//!
//! A doubled map is never made: each of the four outputs over a pixel sees 2 x 2 pixels of the map, with a kernel whose
//! taps are sums of those that meet the same pixel.

mod ring;

use self::ring::{Loader, Ring};
use super::{Task, store};
use crate::backend::cpu::panels::WIDTH;
use crate::backend::cpu::panels::tiles::{Meanwhile, PIXELS, Panels, Pixels, convolve, steps};
use crate::backend::cpu::simd::tiles::{ByTiles, SIDE, Tiles};
use crate::backend::cpu::simd::{LANES, LINE, Simd, prefetch, tile_kernel};
use crate::graph::ops::{Conv2d, Kernel};

/// What the outputs over pixel (i, j) of a grid see: rows and columns from `stride` * i - `border` on, `side` of them.
struct Window {
    side: usize,
    /// Taps of a phase along one side.
    taps: usize,
    stride: usize,
    border: usize,
    /// Output rows over one of the grid, and columns.
    phases: usize,
}

impl Window {
    fn of(kernel: Kernel) -> Self {
        let (side, taps, phases) = (kernel.side(), kernel.merged_side(), kernel.repeat());
        Self { side, taps, stride: kernel.stride(), border: kernel.border(), phases }
    }

    /// Rows, or columns, that `count` of the grid see.
    fn seen(&self, count: usize) -> usize {
        (count - 1) * self.stride + self.side
    }

    /// Rows of the grid that meet a panel together: one of two runs of pixels, or two of one.
    fn band(&self, op: &Conv2d) -> usize {
        if grid(op).1 > SIDE { 1 } else { 2 }
    }
}

/// Panels of weights: of each phase, so many for its output channels.
pub fn panels(op: &Conv2d) -> usize {
    let phases = Window::of(op.kernel).phases;
    phases * phases * op.channels_out.div_ceil(WIDTH)
}

/// Rows and columns of the grid.
pub fn grid(op: &Conv2d) -> (usize, usize) {
    op.kernel.grid(op.size)
}

/// Rows and columns of a strip: few enough rows for eight strips per member, but enough that what the outer ones see
/// is a small part.
pub fn strip(op: &Conv2d, images: usize, members: usize) -> (usize, usize) {
    let window = Window::of(op.kernel);
    let (height, width) = grid(op);
    let rows = height * width.div_ceil(PIXELS) * images / (8 * members);
    (rows.clamp(8, 64).next_multiple_of(window.band(op)), PIXELS.min(width).max(1))
}

/// Elements of [`pack`].
pub fn packed_len(op: &Conv2d) -> usize {
    let taps = op.kernel.merged_side();
    panels(op) * taps * taps * op.channels_in * WIDTH
}

/// (N, C, side, side) to (phase, phase, panel, C / 32, tap, 2, 32, 16): of 32 channels, two tiles of 16 outputs. What
/// is left of C beyond 32s comes last, with as many channels less.
pub fn pack(op: &Conv2d, oihw: &[f32], packed: &mut [f32]) {
    let window = Window::of(op.kernel);
    let (n, c, side, taps) = (op.channels_out, op.channels_in, window.side, window.taps);
    let mut rows = packed.chunks_exact_mut(SIDE);
    for phase in 0..window.phases * window.phases {
        let mut sums = vec![0.0; n * c * taps * taps];
        for (kernel, sums) in oihw.chunks_exact(side * side).zip(sums.chunks_exact_mut(taps * taps)) {
            for (tap, sum) in sums.iter_mut().enumerate() {
                let phase = (phase / window.phases, phase % window.phases);
                *sum = op.kernel.merged_tap(phase, (tap / taps, tap % taps), |at| kernel[at]);
            }
        }
        for panel in (0..n).step_by(WIDTH) {
            for step in (0..c).step_by(2 * SIDE) {
                for tap in 0..taps * taps {
                    for first in [panel, panel + SIDE] {
                        for (channel, row) in (step..c.min(step + 2 * SIDE)).zip(&mut rows) {
                            for (out, n) in row.iter_mut().zip(first..n) {
                                *out = sums[(n * c + channel) * taps * taps + tap];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of a run: row and column of the first in the strip.
type Run = (usize, usize);

/// Where things are for a strip.
struct Strip<'a> {
    task: &'a Task,
    window: Window,
    ring: Ring,
    /// Rows that meet a panel together.
    band: usize,
    /// Panels of a phase.
    panels: usize,
}

impl<'a> Strip<'a> {
    fn new(task: &'a Task, op: &Conv2d) -> Self {
        let window = Window::of(op.kernel);
        Self { task, ring: ring(op), band: window.band(op), window, panels: op.channels_out.div_ceil(WIDTH) }
    }

    /// Rows that the first `rows` of the strip see.
    fn seen(&self, rows: usize) -> usize {
        self.window.seen(rows.min(self.task.rows.len()))
    }

    /// Row and column of the first pixel that the strip sees.
    fn corner(&self) -> (isize, isize) {
        let first = |at: usize| (at * self.window.stride) as isize - self.window.border as isize;
        (first(self.task.rows.start), first(self.task.columns.start))
    }

    /// The two runs of the band that begins with row `i`.
    fn runs(&self, i: usize) -> [Run; 2] {
        [(i, 0), if self.band == 1 { (i, SIDE) } else { (i + 1, 0) }]
    }

    /// Pixels of a run that there are.
    fn count(&self, (i, j): Run) -> usize {
        if i < self.task.rows.len() { self.task.columns.len().saturating_sub(j).min(SIDE) } else { 0 }
    }

    /// Which of a pixel's outputs a panel is for, down and across.
    fn phase(&self, panel: usize) -> (usize, usize) {
        let phase = panel / self.panels;
        (phase / self.window.phases, phase % self.window.phases)
    }

    /// The first output of a run for a panel.
    fn output(&self, (i, j): Run, panel: usize) -> (usize, usize) {
        let (down, across) = self.phase(panel);
        let (y, x) = (self.task.rows.start + i, self.task.columns.start + j);
        (y * self.window.phases + down, x * self.window.phases + across)
    }

    /// That output's place in memory, perhaps beyond the map.
    fn place(&self, run: Run, panel: usize) -> *const u8 {
        self.task.sink.place(self.output(run, panel), panel % self.panels * WIDTH)
    }

    /// Where a run begins in the ring for a tap of a panel.
    fn offset(&self, (i, j): Run, panel: usize, tap: usize) -> usize {
        let (taps, stride, (down, across)) = (self.window.taps, self.window.stride, self.phase(panel));
        let (y, x) = (i * stride + down + tap / taps, j * stride + across + tap % taps);
        self.ring.at(y) + x * self.ring.pixel
    }

    /// Whether a panel has half as many channels as it could.
    fn narrow(&self, panel: usize) -> bool {
        self.task.sink.channels() <= panel % self.panels * WIDTH + SIDE
    }

    /// Writes a run's outputs for a panel.
    ///
    /// # Safety
    /// `sums` is (count, WIDTH); nobody else has these outputs.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, run: Run, panel: usize, sums: *const f32) {
        let (y, x) = self.output(run, panel);
        for p in 0..self.count(run) {
            for v in 0..if self.narrow(panel) { 1 } else { WIDTH / LANES } {
                // SAFETY: the caller's.
                unsafe {
                    let sums = S::load(sums.add(p * WIDTH + v * LANES));
                    let channel = store::channel(panel % self.panels, v);
                    self.task.sink.put::<S>((y, x + p * self.window.phases), channel, sums);
                }
            }
        }
    }
}

fn ring(op: &Conv2d) -> Ring {
    let window = Window::of(op.kernel);
    let (band, columns) = (window.band(op), PIXELS.min(grid(op).1).max(1));
    // What a band sees, and what the next one sees beyond that.
    Ring::new(window.seen(band) + band * window.stride, window.seen(columns), op.channels_in)
}

/// Room for the ring, and for the sums of a panel.
pub fn scratch(op: &Conv2d) -> usize {
    ring(op).len() + PIXELS * WIDTH
}

/// What goes on beside a multiplication: the next rows come in, and memory is asked for the places of the next sums.
struct Beside<'a, S> {
    loader: Loader<'a, S>,
    /// Where the next sums' runs go, and from pixel to pixel there, in bytes.
    places: [*const u8; 2],
    stride: usize,
    /// Pixels of both that memory was asked for.
    asked: usize,
}

impl<S> Beside<'_, S> {
    fn ask(&mut self, places: [*const u8; 2]) {
        (self.places, self.asked) = (places, 0);
    }
}

impl<S: Simd> Meanwhile for Beside<'_, S> {
    #[inline(always)]
    unsafe fn step(&mut self) {
        // SAFETY: `body` has the loader end where the ring's room does.
        unsafe { self.loader.step() }
        if self.asked < SIDE {
            for place in self.places {
                let place = place.wrapping_add(self.asked * self.stride);
                prefetch(place);
                prefetch(place.wrapping_add(LINE));
            }
            self.asked += 1;
        }
    }
}

tile_kernel!(
    /// `Method::of` asks for it where there are tiles.
    pub fn run(task: &Task, op: &Conv2d) = body
);

#[inline(always)]
unsafe fn body<S: ByTiles>(task: &Task, op: &Conv2d) {
    let strip = Strip::new(task, op);
    let Strip { window, ring, band, .. } = &strip;
    let (depth, taps) = (op.channels_in / 2, window.taps * window.taps);
    let source = task.source.undoubled();
    let x = task.scratch.cast::<u32>();
    let sums = x.wrapping_add(ring.len()).cast::<f32>();
    let size = (window.seen(task.columns.len()), op.channels_in);
    let mut tiles = S::Tiles::new();
    let mut beside = Beside {
        loader: Loader::<S>::new(&source, *ring, x, strip.corner(), size),
        places: [std::ptr::null(); 2],
        stride: task.sink.pixel_bytes() * window.phases,
        asked: 0,
    };
    // SAFETY: the ring has room for what a band sees and for what comes next; the weight has the panels that
    // `arrangement` says; see `super::run`.
    unsafe {
        beside.loader.spread(strip.seen(*band), 1);
        beside.loader.finish();
        for i in (0..task.rows.len()).step_by(*band) {
            beside.loader.spread(strip.seen(i + 2 * band), task.panels.len() * steps(depth, taps));
            let runs = strip.runs(i);
            for panel in task.panels.clone() {
                if panel + 1 < task.panels.end {
                    beside.ask(runs.map(|run| strip.place(run, panel + 1)));
                } else {
                    beside.ask(strip.runs(i + band).map(|run| strip.place(run, task.panels.start)));
                }
                let mut offsets = [[0; 2]; 9];
                for (tap, offset) in offsets[..taps].iter_mut().enumerate() {
                    *offset = runs.map(|run| strip.offset(run, panel, tap));
                }
                let at = task.weight.cast::<u32>().add(panel * taps * depth * WIDTH);
                let panels = Panels { at, depth, narrow: strip.narrow(panel) };
                let counts = runs.map(|run| strip.count(run));
                let pixels = Pixels { at: x, stride: window.stride * ring.pixel, counts };
                convolve(&mut tiles, sums, pixels, &offsets[..taps], panels, &mut beside);
                strip.store::<S>(runs[0], panel, sums);
                strip.store::<S>(runs[1], panel, sums.add(SIDE * WIDTH));
            }
            beside.loader.finish();
        }
    }
}
