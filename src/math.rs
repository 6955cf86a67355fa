//! Scalar functions with one definition for every executor, so that their results are bit-equal.
//!
//! Each is a fixed sequence of IEEE operations with explicit fused multiply-adds and no branches: loops
//! over them vectorize, and the kernels spell the same sequence. Errors are bounds over the stated
//! range, found by the tests below against f64.

/// ln 2 in two parts: the first has few enough bits that its product with a small integer is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// e^x for x ≤ 88; relative error below 2 ulp; 0 below -87.3 (no subnormal results).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Round x / ln 2 to the nearest integer by adding and subtracting 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.0);
    let rounded = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    // Taylor coefficients 1/k! up to r^7; |r| ≤ ln 2 / 2.
    let p = 1.984_127e-4f32
        .mul_add(r, 1.388_888_9e-3)
        .mul_add(r, 8.333_334e-3)
        .mul_add(r, 4.166_666_8e-2)
        .mul_add(r, 1.666_666_7e-1)
        .mul_add(r, 0.5)
        .mul_add(r, 1.0)
        .mul_add(r, 1.0);
    // The low bits of `rounded` are n: a conversion to an integer would not vectorize.
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { p * power }
}

/// Natural logarithm of a positive normal x; relative error below 4 ulp, absolute below 1e-7 near 1.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (bits as i32) >> 23;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| ≤ 0.1716; the series ends below 2^-26 after s^9.
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let p = 0.222_222_22f32.mul_add(t, 0.285_714_3).mul_add(t, 0.4).mul_add(t, 0.666_666_7);
    let tail = s * t * p;
    let e = e as f32;
    e.mul_add(LN_2_HIGH, s.mul_add(2.0, e.mul_add(LN_2_LOW, tail)))
}

/// ln(1 - u) for u in (0, 1 - 2^-24]; exact to a few ulp also where u is tiny.
#[inline(always)]
pub fn ln_1m(u: f32) -> f32 {
    let w = 1.0 - u;
    // 1 - u = w + lost exactly; ln(w + lost) = ln w + lost / w to first order.
    let lost = (1.0 - w) - u;
    ln(w) + lost / w
}

/// x * sigmoid(x), the activation of SwiGLU and of the VQ model.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// GELU by its tanh form: x / 2 * (1 + tanh(sqrt(2 / π) * (x + 0.044715 x^3))), which is x * sigmoid of twice
/// the tanh's argument.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    // 2 sqrt(2 / π), and that times 0.044715.
    let twice = x * (x * x).mul_add(0.071_354_82, 1.595_769_2);
    x / (1.0 + exp(-twice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(found: f32, expected: f64) -> f64 {
        (f64::from(found) - expected).abs() / expected.abs().max(1e-300)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let error = relative(exp(x), f64::from(x).exp());
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn ln_is_within_four_ulp() {
        for i in 0..2_000_000u32 {
            let x = f32::from_bits(0x0080_0000 + i * 1061);
            let expected = f64::from(x).ln();
            let error = (f64::from(ln(x)) - expected).abs();
            let allowed = (4.0 * f64::from(f32::EPSILON) * expected.abs()).max(1e-7);
            assert!(error < allowed, "ln({x:e}): error {error:e}");
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn ln_1m_keeps_tiny_arguments() {
        for i in 0..33 {
            let u = (0.5f32).powi(33 - i).min(1.0 - 2f32.powi(-24)) * 0.999;
            let error = relative(ln_1m(u), (-f64::from(u)).ln_1p());
            assert!(error < 4.0 * f64::from(f32::EPSILON), "ln_1m({u:e}): relative error {error:e}");
        }
    }

    #[test]
    fn gelu_matches() {
        for i in -3000..3000 {
            let x = i as f32 * 0.01;
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            let expected = 0.5 * wide * (1.0 + inner.tanh());
            // The exponent's two roundings grow with it; where it is large, so is what it divides by.
            let allowed = 4.0 * f64::from(f32::EPSILON) * wide.abs();
            assert!((f64::from(gelu_tanh(x)) - expected).abs() <= allowed, "gelu_tanh({x})");
        }
        assert_eq!([gelu_tanh(0.0), gelu_tanh(1e30)], [0.0, 1e30]);
        assert!(gelu_tanh(-1e4).abs() < 1e-30);
    }

    #[test]
    fn silu_matches() {
        for i in -300..300 {
            let x = i as f32 * 0.1;
            let expected = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - expected).abs() < 4e-6, "silu({x})");
        }
    }
}
