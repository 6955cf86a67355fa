//! The same by tiles of bf16: up to 16 activation rows meet 16 weight rows at a time.
//!
//! An f32 is the sum of three bf16, its first, next and last eight bits, so no activation is rounded, and no product
//! (below 2^-103 the last part is a denormal, which tiles take for zero). A sum is that of three: of all first parts'
//! products, in steps of 32 elements, each in the order of [`Tiles::multiply`]; to the last parts' the next are added,
//! to both the first. One order, whatever the number of rows.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Epilogue, Operands, Piece};
use crate::backend::cpu::memory::Arrangement;
use crate::backend::cpu::simd::tiles::{ByTiles, SIDE, Shape, Tiles};
use crate::backend::cpu::simd::{LANES, LINE, Simd, kernel, prefetch_near, tile_kernel};

/// Weight rows of a strip.
pub const ROWS: usize = SIDE;

/// Streams that a weight lies in, one for each pair of a tile's.
pub const STREAMS: usize = SIDE;

/// Elements of a row that a tile holds.
const DEPTH: usize = 2 * SIDE;

/// bf16 that make an f32.
const PARTS: usize = 3;

/// Steps ahead for which memory is asked.
const AHEAD: usize = 4;

/// Strips that more than FEW activation rows meet side by side, and steps of them at a time: as many as leave the
/// activations in the first cache meanwhile.
const STRIPS: usize = 4;
const STEPS: usize = 8;
const FEW: usize = 10;

/// A weight in the [`arrangement`]: strips of ROWS rows, each of tiles whose lines, of a pair of every row, lie in sixteen
/// streams. Memory brings many streams faster than one: on two cores of the Xeon of
/// benches/results/2026-11-30-cpu-amx.md two activation rows go through 192 MB at 36 GB/s, at 23 where tiles lie one
/// after the other; at 31 and 33 where streams are as short as a strip and where they begin at the same line of a page.
#[derive(Clone, Copy)]
pub struct Strips {
    /// Where the first stream begins.
    pub at: *const u32,
    /// Words from one stream to the next.
    pub stride: usize,
}

impl Strips {
    /// Of a weight of `len` words.
    pub fn new(at: *const u32, len: usize) -> Self {
        Self { at, stride: len / SIDE }
    }
}

/// Where in each stream the strip of weight row `n` begins, if rows have `depth` elements.
pub fn at(n: usize, depth: usize) -> usize {
    n / ROWS * depth.div_ceil(DEPTH) * SIDE
}

