//! AVX-512: one register is a vector.

use std::arch::x86_64::*;

use super::amx::Amx;
use super::tiles::ByTiles;
use super::{LEAST_BF16, Simd, UPPER};

/// With products of bf16 pairs in hardware, or without.
#[derive(Clone, Copy)]
pub struct Family<const BF16: bool>;

pub type Avx512 = Family<false>;
pub type Avx512Bf16 = Family<true>;

impl ByTiles for Avx512Bf16 {
    type Tiles = Amx;
}

/// The odd words of two registers.
const ODD: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < words.len() {
        words[i] = 2 * i as u16 + 1;
        i += 1;
    }
    words
};

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl<const BF16: bool> Simd for Family<BF16> {
    const REGISTERS: usize = 32;
    // A whole head's keys ahead, memory brings them at 29 GB/s to two Zen 5 cores, these at 38.
    const AHEAD: usize = 8 << 10;
    type V = __m512;
    type Pairs = __m512i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, n: usize) -> Self::V {
        unsafe { _mm512_maskz_loadu_ps(first(n), from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::V {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(from: *const u16, n: usize) -> Self::V {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, v: Self::V, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, first(n), v) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> Self::Pairs {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_pair(pair: u32) -> Self::Pairs {
        unsafe { _mm512_set1_epi32(pair as i32) }
    }

    #[inline(always)]
    unsafe fn widen(pairs: Self::Pairs) -> [Self::V; 2] {
        unsafe {
            let upper = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(upper)]
        }
    }

    #[inline(always)]
    unsafe fn split(lanes: [Self::V; 2]) -> (Self::Pairs, [Self::V; 2]) {
        unsafe {
            let (a, b) = (_mm512_castps_si512(lanes[0]), _mm512_castps_si512(lanes[1]));
            let upper = _mm512_set1_epi32(UPPER as i32);
            let rest = [
                _mm512_sub_ps(lanes[0], _mm512_castsi512_ps(_mm512_and_si512(a, upper))),
                _mm512_sub_ps(lanes[1], _mm512_castsi512_ps(_mm512_and_si512(b, upper))),
            ];
            (_mm512_permutex2var_epi16(a, _mm512_loadu_si512(ODD.as_ptr().cast()), b), rest)
        }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, pairs: Self::Pairs) {
        unsafe { _mm512_storeu_si512(to.cast(), pairs) }
    }

    #[inline(always)]
    unsafe fn fma_pairs(a: Self::Pairs, b: Self::Pairs, c: Self::V) -> Self::V {
        unsafe {
            if BF16 {
                // SAFETY: only the type's name differs.
                let bf16 = |pairs| std::mem::transmute::<__m512i, __m512bh>(pairs);
                return _mm512_dpbf16_ps(c, bf16(a), bf16(b));
            }
            let ([a0, a1], [b0, b1]) = (Self::widen(a), Self::widen(b));
            _mm512_fmadd_ps(a0, b0, _mm512_fmadd_ps(a1, b1, c))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(to: *mut u16, v: Self::V) {
        unsafe {
            let counts = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(v), _mm512_set1_ps(LEAST_BF16));
            if BF16 {
                // SAFETY: only the type's name differs.
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_maskz_cvtneps_pbh(counts, v));
                return _mm256_storeu_si256(to.cast(), rounded);
            }
            let bits = _mm512_castps_si512(v);
            let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_maskz_srli_epi32::<16>(counts, sum)));
        }
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn reduce_add(v: Self::V) -> f32 {
        unsafe {
            let high = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v))));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_castps512_ps256(high));
            super::avx2::reduce_add_8(eight)
        }
    }

    #[inline(always)]
    unsafe fn reduce_add_4([a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        // Quarters of 4 lanes; each level adds what `reduce_add` adds, for two or four vectors in one.
        unsafe {
            let fold = |a, b| {
                let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
                _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
            };
            let (ab, cd) = (fold(a, b), fold(c, d));
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
            let four = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
            let two = _mm512_add_ps(four, _mm512_permute_ps::<0b01_00_11_10>(four));
            let one = _mm512_add_ps(two, _mm512_permute_ps::<0b10_11_00_01>(two));
            let first_of_quarters = _mm512_maskz_compress_ps(0b0001_0001_0001_0001, one);
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps128(first_of_quarters));
            sums
        }
    }
}
