//! sums[r, 0..32] = Σ_k a[r, k] * panel[k, 0..32]: the inner loop of every convolution.
//!
//! Weights are packed in panels of 32 output channels; one element of `a` meets a whole row of a panel.
//! Each sum is one chain of fused multiply-adds in ascending k, however rows are tiled and k is cut.

use crate::backend::cpu::simd::{LANES, Simd};

/// Output channels of a panel.
pub const WIDTH: usize = 32;

/// So many k at a time: their part of a panel (16 KB) stays in the first-level cache while rows pass by.
pub const DEPTH: usize = 128;

/// Elements of `n` output channels packed.
pub fn packed_len(n: usize, c: usize, taps: usize) -> usize {
    n.div_ceil(WIDTH) * taps * c * WIDTH
}

/// (N, C, taps) to (panel, tap, C, WIDTH); channels beyond N stay zero.
pub fn pack(oihw: &[f32], n: usize, c: usize, taps: usize, packed: &mut [f32]) {
    for (at, row) in packed.chunks_exact_mut(WIDTH).enumerate() {
        let (panel, tap, channel) = (at / c / taps, at / c % taps, at % c);
        for (out, n) in row.iter_mut().zip(panel * WIDTH..n) {
            *out = oihw[(n * c + channel) * taps + tap];
        }
    }
}

/// A matrix in memory, to be read row by row.
#[derive(Clone, Copy)]
pub struct Rows {
    pub at: *const f32,
    /// Elements from row to row.
    pub stride: usize,
    pub count: usize,
}

/// Adds the product of `rows` (count, depth) and `panel` (depth, WIDTH) to `sums` (count, WIDTH), or, at
/// `first`, writes it there. With `narrow` only the first LANES columns are computed.
///
/// # Safety
/// All three are as large as that.
#[inline(always)]
pub unsafe fn multiply<S: Simd>(
    sums: *mut f32,
    rows: Rows,
    panel: *const f32,
    depth: usize,
    first: bool,
    narrow: bool,
) {
    let mut k = 0;
    while k < depth {
        let step = DEPTH.min(depth - k);
        let mut r = 0;
        // SAFETY: rows r.. and k..k + step exist.
        unsafe {
            let b = panel.add(k * WIDTH);
            while r < rows.count {
                let tile = Tile {
                    sums: sums.add(r * WIDTH),
                    a: rows.at.add(r * rows.stride + k),
                    stride: rows.stride,
                    b,
                    depth: step,
                    first: first && k == 0,
                };
                // As many sums as the registers hold, and enough of them to hide the latency.
                r += match (S::REGISTERS >= 32 && !narrow, rows.count - r) {
                    (true, 8..) => tile.run::<S, 8, 2>(),
                    (true, 4..) => tile.run::<S, 4, 2>(),
                    (true, 2..) => tile.run::<S, 2, 2>(),
                    (true, _) => tile.run::<S, 1, 2>(),
                    (false, 6..) => tile.run_narrow::<S, 6>(narrow),
                    (false, 4..) => tile.run_narrow::<S, 4>(narrow),
                    (false, 2..) => tile.run_narrow::<S, 2>(narrow),
                    (false, _) => tile.run_narrow::<S, 1>(narrow),
                };
            }
        }
        k += step;
    }
}

/// Some rows times one panel.
#[derive(Clone, Copy)]
struct Tile {
    sums: *mut f32,
    a: *const f32,
    stride: usize,
    b: *const f32,
    depth: usize,
    first: bool,
}

impl Tile {
    /// `VECTORS` vectors of columns of `HEIGHT` rows; returns `HEIGHT`.
    #[inline(always)]
    unsafe fn run<S: Simd, const HEIGHT: usize, const VECTORS: usize>(self) -> usize {
        let Self { sums, a, stride, b, depth, first } = self;
        // SAFETY: the caller of `multiply` vouches for rows, columns and depth.
        unsafe {
            let mut c = [[S::splat(0.0); VECTORS]; HEIGHT];
            if !first {
                for (h, c) in c.iter_mut().enumerate() {
                    for (v, c) in c.iter_mut().enumerate() {
                        *c = S::load(sums.add(h * WIDTH + v * LANES));
                    }
                }
            }
            for k in 0..depth {
                let b: [S::V; VECTORS] = std::array::from_fn(|v| S::load(b.add(k * WIDTH + v * LANES)));
                for (h, c) in c.iter_mut().enumerate() {
                    let a = S::splat(*a.add(h * stride + k));
                    for (c, b) in c.iter_mut().zip(b) {
                        *c = S::fma(a, b, *c);
                    }
                }
            }
            for (h, c) in c.into_iter().enumerate() {
                for (v, c) in c.into_iter().enumerate() {
                    S::store(sums.add(h * WIDTH + v * LANES), c);
                }
            }
        }
        HEIGHT
    }

    /// Half a panel after the other, for processors with few registers.
    #[inline(always)]
    unsafe fn run_narrow<S: Simd, const HEIGHT: usize>(self, narrow: bool) -> usize {
        // SAFETY: as `run`; the second half lies inside of the same rows.
        unsafe {
            self.run::<S, HEIGHT, 1>();
            if !narrow {
                Self { sums: self.sums.add(LANES), b: self.b.add(LANES), ..self }.run::<S, HEIGHT, 1>();
            }
        }
        HEIGHT
    }
}