/// A weight (N, K) as tiles of pairs, (16 pairs, N / 16, K / 32, 16 rows), zero beyond both ends. An odd number of lines
/// lies between one pair's and the next: a tile's lines would meet in one set of a cache otherwise.
pub fn arrangement(n: usize, k: usize) -> Arrangement {
    let strip = at(ROWS, k);
    let stride = ((at(n.next_multiple_of(ROWS), k) / SIDE) | 1) * SIDE;
    Arrangement::pairs("tiles", SIDE * stride, move |weight, tiles| {
        for (number, rows) in weight.chunks(ROWS * k).enumerate() {
            for pair in 0..k.div_ceil(2) {
                let at = pair % SIDE * stride + number * strip + pair / SIDE * SIDE;
                for (word, row) in tiles[at..][..SIDE].iter_mut().zip(rows.chunks_exact(k)) {
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
    /// of 32 elements, follow the group's rows, the three parts of each, 16 pairs of a part.
    ///
    /// # Safety
    /// `packed` has room for all rows, `x` holds this one.
    pub fn pack(packed: *mut u32, x: *const f32, r: usize, rows: usize, depth: usize) = pack_body
);

#[inline(always)]
unsafe fn pack_body<S: Simd>(packed: *mut u32, x: *const f32, r: usize, rows: usize, depth: usize) {
    let first = r / SIDE * SIDE;
    let height = height(first, rows);
    for (step, at) in (0..depth).step_by(DEPTH).enumerate() {
        // SAFETY: the row and its group's tiles are where the caller says.
        unsafe {
            let mut rest = [S::splat(0.0); 2];
            for (i, rest) in rest.iter_mut().enumerate() {
                let k = at + i * LANES;
                match depth.saturating_sub(k) {
                    0 => {}
                    count @ 1..LANES => *rest = S::load_partial(x.add(k), count),
                    _ => *rest = S::load(x.add(k)),
                }
            }
            let to = packed.add(first * words(depth) + (step * height + r % SIDE) * PARTS * SIDE);
            for part in 0..PARTS {
                let pairs;
                (pairs, rest) = S::split(rest);
                S::store_pairs(to.add(part * SIDE), pairs);
            }
        }
    }
}

tile_kernel!(
    /// As [`super::product`], of a weight in this [`arrangement`] and rows that [`pack`] packed.
    ///
    /// # Safety
    /// As there; products of the instruction set go by tiles.
    pub fn product[E: Epilogue](p: Operands<Strips, u32>, piece: Piece, epilogue: &mut E) = body
);

/// Sums of a strip: of the parts of up to SIDE activation rows.
type Sums = [[f32; SIDE]; PARTS * SIDE];

#[inline(always)]
unsafe fn body<S: ByTiles, E: Epilogue>(p: Operands<Strips, u32>, piece: Piece, epilogue: &mut E) {
    let mut tiles = S::Tiles::new();
    let mut sums = [const { MaybeUninit::<Sums>::uninit() }; STRIPS];
    let steps = p.depth.div_ceil(DEPTH);
    debug_assert!(steps > 0, "no elements to sum");
    // Few rows meet a strip as memory brings it.
    let (abreast, at_once) = if p.rows > FEW { (STRIPS, STEPS) } else { (1, steps) };
    let Range { mut start, end } = piece.rows;
    while start < end {
        // Whole strips, though a piece may begin or end within one.
        let skip = (p.first + start) % ROWS;
        let count = (end - start).min(abreast * ROWS - skip);
        let strips = (skip + count).div_ceil(ROWS);
        let strip = |number| p.weight.at.wrapping_add(at(p.first + start, p.depth) + number * steps * SIDE);
        let then = if start + count == end { piece.next } else { strip(strips).cast() };
        for first in (0..p.rows).step_by(SIDE) {
            let group = Group::new(height(first, p.rows));
            // SAFETY: products go by tiles.
            unsafe { tiles.shape(group.shape()) }
            for begin in (0..steps).step_by(at_once) {
                for (number, sums) in sums[..strips].iter_mut().enumerate() {
                    let next = match begin + at_once {
                        _ if number + 1 < strips => strip(number + 1).wrapping_add(begin * SIDE).cast(),
                        following if following < steps => strip(0).wrapping_add(following * SIDE).cast(),
                        _ => then,
                    };
                    let block = Block {
                        weight: strip(number),
                        stride: p.weight.stride,
                        // Other activation rows meet the weights in the cache.
                        next: (first == 0).then_some(next),
                        x: p.x.wrapping_add(first * words(p.depth)),
                        steps: begin..steps.min(begin + at_once),
                        group,
                    };
                    // SAFETY: the weight has the strips of these rows, the group's activations are packed there, and
                    // tiles have its shape.
                    unsafe {
                        match group.tiles {
                            1 => block.run::<_, 1>(&mut tiles, sums.as_mut_ptr()),
                            2 => block.run::<_, 2>(&mut tiles, sums.as_mut_ptr()),
                            _ => block.run::<_, 3>(&mut tiles, sums.as_mut_ptr()),
                        }
                    }
                }
            }
            for r in 0..group.height {
                let mut row = [[0f32; SIDE]; STRIPS];
                for (row, sums) in row.iter_mut().zip(&sums[..strips]) {
                    // SAFETY: the sums of this row's parts were stored.
                    let parts =
                        unsafe { &*sums.as_ptr().cast::<[f32; SIDE]>().add(PARTS * r).cast::<[[f32; SIDE]; PARTS]>() };
                    for (n, sum) in row.iter_mut().enumerate() {
                        *sum = parts[0][n] + (parts[1][n] + parts[2][n]);
                    }
                }
                let sums = &mut row.as_flattened_mut()[skip..][..count];
                // Loops over a length that is known need no ends.
                match <&mut [f32; ROWS]>::try_from(&mut *sums) {
                    Ok(sums) => epilogue.store(first + r, start, sums),
                    Err(_) => epilogue.store(first + r, start, sums),
                }
            }
        }
        start += count;
    }
}

/// Activation rows that meet weights at once: their parts are rows of one to three tiles of the same height, of which
/// the second may begin within the first.
#[derive(Clone, Copy)]
struct Group {
    /// Activation rows.
    height: usize,
    tiles: usize,
    /// Rows of a tile.
    rows: usize,
}

impl Group {
    fn new(height: usize) -> Self {
        let tiles = (PARTS * height).div_ceil(SIDE);
        Self { height, tiles, rows: (PARTS * height).div_ceil(tiles) }
    }

    /// The first row of a tile.
    #[inline(always)]
    fn first(&self, tile: usize) -> usize {
        (tile * self.rows).min(PARTS * self.height - self.rows)
    }

    /// Sums in tiles 0 to 2, weights in 3, activations in 4.
    #[inline(always)]
    fn shape(&self) -> Shape {
        let mut shape = Shape::NONE.with(3, SIDE, SIDE).with(4, self.rows, SIDE);
        for tile in 0..self.tiles {
            shape = shape.with(tile, self.rows, SIDE);
        }
        shape
    }
}

/// A strip of weight rows and a group of activation rows.
struct Block {
    weight: *const u32,
    /// Words from one line of a tile to the next.
    stride: usize,
    /// Where what is read afterwards begins, if the weights come out of memory.
    next: Option<*const u8>,
    x: *const u32,
    /// Tiles of the strip that are multiplied now.
    steps: Range<usize>,
    group: Group,
}

impl Block {
    /// Sums over these steps, on top of `sums` unless they are the first.
    ///
    /// # Safety
    /// The strip is there, and the group; `sums` hold those of the steps before; tiles have the group's shape.
    #[inline(always)]
    unsafe fn run<M: Tiles, const TILES: usize>(&self, tiles: &mut M, sums: *mut Sums) {
        let Self { weight, stride, next, x, ref steps, group } = *self;
        let sums = sums.cast::<f32>();
        let [second, third] = [1, 2].map(|tile| group.first(tile) * SIDE);
        // SAFETY: the caller's.
        unsafe {
            if steps.start == 0 {
                tiles.zero::<0>();
                if TILES > 1 {
                    tiles.zero::<1>();
                }
                if TILES > 2 {
                    tiles.zero::<2>();
                }
            } else {
                tiles.load::<0>(sums.cast(), LINE);
                if TILES > 1 {
                    tiles.load::<1>(sums.add(second).cast(), LINE);
                }
                if TILES > 2 {
                    tiles.load::<2>(sums.add(third).cast(), LINE);
                }
            }
            for step in steps.clone() {
                if let Some(next) = next {
                    let ahead = step + AHEAD;
                    let at = match ahead.checked_sub(steps.end) {
                        None => weight.wrapping_add(ahead * SIDE).cast(),
                        Some(behind) => next.wrapping_add(behind * LINE),
                    };
                    for pair in 0..SIDE {
                        prefetch_near(at.wrapping_add(pair * 4 * stride));
                    }
                }
                let x = x.add(step * PARTS * group.height * SIDE);
                tiles.load_once::<3>(weight.add(step * SIDE), 4 * stride);
                tiles.load::<4>(x, LINE);
                tiles.multiply::<0, 4, 3>();
                if TILES > 1 {
                    tiles.load::<4>(x.add(second), LINE);
                    tiles.multiply::<1, 4, 3>();
                }
                if TILES > 2 {
                    tiles.load::<4>(x.add(third), LINE);
                    tiles.multiply::<2, 4, 3>();
                }
            }
            tiles.store::<0>(sums, LINE);
            if TILES > 1 {
                tiles.store::<1>(sums.add(second), LINE);
            }
            if TILES > 2 {
                tiles.store::<2>(sums.add(third), LINE);
            }
        }
    }
}
