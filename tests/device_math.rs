//! `kernels/common.cuh` against the host's definitions, bit for bit: the functions of `smalti::math`, the noise,
//! the rounding to bf16 and the layout of the step's tables. The kernels run on the SIMT executor.

mod common;

use std::ffi::c_void;

use half::bf16;
use smalti::graph::ops::{NO_CODE, gumbel, gumbel_of, philox};
use smalti::graph::{Draw, NO_ROW, Row};
use smalti::math;
use smalti_simt::{Build, Simt};

const THREADS: u32 = 256;

fn simt() -> Option<Simt> {
    Simt::open(Build::Plain).map_err(|reason| common::skip("the device's math", &reason)).ok()
}

/// Runs a kernel over `len` words of output in whole blocks; `args` follow the pointer to the output.
fn run<T: Copy>(simt: &Simt, kernel: &str, len: usize, args: &mut [*mut c_void]) -> Vec<T> {
    let blocks = len.div_ceil(THREADS as usize);
    let out = simt.alloc(blocks * THREADS as usize * size_of::<T>());
    let mut pointer = out;
    let mut all = vec![(&raw mut pointer).cast()];
    all.extend_from_slice(args);
    // SAFETY: the kernel writes one T for each thread, and takes arguments of the types that its callers pass;
    // any bits are a value of T, a word or words.
    unsafe {
        simt.launch(kernel, [blocks as u32, 1, 1], [THREADS, 1, 1], 0, false, &mut all).unwrap();
        let result = std::slice::from_raw_parts(out.cast::<T>(), len).to_vec();
        simt.free(out);
        result
    }
}

/// Compares a kernel of device_math.cu with `host` on `len` words from `first` in steps of `stride`.
#[track_caller]
fn same_bits(simt: &Simt, kernel: &str, first: u32, stride: u32, len: usize, host: impl Fn(u32) -> u32) {
    let (mut from, mut step) = (first, stride);
    let found: Vec<u32> = run(simt, kernel, len, &mut [(&raw mut from).cast(), (&raw mut step).cast()]);
    for (i, &found) in found.iter().enumerate() {
        let bits = first.wrapping_add((i as u32).wrapping_mul(stride));
        let expected = host(bits);
        assert_eq!(
            found,
            expected,
            "{kernel}({:e} = {bits:08x}): {found:08x}, not {expected:08x}",
            f32::from_bits(bits)
        );
    }
}

/// The same over all words from `low` to `high`, about `len` of them.
#[track_caller]
fn same_bits_within(simt: &Simt, kernel: &str, low: u32, high: u32, len: u32, host: impl Fn(u32) -> u32) {
    let stride = ((high - low) / len).max(1);
    same_bits(simt, kernel, low, stride, ((high - low) / stride) as usize, &host);
    same_bits(simt, kernel, high, 1u32.wrapping_neg(), 1000.min(high - low) as usize, &host);
}

fn of_float(f: impl Fn(f32) -> f32) -> impl Fn(u32) -> u32 {
    move |bits| f(f32::from_bits(bits)).to_bits()
}

#[test]
fn functions_are_bit_equal() {
    let Some(simt) = simt() else { return };
    const LEN: u32 = 1 << 20;
    let (infinity, negative) = (f32::INFINITY.to_bits(), 1 << 31);
    // From 0 to the largest argument, and all the negative ones.
    same_bits_within(&simt, "test_exp", 0, 88f32.to_bits(), LEN, of_float(math::exp));
    same_bits_within(&simt, "test_exp", negative, infinity | negative, LEN, of_float(math::exp));
    // Where most arguments of a softmax are, and on both sides of where the result becomes 0.
    same_bits_within(&simt, "test_exp", (-0.01f32).to_bits(), (-20f32).to_bits(), LEN, of_float(math::exp));
    same_bits_within(&simt, "test_exp", (-87f32).to_bits(), (-88f32).to_bits(), LEN, of_float(math::exp));

    same_bits_within(&simt, "test_ln", f32::MIN_POSITIVE.to_bits(), f32::MAX.to_bits(), LEN, of_float(math::ln));
    same_bits_within(&simt, "test_ln", 0.5f32.to_bits(), 2f32.to_bits(), LEN, of_float(math::ln));
    let largest = 1.0 - f32::EPSILON / 2.0;
    same_bits_within(&simt, "test_ln_1m", 1e-10f32.to_bits(), largest.to_bits(), LEN, of_float(math::ln_1m));

    same_bits_within(&simt, "test_silu", 0, f32::MAX.to_bits(), LEN, of_float(math::silu));
    same_bits_within(&simt, "test_silu", negative, f32::MIN.to_bits(), LEN, of_float(math::silu));
    same_bits_within(&simt, "test_silu", 0.01f32.to_bits(), 30f32.to_bits(), LEN, of_float(math::silu));

    same_bits_within(&simt, "test_gelu_tanh", 0, f32::MAX.to_bits(), LEN, of_float(math::gelu_tanh));
    same_bits_within(&simt, "test_gelu_tanh", negative, f32::MIN.to_bits(), LEN, of_float(math::gelu_tanh));
    same_bits_within(&simt, "test_gelu_tanh", 0.01f32.to_bits(), 10f32.to_bits(), LEN, of_float(math::gelu_tanh));
    let (low, high) = ((-0.01f32).to_bits(), (-10f32).to_bits());
    same_bits_within(&simt, "test_gelu_tanh", low, high, LEN, of_float(math::gelu_tanh));
}

