//! The same by tiles of bf16: 32 rows meet a panel at a time.
//!
//! A sum takes 16 pairs of channels at once, in the order of [`Tiles::multiply`], then the next 16, of all taps; then what
//! is left of each tap's depth. That order depends on depth and taps alone, as long as cuts lie at multiples of [`SIDE`].

use super::{Rows, WIDTH};
use crate::backend::cpu::simd::tiles::{SIDE, Shape, Tiles};

/// From row to row of sums and of a panel.
const ROW_BYTES: usize = 4 * WIDTH;

/// As [`super::multiply`]; `depth` counts pairs.
///
/// # Safety
/// As [`super::multiply`].
#[inline(always)]
pub unsafe fn multiply<M: Tiles>(
    sums: *mut f32,
    rows: Rows<u32>,
    panel: *const u32,
    depth: usize,
    first: bool,
    narrow: bool,
) {
    // SAFETY: the caller's.
    unsafe { convolve::<M>(sums, rows, &[0], panel, depth, first, narrow) }
}

/// The sum over taps of such products: of the rows, moved by each of `offsets` elements, and a panel per tap. Sums stay in
/// tiles over all taps.
///
/// # Safety
/// As [`multiply`], for every tap.
#[inline(always)]
pub unsafe fn convolve<M: Tiles>(
    sums: *mut f32,
    rows: Rows<u32>,
    offsets: &[usize],
    panels: *const u32,
    depth: usize,
    first: bool,
    narrow: bool,
) {
    let mut tiles = M::new();
    let whole = depth / SIDE * SIDE;
    for r in (0..rows.count).step_by(2 * SIDE) {
        // Whole tiles of pairs, then what is left.
        for (k, end, words) in [(0, whole, SIDE), (whole, depth, depth - whole)] {
            if k == end {
                continue;
            }
            // SAFETY: rows r.. and pairs k..end of them exist for every tap.
            unsafe {
                let block = Block {
                    sums: sums.add(r * WIDTH),
                    a: rows.at.add(r * rows.stride + k),
                    stride: rows.stride,
                    offsets,
                    b: panels.add(k * WIDTH),
                    depth: end - k,
                    of: depth,
                    first: first && k == 0,
                };
                let count = (2 * SIDE).min(rows.count - r);
                tiles.shape(shape(count.min(SIDE), count.saturating_sub(SIDE), words));
                match (count > SIDE, !narrow) {
                    (true, true) => block.run::<M, true, true>(&mut tiles),
                    (true, false) => block.run::<M, true, false>(&mut tiles),
                    (false, true) => block.run::<M, false, true>(&mut tiles),
                    (false, false) => block.run::<M, false, false>(&mut tiles),
                }
            }
        }
    }
}

/// Sums in tiles 0 to 3, rows in 4 and 5, the panel's halves in 6 and 7.
#[inline(always)]
fn shape(upper: usize, lower: usize, words: usize) -> Shape {
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

/// Up to 32 rows times the panels of the taps.
struct Block<'a> {
    sums: *mut f32,
    a: *const u32,
    stride: usize,
    offsets: &'a [usize],
    b: *const u32,
    /// Pairs that are summed.
    depth: usize,
    /// Pairs of a panel.
    of: usize,
    first: bool,
}

impl Block<'_> {
    /// With the rows of tile 5 (`LOWER`), with the right half of the panel (`RIGHT`), or without.
    #[inline(always)]
    unsafe fn run<M: Tiles, const LOWER: bool, const RIGHT: bool>(self, tiles: &mut M) {
        let Self { sums, a, stride, offsets, b, depth, of, first } = self;
        let lower_sums = sums.wrapping_add(SIDE * WIDTH);
        // SAFETY: the caller of `multiply` vouches for rows, columns and depth; tiles have the sizes of `shape`.
        unsafe {
            if first {
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
            for (tap, offset) in offsets.iter().enumerate() {
                let (a, b) = (a.add(*offset), b.add(tap * of * WIDTH));
                for k in (0..depth).step_by(SIDE) {
                    tiles.load::<4>(a.add(k), 4 * stride);
                    tiles.load::<6>(b.add(k * WIDTH), ROW_BYTES);
                    tiles.multiply::<0, 4, 6>();
                    if LOWER {
                        tiles.load::<5>(a.add(SIDE * stride + k), 4 * stride);
                        tiles.multiply::<2, 5, 6>();
                    }
                    if RIGHT {
                        tiles.load::<7>(b.add(k * WIDTH + SIDE), ROW_BYTES);
                        tiles.multiply::<1, 4, 7>();
                        if LOWER {
                            tiles.multiply::<3, 5, 7>();
                        }
                    }
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
