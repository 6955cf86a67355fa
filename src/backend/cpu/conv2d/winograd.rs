//! Winograd's convolution: 4 x 4 outputs of a 3 x 3 kernel from fewer products than taps.
//!
//! For each tile of 4 x 4 outputs: transform what it sees (B), multiply with the transformed weights (G, at
//! load), transform the products back (A): y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A, summed over input channels
//! between the last two. The products of all tiles of a block form one matrix product per position ⊙.

use super::{Task, load, store};
use crate::backend::cpu::panels::{self, Factor, Rows, WIDTH};
use crate::backend::cpu::simd::{LANES, Simd, pair_kernel};
use crate::graph::ops::Conv2d;

/// Outputs of a tile along one side.
const TILE: usize = 4;

/// Input channels that are transformed at a time: what a block sees of them stays in the second-level cache.
const PART: usize = 64;

/// Elements between the matrices of two positions beyond their size: without them a tile's elements of all
/// positions lie a multiple of 4 KB apart and evict each other from the first-level cache.
const SKEW: usize = 16;

/// One dimension of a Winograd convolution: `IN` inputs, `PRODUCTS` products, TILE outputs.
pub trait Scheme<const IN: usize, const PRODUCTS: usize>: Copy {
    /// Inputs from tile to tile.
    const STEP: usize;
    /// Which transformed input each product takes.
    const TAKES: [usize; PRODUCTS];
    /// G: transformed weights from the three taps.
    fn weight(self) -> [[f64; 3]; PRODUCTS];
    /// Bᵀ
    ///
    /// # Safety
    /// As the methods of [`Simd`].
    unsafe fn input<S: Simd>(x: [S::V; IN]) -> [S::V; IN];
    /// Aᵀ
    ///
    /// # Safety
    /// As the methods of [`Simd`].
    unsafe fn output<S: Simd>(m: [S::V; PRODUCTS]) -> [S::V; TILE];
}

/// F(4, 3) of Toom-Cook at 0, ±1/√2, ±√2 and infinity: the symmetric points whose transforms have the
/// smallest coefficients: roundings grow 2.7-fold in each dimension (0, ±1, ±2: 5.6-fold).
#[derive(Clone, Copy)]
pub struct Square;

const A: f64 = std::f64::consts::FRAC_1_SQRT_2;
const B: f64 = std::f64::consts::SQRT_2;

impl Scheme<6, 6> for Square {
    const STEP: usize = 4;
    const TAKES: [usize; 6] = [0, 1, 2, 3, 4, 5];

    fn weight(self) -> [[f64; 3]; 6] {
        // At point p the polynomial w0 + w1 p + w2 p², divided by Π (p - q) over the other finite points.
        let at = |p: f64, n: f64| [1.0 / n, p / n, p * p / n];
        let (n_a, n_b) = (2.0 * A * A * (A * A - B * B), 2.0 * B * B * (B * B - A * A));
        [at(0.0, A * A * B * B), at(A, n_a), at(-A, n_a), at(B, n_b), at(-B, n_b), [0.0, 0.0, 1.0]]
    }

