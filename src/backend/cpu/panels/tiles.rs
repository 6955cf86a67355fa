//! A convolution's inner loop by tiles of bf16: up to 32 pixels meet the panels of its taps.
//!
//! A sum takes 16 pairs of channels at once, in the order of [`Tiles::multiply`], of every tap; then the next 16; then
//! what is left of each tap's depth. That order depends on depth and taps alone.

use std::ops::Range;

use super::WIDTH;
use crate::backend::cpu::simd::LINE;
use crate::backend::cpu::simd::tiles::{SIDE, Shape, Tiles};

/// Pixels that meet a panel at a time: two tiles of them.
pub const PIXELS: usize = 2 * SIDE;

/// From row to row of sums.
const ROW_BYTES: usize = 4 * WIDTH;

/// Two runs of pixels.
#[derive(Clone, Copy)]
pub struct Pixels {
    pub at: *const u32,
    /// Pairs from pixel to pixel of a run.
    pub stride: usize,
    /// Pixels of each run, at most SIDE, of the first at least one.
    pub counts: [usize; 2],
}

/// The panels of some taps, (depth / SIDE, tap, 2, SIDE, SIDE): of 16 pairs of channels, two tiles of 16 columns. What is
/// left of the depth comes last, in lower tiles.
#[derive(Clone, Copy)]
pub struct Panels {
    pub at: *const u32,
    /// Pairs of channels.
    pub depth: usize,
    /// Only the first SIDE columns are wanted.
    pub narrow: bool,
}

/// Other work, some of it at every step of [`convolve`]: while tiles multiply, it costs little time of its own.
pub trait Meanwhile {
    /// To be `#[inline(always)]`, for the instruction set.
    ///
    /// # Safety
    /// The implementor's.
    unsafe fn step(&mut self);
}

/// None.
impl Meanwhile for () {
    #[inline(always)]
    unsafe fn step(&mut self) {}
}

/// Steps of [`convolve`] for that depth and number of taps.
pub fn steps(depth: usize, taps: usize) -> usize {
    depth.div_ceil(SIDE) * taps
}

/// sums[run, p, 0..32] = Σ_tap Σ_k pixels[taps[tap][run] + p * stride + k] * panels[tap, k, 0..32]: `taps` tells where
/// the two runs begin for each tap, in pairs behind `pixels.at`. `sums` is (2, SIDE, WIDTH).
///
/// # Safety
/// Pixels and panels are there for every tap, and room for the sums.
#[inline(always)]
pub unsafe fn convolve<M: Tiles>(
    tiles: &mut M,
    sums: *mut f32,
    pixels: Pixels,
    taps: &[[usize; 2]],
    panels: Panels,
    meanwhile: &mut impl Meanwhile,
) {
    let whole = panels.depth / SIDE * SIDE;
    // Whole tiles of pairs, then what is left.
    for (pairs, words) in [(0..whole, SIDE), (whole..panels.depth, panels.depth - whole)] {
        if pairs.is_empty() {
            continue;
        }
        let block = Block { sums, pixels, taps, panels, pairs, words };
        // SAFETY: the caller's; tiles have the sizes that the block takes them to have.
        unsafe {
            tiles.shape(shape(pixels.counts, words));
            match (pixels.counts[1] > 0, !panels.narrow) {
                (true, true) => block.run::<M, true, true>(tiles, meanwhile),
                (true, false) => block.run::<M, true, false>(tiles, meanwhile),
                (false, true) => block.run::<M, false, true>(tiles, meanwhile),
                (false, false) => block.run::<M, false, false>(tiles, meanwhile),
            }
        }
    }
}

/// Sums in tiles 0 to 3, pixels in 4 and 5, the panel's halves in 6 and 7.
#[inline(always)]
fn shape([upper, lower]: [usize; 2], words: usize) -> Shape {
    Shape::NONE
        .with(0, upper, SIDE)
        .with(1, upper, SIDE)
        .with(2, lower, SIDE)
        .with(3, lower, SIDE)
        .with(4, upper, words)
        .with(5, lower, words)
        .with(6, words, SIDE)
        .with(7, words, SIDE)
}

/// What [`convolve`] sums, of some of the pairs.
struct Block<'a> {
    sums: *mut f32,
    pixels: Pixels,
    taps: &'a [[usize; 2]],
    panels: Panels,
    pairs: Range<usize>,
    /// Pairs of a step.
    words: usize,
}

impl Block<'_> {
    /// With the second run (`LOWER`), with the right half of the panel (`RIGHT`), or without.
    #[inline(always)]
    unsafe fn run<M: Tiles, const LOWER: bool, const RIGHT: bool>(self, tiles: &mut M, meanwhile: &mut impl Meanwhile) {
        let Self { sums, pixels: Pixels { at, stride, .. }, taps, panels, pairs, words } = self;
        let lower_sums = sums.wrapping_add(SIDE * WIDTH);
        // SAFETY: the caller of `convolve` vouches for pixels, panels and sums; tiles have the sizes of `shape`.
        unsafe {
            if pairs.start == 0 {
                tiles.zero::<0>();
                tiles.zero::<1>();
                if LOWER {
                    tiles.zero::<2>();
                    tiles.zero::<3>();
                }
            } else {
                tiles.load::<0>(sums.cast(), ROW_BYTES);
                tiles.load::<1>(sums.add(SIDE).cast(), ROW_BYTES);
                if LOWER {
                    tiles.load::<2>(lower_sums.cast(), ROW_BYTES);
                    tiles.load::<3>(lower_sums.add(SIDE).cast(), ROW_BYTES);
                }
            }
            let mut b = panels.at.add(pairs.start * taps.len() * WIDTH);
            for k in pairs.step_by(SIDE) {
                for [upper, lower] in taps {
                    tiles.load::<4>(at.add(upper + k), 4 * stride);
                    tiles.load_once::<6>(b, LINE);
                    tiles.multiply::<0, 4, 6>();
                    if LOWER {
                        tiles.load::<5>(at.add(lower + k), 4 * stride);
                        tiles.multiply::<2, 5, 6>();
                    }
                    if RIGHT {
                        tiles.load_once::<7>(b.add(words * SIDE), LINE);
                        tiles.multiply::<1, 4, 7>();
                        if LOWER {
                            tiles.multiply::<3, 5, 7>();
                        }
                    }
                    b = b.add(words * WIDTH);
                    meanwhile.step();
                }
            }
            tiles.store::<0>(sums, ROW_BYTES);
            tiles.store::<1>(sums.add(SIDE), ROW_BYTES);
            if LOWER {
                tiles.store::<2>(lower_sums, ROW_BYTES);
                tiles.store::<3>(lower_sums.add(SIDE), ROW_BYTES);
            }
        }
    }
}
