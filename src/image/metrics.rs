//! How alike two pictures are: PSNR and SSIM.

use std::collections::VecDeque;

use super::{Rgb8, same_size};
use crate::error::{Error, Result};

/// SSIM's window: 11 x 11 pixels.
const WINDOW: usize = 11;

/// Peak signal-to-noise ratio in dB over all channels: 10 log10(255² / mean squared difference).
///
/// Infinite where the pictures are equal.
///
/// # Errors
/// [`Error::Mismatch`] if the sizes differ.
pub fn psnr(a: &Rgb8, b: &Rgb8) -> Result<f64> {
    same_size("PSNR", a, b)?;
    let squares: u64 = a.pixels.iter().zip(&b.pixels).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    let mean = squares as f64 / a.pixels.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

/// Structural similarity (Wang et al. 2004): 1 for equal pictures, near 0 for unrelated ones.
///
/// Gaussian windows of 11 x 11 pixels, σ = 1.5, that lie fully inside the picture; K1 = 0.01, K2 = 0.03,
/// L = 255; the mean over windows and over the three channels. Equals scikit-image's
/// `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)`.
///
/// # Errors
/// [`Error::Mismatch`] if the sizes differ or a side is shorter than 11 pixels.
pub fn ssim(a: &Rgb8, b: &Rgb8) -> Result<f64> {
    let (width, height) = same_size("SSIM", a, b)?;
    if width < WINDOW || height < WINDOW {
        return Err(Error::Mismatch {
            what: "SSIM".into(),
            expected: format!("pictures of at least {WINDOW} x {WINDOW} pixels"),
            found: format!("{width} x {height}"),
            hint: String::new(),
        });
    }
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let window = gaussian();
    // Values of a row of windows: columns x channels.
    let values = (width - WINDOW + 1) * 3;
    let mut rows: VecDeque<Vec<Moments>> = VecDeque::with_capacity(WINDOW);
    let mut total = 0.0;
    for y in 0..height {
        if rows.len() == WINDOW {
            rows.pop_front();
        }
        rows.push_back(row_moments(a.row(y), b.row(y), &window));
        if rows.len() < WINDOW {
            continue;
        }
        for i in 0..values {
            let mut m = Moments::default();
            for (weight, row) in window.iter().zip(&rows) {
                m.add(*weight, row[i]);
            }
            let (var_a, var_b, cov) = (m.aa - m.a * m.a, m.bb - m.b * m.b, m.ab - m.a * m.b);
            total +=
                ((2.0 * m.a * m.b + C1) * (2.0 * cov + C2)) / ((m.a * m.a + m.b * m.b + C1) * (var_a + var_b + C2));
        }
    }
    Ok(total / (values * (height - WINDOW + 1)) as f64)
}

/// Weighted means over a window.
#[derive(Clone, Copy, Default)]
struct Moments {
    a: f64,
    b: f64,
    aa: f64,
    bb: f64,
    ab: f64,
}

impl Moments {
    fn add(&mut self, weight: f64, other: Moments) {
        self.a += weight * other.a;
        self.b += weight * other.b;
        self.aa += weight * other.aa;
        self.bb += weight * other.bb;
        self.ab += weight * other.ab;
    }
}

/// The window's moments along one row, for each window (column) and channel.
fn row_moments(a: &[u8], b: &[u8], window: &[f64; WINDOW]) -> Vec<Moments> {
    (0..a.len() - (WINDOW - 1) * 3)
        .map(|start| {
            let mut moments = Moments::default();
            for (k, weight) in window.iter().enumerate() {
                let (a, b) = (f64::from(a[start + 3 * k]), f64::from(b[start + 3 * k]));
                moments.add(*weight, Moments { a, b, aa: a * a, bb: b * b, ab: a * b });
            }
            moments
        })
        .collect()
}

/// Weights of one axis of the window; they sum to 1.
fn gaussian() -> [f64; WINDOW] {
    const SIGMA: f64 = 1.5;
    let weights: [f64; WINDOW] = std::array::from_fn(|i| {
        let x = i as f64 - (WINDOW / 2) as f64;
        (-0.5 * x * x / (SIGMA * SIGMA)).exp()
    });
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture and a disturbed twin by a formula that Python repeats: see the numbers below.
    fn pair() -> (Rgb8, Rgb8) {
        let (width, height) = (23, 17);
        let value = |i: usize| ((i / 3 % 23 * 7 + i / 69 * 5 + i % 3 * 40) % 256) as u8;
        let a: Vec<u8> = (0..width * height * 3).map(value).collect();
        let b = a.iter().enumerate().map(|(i, &v)| v.saturating_add((i * i % 31) as u8)).collect();
        (Rgb8::new(width, height, a).unwrap(), Rgb8::new(width, height, b).unwrap())
    }

    #[test]
    fn equal_pictures() {
        let (a, _) = pair();
        assert_eq!(psnr(&a, &a).unwrap(), f64::INFINITY);
        assert!((ssim(&a, &a).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn psnr_by_hand() {
        let (a, b) = (Rgb8::filled(4, 4, [10; 3]).unwrap(), Rgb8::filled(4, 4, [15; 3]).unwrap());
        // 10 log10(255² / 25)
        assert!((psnr(&a, &b).unwrap() - 34.151_403_521_958_73).abs() < 1e-9);
        let (black, white) = (Rgb8::filled(1, 1, [0; 3]).unwrap(), Rgb8::filled(1, 1, [255; 3]).unwrap());
        assert_eq!(psnr(&black, &white).unwrap(), 0.0);
    }

    /// scikit-image 0.26 on the same pair: `structural_similarity(a, b, gaussian_weights=True, sigma=1.5,
    /// use_sample_covariance=False, channel_axis=2, data_range=255)` and `peak_signal_noise_ratio(a, b)`.
    #[test]
    fn numbers_of_scikit_image() {
        let (a, b) = pair();
        assert!((ssim(&a, &b).unwrap() - 0.8595667565322277).abs() < 1e-9, "{}", ssim(&a, &b).unwrap());
        assert!((psnr(&a, &b).unwrap() - 25.053399951515942).abs() < 1e-9, "{}", psnr(&a, &b).unwrap());
    }

    #[test]
    fn sizes_are_checked() {
        let (a, _) = pair();
        let small = Rgb8::filled(11, 10, [0; 3]).unwrap();
        assert!(psnr(&a, &small).is_err());
        assert!(ssim(&a, &small).is_err());
        assert!(ssim(&small, &small).is_err());
        let enough = Rgb8::filled(11, 11, [3; 3]).unwrap();
        assert!((ssim(&enough, &enough).unwrap() - 1.0).abs() < 1e-12);
    }
}