    #[inline(always)]
    unsafe fn input<S: Simd>(x: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: passed on.
        unsafe {
            let (a, b) = (S::splat(A as f32), S::splat(B as f32));
            let (minus_a, minus_b) = (S::splat(-A as f32), S::splat(-B as f32));
            // -A² and -B²; A² B² = 1, A² + B² = 2.5.
            let (half, two, sum) = (S::splat(-0.5), S::splat(-2.0), S::splat(-2.5));
            let (even_a, odd_a) = (S::fma(two, x[2], x[4]), S::fma(two, x[1], x[3]));
            let (even_b, odd_b) = (S::fma(half, x[2], x[4]), S::fma(half, x[1], x[3]));
            [
                S::add(S::fma(sum, x[2], x[4]), x[0]),
                S::fma(a, odd_a, even_a),
                S::fma(minus_a, odd_a, even_a),
                S::fma(b, odd_b, even_b),
                S::fma(minus_b, odd_b, even_b),
                S::add(S::fma(sum, x[3], x[5]), x[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>(m: [S::V; 6]) -> [S::V; TILE] {
        // SAFETY: passed on.
        unsafe {
            let (sum_a, sum_b) = (S::add(m[1], m[2]), S::add(m[3], m[4]));
            let (difference_a, difference_b) = (S::sub(m[1], m[2]), S::sub(m[3], m[4]));
            // Powers of A and B: 1, 2, 3.
            let (a, b) = (S::splat(A as f32), S::splat(B as f32));
            let (half, two) = (S::splat(0.5), S::splat(2.0));
            let (a_cubed, b_cubed) = (S::splat((A * A * A) as f32), S::splat((B * B * B) as f32));
            [
                S::add(m[0], S::add(sum_a, sum_b)),
                S::fma(b, difference_b, S::mul(a, difference_a)),
                S::fma(two, sum_b, S::mul(half, sum_a)),
                S::fma(b_cubed, difference_b, S::fma(a_cubed, difference_a, m[5])),
            ]
        }
    }
}

/// A doubled map: the tile sees a, b, b, c, c, d, so five products give the four outputs
/// w·(a, b, b), w·(b, b, c), w·(b, c, c), w·(c, c, d), and all coefficients are 1 or ½.
#[derive(Clone, Copy)]
pub struct Doubled;

impl Scheme<4, 5> for Doubled {
    const STEP: usize = 2;
    const TAKES: [usize; 5] = [0, 1, 2, 2, 3];

    fn weight(self) -> [[f64; 3]; 5] {
        [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-0.5, 0.5, 0.5], [0.0, 0.0, 1.0]]
    }

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: passed on.
        unsafe { [S::sub(a, c), S::mul(S::add(b, c), S::splat(0.5)), S::sub(c, b), S::sub(d, b)] }
    }

    #[inline(always)]
    unsafe fn output<S: Simd>([first, middle, skew, half, last]: [S::V; 5]) -> [S::V; TILE] {
        // SAFETY: passed on.
        unsafe {
            let (left, right) = (S::sub(middle, half), S::add(middle, half));
            [S::add(first, left), S::add(left, skew), right, S::add(S::sub(right, skew), last)]
        }
    }
}

/// (N, C, 3, 3) to (panel, position, C, WIDTH).
pub fn transform_weight<T: Scheme<IN, PRODUCTS>, const IN: usize, const PRODUCTS: usize>(
    scheme: T,
    oihw: &[f32],
    c: usize,
    packed: &mut [f32],
) {
    let g = scheme.weight();
    for (at, taps) in oihw.chunks_exact(9).enumerate() {
        let (n, channel) = (at / c, at % c);
        let taps: [f64; 9] = std::array::from_fn(|tap| f64::from(taps[tap]));
        for (i, g_i) in g.iter().enumerate() {
            let row: [f64; 3] = std::array::from_fn(|x| (0..3).map(|y| g_i[y] * taps[3 * y + x]).sum());
            for (j, g_j) in g.iter().enumerate() {
                let value: f64 = row.iter().zip(g_j).map(|(row, g)| row * g).sum();
                let position = n / WIDTH * PRODUCTS * PRODUCTS + i * PRODUCTS + j;
                packed[(position * c + channel) * WIDTH + n % WIDTH] = value as f32;
            }
        }
    }
}

/// Tiles of a block, down and across.
fn tiles(op: &Conv2d) -> (usize, usize) {
    if op.channels_in <= 128 { (4, 8) } else { (4, 4) }
}

/// Output rows and columns of a block.
pub fn block(op: &Conv2d) -> (usize, usize) {
    let (down, across) = tiles(op);
    (down * TILE, across * TILE)
}

pub fn scratch<const IN: usize, const PRODUCTS: usize>(op: &Conv2d, step: usize) -> usize {
    let (down, across) = tiles(op);
    let tiles = down * across;
    let seen = (down * step + IN - step) * (across * step + IN - step) * PART.min(op.channels_in);
    seen + IN * IN * (tiles * op.channels_in + SKEW) + PRODUCTS * PRODUCTS * (tiles * WIDTH + SKEW)
}

pair_kernel!(pub fn square[T: Factor](task: &Task, op: &Conv2d) = square_body);
pair_kernel!(pub fn doubled[T: Factor](task: &Task, op: &Conv2d) = doubled_body);

#[inline(always)]
unsafe fn square_body<S: Simd, T: Factor>(task: &Task, op: &Conv2d) {
    // SAFETY: passed on.
    unsafe { body::<S, T, Square, 6, 6>(task, op) }
}

#[inline(always)]
unsafe fn doubled_body<S: Simd, T: Factor>(task: &Task, op: &Conv2d) {
    // SAFETY: passed on.
    unsafe { body::<S, T, Doubled, 4, 5>(task, op) }
}

#[inline(always)]
unsafe fn body<S: Simd, T: Factor, K: Scheme<IN, PRODUCTS>, const IN: usize, const PRODUCTS: usize>(
    task: &Task,
    op: &Conv2d,
) {
    let c = op.channels_in;
    let (down, across) = (task.rows.len().div_ceil(TILE), task.columns.len().div_ceil(TILE));
    let tiles = down * across;
    let seen = (down * K::STEP + IN - K::STEP, across * K::STEP + IN - K::STEP);
    let depth = c / T::PER;
    let (skip_in, skip_out) = (tiles * depth + SKEW, tiles * WIDTH + SKEW);
    // SAFETY: `scratch` has room for a full block, see `super::run`; this one is no larger.
    unsafe {
        let inputs = task.scratch.cast::<T>(); // (position in, tile, C)
        let products = inputs.add(IN * IN * skip_in).cast::<f32>(); // (position, tile, WIDTH)
        let x = products.add(PRODUCTS * PRODUCTS * skip_out); // what the block sees
        let start = |first: usize| (first / TILE * K::STEP) as isize - 1;
        let source = task.source.undoubled();
        for first in (0..c).step_by(PART) {
            let part = PART.min(c - first);
            let corner = (start(task.rows.start), start(task.columns.start));
            load::copy::<S, f32>(x, &source, corner, seen, first..first + part);
            for tile in 0..tiles {
                let corner = x.add((tile / across * seen.1 + tile % across) * K::STEP * part);
                for channel in (0..part).step_by(LANES) {
                    let to =
                        |position, v| T::store::<S>(inputs.add(position * skip_in + tile * depth), first + channel, v);
                    transform_input::<S, K, IN, PRODUCTS>(to, corner.add(channel), seen.1 * part, part);
                }
            }
        }
        for panel in task.panels.clone() {
            for position in 0..PRODUCTS * PRODUCTS {
                let takes = K::TAKES[position / PRODUCTS] * IN + K::TAKES[position % PRODUCTS];
                let rows = Rows { at: inputs.add(takes * skip_in), stride: depth, count: tiles };
                let weight = task.weight.cast::<T>().add((panel * PRODUCTS * PRODUCTS + position) * depth * WIDTH);
                panels::multiply::<S, T>(products.add(position * skip_out), rows, weight, depth, true, false);
            }
            for v in 0..(WIDTH / LANES).min((op.channels_out - panel * WIDTH) / LANES) {
                for tile in 0..tiles {
                    let at = (task.rows.start + tile / across * TILE, task.columns.start + tile % across * TILE);
                    let from = products.add(tile * WIDTH + v * LANES);
                    let outputs = transform_output::<S, K, IN, PRODUCTS>(from, skip_out);
                    for (i, y) in (at.0..task.rows.end.min(at.0 + TILE)).enumerate() {
                        for (j, x) in (at.1..task.columns.end.min(at.1 + TILE)).enumerate() {
                            task.sink.put::<S>((y, x), store::channel(panel, v), outputs[i][j]);
                        }
                    }
                }
            }
        }
    }
}

/// Bᵀ x B for LANES channels of one tile, position by position to `to`.
#[inline(always)]
unsafe fn transform_input<S: Simd, K: Scheme<IN, PRODUCTS>, const IN: usize, const PRODUCTS: usize>(
    to: impl Fn(usize, S::V),
    x: *const f32,
    row: usize,
    column: usize,
) {
    // SAFETY: the tile's IN x IN pixels, `row` and `column` elements apart, have LANES channels from `x` on.
    unsafe {
        let mut columns = [[S::splat(0.0); IN]; IN];
        for (j, column_j) in columns.iter_mut().enumerate() {
            let mut seen = [S::splat(0.0); IN];
            for (i, seen) in seen.iter_mut().enumerate() {
                *seen = S::load(x.add(i * row + j * column));
            }
            *column_j = K::input::<S>(seen);
        }
        for i in 0..IN {
            let mut row_i = [S::splat(0.0); IN];
            for (value, column) in row_i.iter_mut().zip(&columns) {
                *value = column[i];
            }
            for (j, value) in K::input::<S>(row_i).into_iter().enumerate() {
                to(i * IN + j, value);
            }
        }
    }
}

/// Aᵀ m A for LANES channels of one tile; position p is at `m + p * skip`.
#[inline(always)]
unsafe fn transform_output<S: Simd, K: Scheme<IN, PRODUCTS>, const IN: usize, const PRODUCTS: usize>(
    m: *const f32,
    skip: usize,
) -> [[S::V; TILE]; TILE] {
    // SAFETY: every position has LANES elements there.
    unsafe {
        let mut columns = [[S::splat(0.0); TILE]; PRODUCTS];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut products = [S::splat(0.0); PRODUCTS];
            for (i, product) in products.iter_mut().enumerate() {
                *product = S::load(m.add((i * PRODUCTS + j) * skip));
            }
            *column = K::output::<S>(products);
        }
        let mut outputs = [[S::splat(0.0); TILE]; TILE];
        for (i, output) in outputs.iter_mut().enumerate() {
            let mut row = [S::splat(0.0); PRODUCTS];
            for (value, column) in row.iter_mut().zip(&columns) {
                *value = column[i];
            }
            *output = K::output::<S>(row);
        }
        outputs
    }
}
