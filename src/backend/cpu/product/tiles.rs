//! The same by tiles of bf16: up to 16 activation rows meet 16 weight rows at a time.
//!
//! An f32 is the sum of three bf16, its first, next and last eight bits, so no activation is rounded, and no product.
//! A sum takes 32 elements' first parts, then their next, then their last, each in the order of [`Tiles::multiply`], then
//! the next 32 elements': one order, whatever the number of rows.

use std::ops::Range;

use super::{AHEAD, Epilogue, Operands, Piece};
use crate::backend::cpu::memory::Arrangement;
use crate::backend::cpu::simd::tiles::{SIDE, Shape, Tiles};
use crate::backend::cpu::simd::{LINE, Simd, kernel, pair_kernel, prefetch};

/// Weight rows of a tile.
pub const ROWS: usize = SIDE;

/// Elements of a row that a tile holds.
const DEPTH: usize = 2 * SIDE;

/// bf16 that make an f32.
const PARTS: usize = 3;

/// Words of a tile.
const TILE: usize = SIDE * SIDE;

/// Weight rows that meet the activation rows side by side: four tiles' sums, none of which waits for another.
const MOST: usize = 4 * ROWS;

/// Where the tiles of weight row `n`, rounded down to a tile's first, begin among those of rows of `depth` elements.
pub fn at(n: usize, depth: usize) -> usize {
    n / ROWS * depth.div_ceil(DEPTH) * TILE
}

/// A weight (N, K) as tiles of pairs, in the order in which they are read: (N / 16, K / 32, 16 pairs, 16 rows), zero
/// beyond both ends.
pub fn arrangement(n: usize, k: usize) -> Arrangement {
    Arrangement::pairs("tiles", at(n.next_multiple_of(ROWS), k), move |weight, tiles| {
        for (rows, tiles) in weight.chunks(ROWS * k).zip(tiles.chunks_exact_mut(at(ROWS, k))) {
            for (pair, words) in tiles.chunks_exact_mut(ROWS).enumerate().take(k.div_ceil(2)) {
                for (word, row) in words.iter_mut().zip(rows.chunks_exact(k)) {
                    let second = row.get(2 * pair + 1).copied().unwrap_or(0);
                    *word = u32::from(row[2 * pair]) | u32::from(second) << 16;
                }
            }
        }
    })
}

/// Words that one packed activation row of `depth` elements takes.
pub fn words(depth: usize) -> usize {
    depth.div_ceil(DEPTH) * PARTS * SIDE
}

/// How many rows the group of at most SIDE has that begins with row `first` of `rows`.
fn height(first: usize, rows: usize) -> usize {
    SIDE.min(rows - first)
}

kernel!(
    /// Packs row `r` of `rows` rows of `depth` elements, which is at `x`. Of each group of up to SIDE rows, for each step
    /// of 32 elements and each part, follow the group's rows, 16 pairs of each.
    ///
    /// # Safety
    /// `packed` has room for all rows, `x` holds this one.
    pub fn pack(packed: *mut u32, x: *const f32, r: usize, rows: usize, depth: usize) = pack_body
);

#[inline(always)]
unsafe fn pack_body<S: Simd>(packed: *mut u32, x: *const f32, r: usize, rows: usize, depth: usize) {
    const UPPER: u32 = 0xffff_0000;
    let first = r / SIDE * SIDE;
    let height = height(first, rows);
    for (step, at) in (0..depth).step_by(DEPTH).enumerate() {
        let mut rest = [0f32; DEPTH];
        // SAFETY: the row and its group's tiles are where the caller says.
        unsafe {
            rest.as_mut_ptr().copy_from_nonoverlapping(x.add(at), DEPTH.min(depth - at));
            let to = packed.add(first * words(depth) + (step * PARTS * height + r % SIDE) * SIDE);
            for part in 0..PARTS {
                let mut pairs = [0u32; SIDE];
                for (pair, two) in pairs.iter_mut().zip(rest.as_chunks_mut::<2>().0) {
                    let bits = two.map(|x| x.to_bits() & UPPER);
                    // Exact: what is left are the lower bits.
                    *two = std::array::from_fn(|i| two[i] - f32::from_bits(bits[i]));
                    *pair = bits[0] >> 16 | bits[1];
                }
                to.add(part * height * SIDE).cast::<[u32; SIDE]>().write(pairs);
            }
        }
    }
}

pair_kernel!(
    /// As [`super::product`], of a weight in this [`arrangement`] and rows that [`pack`] packed.
    ///
    /// # Safety
    /// As there; products of the instruction set go by tiles.
    pub fn product[E: Epilogue](p: Operands<u32, u32>, piece: Piece, epilogue: &mut E) = body
);

