//! The portable path: arrays that the compiler vectorizes as far as the target allows.

use super::tiles::{ByTiles, Emulated};
use super::{LANES, Simd, UPPER, bf16};

#[derive(Clone, Copy)]
pub struct Portable;

impl ByTiles for Portable {
    type Tiles = Emulated;
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    const REGISTERS: usize = 4;
    const AHEAD: usize = 1 << 10;
    type V = [f32; LANES];
    type Pairs = [u32; LANES];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, n: usize) -> Self::V {
        std::array::from_fn(|i| if i < n { unsafe { from.add(i).read_unaligned() } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::V {
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(from: *const u16, n: usize) -> Self::V {
        std::array::from_fn(|i| {
            if i < n { f32::from_bits(u32::from(unsafe { from.add(i).read_unaligned() }) << 16) } else { 0.0 }
        })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, v: Self::V, n: usize) {
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), to, n) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> Self::Pairs {
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, pairs: Self::Pairs) {
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs) }
    }

    #[inline(always)]
    unsafe fn splat_pair(pair: u32) -> Self::Pairs {
        [pair; LANES]
    }

    #[inline(always)]
    unsafe fn widen(pairs: Self::Pairs) -> [Self::V; 2] {
        [pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & UPPER))]
    }

    #[inline(always)]
    unsafe fn fma_pairs(a: Self::Pairs, b: Self::Pairs, c: Self::V) -> Self::V {
        unsafe {
            let ([a0, a1], [b0, b1]) = (Self::widen(a), Self::widen(b));
            Self::fma(a0, b0, Self::fma(a1, b1, c))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: Self::V) {
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(v.map(bf16)) }
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn reduce_add(mut v: Self::V) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                v[i] += v[i + half];
            }
        }
        v[0]
    }
}
