//! The same by tiles of bf16: up to 16 activation rows meet 16 weight rows at a time.
//!
//! An f32 is the sum of three bf16, its first, next and last eight bits, so no activation is rounded, and no product
//! (below 2^-103 the last part is a denormal, which tiles take for zero). A sum takes 32 elements' first parts, then
//! their next, then their last, each in the order of [`Tiles::multiply`], then the next 32 elements': one order, whatever
//! the number of rows.

use std::ops::Range;

use super::{Epilogue, Operands, Piece};
use crate::backend::cpu::memory::Arrangement;
use crate::backend::cpu::simd::tiles::{SIDE, Shape, Tiles};
use crate::backend::cpu::simd::{LANES, LINE, Simd, kernel, pair_kernel, prefetch};

/// Weight rows of a strip: two tiles, so that what is read lies together and their sums do not wait for each other.
pub const ROWS: usize = 2 * SIDE;

/// Elements of a row that a tile holds.
const DEPTH: usize = 2 * SIDE;

/// bf16 that make an f32.
const PARTS: usize = 3;

/// Words of a tile.
const TILE: usize = SIDE * SIDE;

/// Words of a strip's two tiles, which meet the activations one after the other.
const STEP: usize = 2 * TILE;

/// Bytes of each of the next strips that are asked for while a row's sums are stored.
const IN_STORE: usize = 8 * LINE;

/// Weight rows that meet the activation rows side by side, at most: two strips.
const MOST: usize = 2 * ROWS;

/// Where the strip of weight row `n` begins among those of rows of `depth` elements.
pub fn at(n: usize, depth: usize) -> usize {
    n / ROWS * depth.div_ceil(DEPTH) * STEP
}

/// A weight (N, K) as tiles of pairs, in the order in which they are read: (N / 32, K / 32, 2, 16 pairs, 16 rows), zero
/// beyond both ends.
pub fn arrangement(n: usize, k: usize) -> Arrangement {
    Arrangement::pairs("tiles", at(n.next_multiple_of(ROWS), k), move |weight, tiles| {
        for (rows, strip) in weight.chunks(ROWS * k).zip(tiles.chunks_exact_mut(at(ROWS, k))) {
            for (half, rows) in rows.chunks(SIDE * k).enumerate() {
                for pair in 0..k.div_ceil(2) {
                    let words = &mut strip[pair / SIDE * STEP + half * TILE + pair % SIDE * SIDE..];
                    for (word, row) in words.iter_mut().zip(rows.chunks_exact(k)) {
                        let second = row.get(2 * pair + 1).copied().unwrap_or(0);
                        *word = u32::from(row[2 * pair]) | u32::from(second) << 16;
                    }
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
            for i in (0..DEPTH.min(depth - at)).step_by(LANES) {
                let (x, count) = (x.add(at + i), depth - at - i);
                S::store(rest.as_mut_ptr().add(i), if count < LANES { S::load_partial(x, count) } else { S::load(x) });
            }
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
    while start < end {
        // Whole strips, though a piece may begin or end within one.
        let skip = (p.first + start) % ROWS;
        let count = (end - start).min(MOST - skip);
        let weight = p.weight.wrapping_add(at(p.first + start, p.depth));
        let ends = start + count == end;
        let next = if ends { piece.next } else { weight.wrapping_add(2 * at(ROWS, p.depth)).cast() };
        for first in (0..p.rows).step_by(SIDE) {
            let height = height(first, p.rows);
            // SAFETY: the weight has the strips of these rows, activation rows first..first + height are packed there.
            unsafe {
                let block = Block {
                    weight,
                    // Other activation rows meet the weights in the cache.
                    next: (first == 0).then_some(next),
                    x: p.x.add(first * words(p.depth)),
                    steps: p.depth.div_ceil(DEPTH),
                    height,
                };
                tiles.shape(shape(height));
                if skip + count <= ROWS {
                    block.run::<_, false>(&mut tiles, &mut sums);
                } else {
                    block.run::<_, true>(&mut tiles, &mut sums);
                }
            }
            for (r, sums) in sums.iter_mut().enumerate().take(height) {
                if first + SIDE >= p.rows {
                    // What sums go into takes its time: memory has more of the next strips to bring meanwhile.
                    for line in (r * IN_STORE..(r + 1) * IN_STORE).step_by(LINE) {
                        prefetch(next.wrapping_add(4 * STEP + line));
                        prefetch(next.wrapping_add(4 * (at(ROWS, p.depth) + STEP) + line));
                    }
                }
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

/// A strip of weight rows, or two, and a group of activation rows.
struct Block {
    weight: *const u32,
    /// Where the strips that are read afterwards begin, if the weights come out of memory.
    next: Option<*const u8>,
    x: *const u32,
    /// Tiles of a weight row.
    steps: usize,
    /// Activation rows.
    height: usize,
}

impl Block {
    /// Sums of the strip, or of `BOTH`.
    ///
    /// Before each tile memory is asked for the one of the strip's next step, at the end of the next strip's first: on
    /// two cores of the Xeon of benches/results/2026-11-26-cpu-amx-second.md two rows go through 192 MB at 34 GB/s with
    /// that, at 27 when a whole step is asked for at once, at 25 without; farther ahead is slower.
    #[inline(always)]
    unsafe fn run<M: Tiles, const BOTH: bool>(&self, tiles: &mut M, sums: &mut [[f32; MOST]; SIDE]) {
        let &Self { weight, next, x, steps, height } = self;
        let strip = steps * STEP;
        // SAFETY: the caller vouches for the strips and for the group; tiles have the sizes of `shape`.
        unsafe {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
            for step in 0..steps {
                let x = x.add(step * PARTS * height * SIDE);
                tiles.load::<5>(x, LINE);
                tiles.load::<6>(x.add(height * SIDE), LINE);
                tiles.load::<7>(x.add(2 * height * SIDE), LINE);
                let weight = weight.add(step * STEP);
                let ahead = next.map(|next| if step + 1 < steps { weight.wrapping_add(STEP).cast() } else { next });
                meet::<M, 0>(tiles, weight, ahead, 0);
                meet::<M, 1>(tiles, weight, ahead, TILE);
                if BOTH {
                    meet::<M, 2>(tiles, weight, ahead, strip);
                    meet::<M, 3>(tiles, weight, ahead, strip + TILE);
                }
            }
            let sums = sums.as_flattened_mut().as_mut_ptr();
            tiles.store::<0>(sums, 4 * MOST);
            tiles.store::<1>(sums.add(SIDE), 4 * MOST);
            tiles.store::<2>(sums.add(2 * SIDE), 4 * MOST);
            tiles.store::<3>(sums.add(3 * SIDE), 4 * MOST);
        }
    }
}

/// The three parts times the tile that is `at` words behind `weight`; memory is asked for the one that is as far behind
/// `ahead`.
///
/// # Safety
/// The weights are there; all tiles are as [`Block::run`] has them.
#[inline(always)]
unsafe fn meet<M: Tiles, const C: usize>(tiles: &mut M, weight: *const u32, ahead: Option<*const u8>, at: usize) {
    if let Some(ahead) = ahead {
        for line in (0..4 * TILE).step_by(LINE) {
            prefetch(ahead.wrapping_add(4 * at + line));
        }
    }
    // SAFETY: the caller's.
    unsafe {
        tiles.load_once::<4>(weight.add(at), LINE);
        tiles.multiply::<C, 5, 4>();
        tiles.multiply::<C, 6, 4>();
        tiles.multiply::<C, 7, 4>();
    }
}