#[test]
fn noise_is_bit_equal() {
    let Some(simt) = simt() else { return };
    same_bits_within(&simt, "test_gumbel_of", 0, u32::MAX, 1 << 20, |bits| gumbel_of(bits).to_bits());
    same_bits(&simt, "test_gumbel_of", 0, 1, 1000, |bits| gumbel_of(bits).to_bits());
    for (seed, image, token) in [(0u64, 0u64, 0u32), (0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e, 1023)] {
        let (mut s, mut i, mut t) = (seed, image, token);
        let args = &mut [(&raw mut s).cast(), (&raw mut i).cast(), (&raw mut t).cast()];
        let found: Vec<[u32; 4]> = run(&simt, "test_draw_bits", 4096, args);
        for (quad, words) in found.iter().enumerate() {
            assert_eq!(*words, philox([quad as u32, token, image as u32, (image >> 32) as u32], seed));
            let code = quad as u32 * 4 + 3;
            assert_eq!(gumbel_of(words[3]).to_bits(), gumbel(seed, image, token, code).to_bits());
        }
    }
}

#[test]
fn rounding_to_bf16_is_bit_equal() {
    let Some(simt) = simt() else { return };
    let host = |bits: u32| {
        let rounded = u32::from(bf16::from_f32(f32::from_bits(bits)).to_bits());
        rounded | rounded << 16
    };
    // Every pattern of the half that is cut off, with a mantissa that carries into the exponent.
    same_bits(&simt, "test_to_bf16", 0x3fff_0000, 1, 1 << 17, host);
    let infinity = f32::INFINITY.to_bits();
    same_bits_within(&simt, "test_to_bf16", 0, infinity, 1 << 18, host);
    same_bits_within(&simt, "test_to_bf16", 1 << 31, infinity | 1 << 31, 1 << 18, host);
    same_bits(&simt, "test_from_bf16", 0, 0x0001_2345, 1 << 18, |bits| {
        // The library makes NaNs quiet; the device only moves bits.
        let value = |half: u32| match bf16::from_bits(half as u16) {
            nan if nan.is_nan() => half << 16,
            number => number.to_f32().to_bits(),
        };
        value(bits & 0xffff) ^ value(bits >> 16) >> 16
    });
}

#[test]
fn tables_have_the_same_layout() {
    let Some(simt) = simt() else { return };
    let row = Row { slot: 1, position: 2, token: 3, settled: 0 };
    let draw = Draw {
        seed: 7 << 32 | 11,
        image: 13 << 32 | 17,
        cond_row: 19,
        uncond_row: 23,
        token: 29,
        picture: 31,
        cfg_scale: 7.5,
        temperature: 0.25,
        top_p: 0.5,
        top_k: 37,
        greedy: 41,
        guidance_end: 43,
        window: 47,
        guess: 53,
    };
    let (mut row_at, mut draw_at) = (&raw const row, &raw const draw);
    let found: Vec<u32> = run(&simt, "test_tables", 19, &mut [(&raw mut row_at).cast(), (&raw mut draw_at).cast()]);
    let floats = [7.5f32, 0.25, 0.5].map(f32::to_bits);
    let [scale, temperature, top_p] = floats;
    let expected = [1, 2, 3, 18, 30, 19, 23, 29, 31, scale, temperature, top_p, 37, 41, NO_ROW, NO_CODE, 43, 47, 53];
    assert_eq!(found, expected);
}
