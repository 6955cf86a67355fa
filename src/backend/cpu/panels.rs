//! sums[r, 0..32] = Σ_k a[r, k] * panel[k, 0..32]: the inner loop of every convolution; [`tiles`] has that of
//! convolutions of bf16 where the processor has tiles.
//!
//! Weights are packed in panels of 32 output channels; one element of `a` meets a whole row of a panel.
//! Each sum is one chain of fused multiply-adds in ascending k, however rows are tiled and k is cut.
//! An element is an f32 or a pair of bf16, whose two products the chain takes at once; see [`Simd::fma_pairs`].

pub mod tiles;

use crate::backend::cpu::simd::{LANES, Simd, bf16};

/// Output channels of a panel.
pub const WIDTH: usize = 32;

/// What both factors lie in memory as: f32, or bf16 in pairs (u32).
pub trait Factor: Copy {
    /// Channels of an element.
    const PER: usize;
    type Vector<S: Simd>: Copy;

    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const Self) -> Self::Vector<S>;
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn splat<S: Simd>(self) -> Self::Vector<S>;
    /// # Safety
    /// As [`Simd::fma`].
    unsafe fn fma<S: Simd>(a: Self::Vector<S>, b: Self::Vector<S>, c: S::V) -> S::V;
    /// LANES channels to memory, from channel `at` behind `to` on.
    ///
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store<S: Simd>(to: *mut Self, at: usize, v: S::V);
}

impl Factor for f32 {
    const PER: usize = 1;
    type Vector<S: Simd> = S::V;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(self) -> S::V {
        unsafe { S::splat(self) }
    }

    #[inline(always)]
    unsafe fn fma<S: Simd>(a: S::V, b: S::V, c: S::V) -> S::V {
        unsafe { S::fma(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, at: usize, v: S::V) {
        unsafe { S::store(to.add(at), v) }
    }
}

impl Factor for u32 {
    const PER: usize = 2;
    type Vector<S: Simd> = S::Pairs;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::Pairs {
        unsafe { S::load_pairs(from) }
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(self) -> S::Pairs {
        unsafe { S::splat_pair(self) }
    }

    #[inline(always)]
    unsafe fn fma<S: Simd>(a: S::Pairs, b: S::Pairs, c: S::V) -> S::V {
        unsafe { S::fma_pairs(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut Self, at: usize, v: S::V) {
        unsafe { S::store_bf16(to.cast::<u16>().add(at), v) }
    }
}

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

/// Packed panels (…, C, N), C even, to the same in bf16 with the channels in pairs, (…, C / 2, N).
pub fn pair<const N: usize>(packed: &[f32], pairs: &mut [u32]) {
    for (two, pairs) in packed.chunks_exact(2 * N).zip(pairs.chunks_exact_mut(N)) {
        for (pair, (first, second)) in pairs.iter_mut().zip(two[..N].iter().zip(&two[N..])) {
            *pair = u32::from(bf16(*first)) | u32::from(bf16(*second)) << 16;
        }
    }
}

/// A matrix in memory, to be read row by row.
#[derive(Clone, Copy)]
pub struct Rows<T = f32> {
    pub at: *const T,
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
pub unsafe fn multiply<S: Simd, T: Factor>(
    sums: *mut f32,
    rows: Rows<T>,
    panel: *const T,
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
                    // Pairs are widened where they are not multiplied as such, which takes registers, too.
                    (false, 6..) if T::PER == 1 => tile.run_narrow::<S, 6>(narrow),
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
struct Tile<T> {
    sums: *mut f32,
    a: *const T,
    stride: usize,
    b: *const T,
    depth: usize,
    first: bool,
}

impl<T: Factor> Tile<T> {
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
                let b: [_; VECTORS] = std::array::from_fn(|v| T::load::<S>(b.add(k * WIDTH + v * LANES)));
                for (h, c) in c.iter_mut().enumerate() {
                    let a = (*a.add(h * stride + k)).splat::<S>();
                    for (c, b) in c.iter_mut().zip(b) {
                        *c = T::fma::<S>(a, b, *c);
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