#[inline(always)]
unsafe fn body<S: Simd, E: Epilogue>(p: Operands<u32, u32>, piece: Piece, epilogue: &mut E) {
    let mut tiles = S::Tiles::new();
    let mut sums = [[0f32; MOST]; SIDE];
    let Range { mut start, end } = piece.rows;
    let stop = at((p.first + end).next_multiple_of(ROWS), p.depth);
    while start < end {
        // Whole tiles, though a piece may begin or end within one.
        let skip = (p.first + start) % ROWS;
        let count = (end - start).min(MOST - skip);
        let begin = at(p.first + start, p.depth);
        for first in (0..p.rows).step_by(SIDE) {
            let height = height(first, p.rows);
            // SAFETY: the weight has the tiles of these rows, activation rows first..first + height are packed there.
            unsafe {
                let block = Block {
                    weight: p.weight.add(begin),
                    x: p.x.add(first * words(p.depth)),
                    steps: p.depth.div_ceil(DEPTH),
                    height,
                    // Once, as the weights meet the other rows out of the cache.
                    ahead: (first == 0).then_some((piece.next, stop - begin)),
                };
                tiles.shape(shape(height));
                match (skip + count).div_ceil(ROWS) {
                    1 => block.run::<_, 1>(&mut tiles, &mut sums),
                    2 => block.run::<_, 2>(&mut tiles, &mut sums),
                    3 => block.run::<_, 3>(&mut tiles, &mut sums),
                    _ => block.run::<_, 4>(&mut tiles, &mut sums),
                }
            }
            for (r, sums) in sums.iter_mut().enumerate().take(height) {
                epilogue.store(first + r, start, &mut sums[skip..][..count]);
            }
        }
        start += count;
    }
}

/// Sums in tiles 0 to 3, weights in 4, the three parts of activations in 5 to 7.
#[inline(always)]
fn shape(height: usize) -> Shape {
    let mut shape = Shape::NONE.with(4, SIDE, SIDE);
    for tile in [0, 1, 2, 3, 5, 6, 7] {
        shape = shape.with(tile, height, SIDE);
    }
    shape
}

/// Some tiles of weight rows and a group of activation rows.
struct Block {
    weight: *const u32,
    x: *const u32,
    /// Tiles of a weight row.
    steps: usize,
    /// Activation rows.
    height: usize,
    /// What the thread reads next, and words until there, to ask memory for the weights behind these.
    ahead: Option<(*const u8, usize)>,
}

impl Block {
    /// `COUNT` tiles of weight rows times the group.
    #[inline(always)]
    unsafe fn run<M: Tiles, const COUNT: usize>(&self, tiles: &mut M, sums: &mut [[f32; MOST]; SIDE]) {
        let &Self { weight, x, steps, height, ahead } = self;
        let row = steps * TILE;
        // SAFETY: the caller vouches for COUNT rows of the weight's tiles and for the group's; tiles have the sizes of
        // `shape`.
        unsafe {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
            for step in 0..steps {
                let (weight, x) = (weight.add(step * TILE), x.add(step * PARTS * height * SIDE));
                if let Some((next, len)) = ahead {
                    // In their order in memory, as in `super::tile`.
                    let read = step * TILE;
                    for line in (0..COUNT * TILE).step_by(LINE / size_of::<u32>()) {
                        let ahead = (COUNT - 1) * (row + read) + AHEAD / 2 + line;
                        prefetch(super::ahead(weight, ahead, len - read, next));
                    }
                }
                tiles.load::<5>(x, LINE);
                tiles.load::<6>(x.add(height * SIDE), LINE);
                tiles.load::<7>(x.add(2 * height * SIDE), LINE);
                meet::<M, 0>(tiles, weight);
                if COUNT > 1 {
                    meet::<M, 1>(tiles, weight.add(row));
                }
                if COUNT > 2 {
                    meet::<M, 2>(tiles, weight.add(2 * row));
                }
                if COUNT > 3 {
                    meet::<M, 3>(tiles, weight.add(3 * row));
                }
            }
            let sums = sums[0].as_mut_ptr();
            tiles.store::<0>(sums, 4 * MOST);
            tiles.store::<1>(sums.add(SIDE), 4 * MOST);
            tiles.store::<2>(sums.add(2 * SIDE), 4 * MOST);
            tiles.store::<3>(sums.add(3 * SIDE), 4 * MOST);
        }
    }
}

/// The three parts times a tile of weights.
///
/// # Safety
/// The weights are there; all tiles are as [`Block::run`] has them.
#[inline(always)]
unsafe fn meet<M: Tiles, const C: usize>(tiles: &mut M, weight: *const u32) {
    // SAFETY: the caller's.
    unsafe {
        tiles.load::<4>(weight, LINE);
        tiles.multiply::<C, 5, 4>();
        tiles.multiply::<C, 6, 4>();
        tiles.multiply::<C, 7, 4>();
    }
}
