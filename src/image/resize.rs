//! Resampling, bit-equal to Pillow's (version 11) for 8-bit RGB.
//!
//! For output position i of an axis that shrinks by `scale` (or grows: scale < 1)
//! ```text
//! center = (i + ½) scale          width = support * max(scale, 1)
//! out[i] = Σ in[j] w(j) / Σ w(j)  w(j) = filter((j + ½ - center) / max(scale, 1)),  |j + ½ - center| ≲ width
//! ```
//! first along rows, then along columns. Pillow's numbers, which everything else follows from: weights are
//! f64, normalized, then rounded to 22-bit fixed point; sums are i32 and start at one half; each of
//! the two passes clamps to a byte. Positions outside the picture carry no weight.
//! Newer Pillow takes columns first for tall pictures (12.3: more than 100 times as tall as wide, 13: about
//! twice), which moves some bytes by a few levels; smalti keeps the order that LlamaGen was trained with.
//! Checked against Pillow's own output by `tests/image.rs` (`tests/data/images/crop_*.png`).

use std::ops::Range;

use super::{Rgb8, values_of};
use crate::error::Result;

/// Fixed-point digits of a weight: 32 bits, less 8 of the sample, less 2 for sums beyond a byte.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// How far an input sample reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The mean over the output pixel's own area (Pillow's `BOX`).
    Box,
    /// Cubic convolution with a = -½ over four pixels (Pillow's `BICUBIC`); widens when shrinking.
    Bicubic,
}

impl Filter {
    /// Half the filter's width, in input samples at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// The picture at another size, byte for byte as Pillow's `Image.resize((width, height), filter)`
/// in Pillow 11.
///
/// # Errors
/// [`crate::Error::Mismatch`] if a side is zero or the size cannot be held.
pub fn resize(picture: &Rgb8, width: usize, height: usize, filter: Filter) -> Result<Rgb8> {
    values_of(width, height, 1)?;
    resize_window(picture, (width, height), 0..width, 0..height, filter)
}

/// The window `columns` x `rows` of the picture resized to `size` (width, height), without computing the rest.
///
/// The window must not be empty and must lie within `size`. An output pixel depends on its own weights alone, so the window's
/// bytes are those of the whole picture resized.
pub(super) fn resize_window(
    picture: &Rgb8,
    size: (usize, usize),
    columns: Range<usize>,
    rows: Range<usize>,
    filter: Filter,
) -> Result<Rgb8> {
    let (width, height) = (columns.len(), rows.len());
    let across = taps(picture.width, size.0, columns, filter);
    let down = taps(picture.height, size.1, rows, filter);
    // Only the rows that the second pass reads.
    let first = down.iter().map(|taps| taps.start).min().unwrap_or(0);
    let last = down.iter().map(|taps| taps.start + taps.weights.len()).max().unwrap_or(0);
    let mut wide = Vec::with_capacity((last - first) * width * 3);
    for y in first..last {
        let line = picture.row(y);
        wide.extend(across.iter().flat_map(|taps| {
            let samples = line[taps.start * 3..].as_chunks::<3>().0;
            let mut sums = [1 << (PRECISION_BITS - 1); 3];
            for (&weight, sample) in taps.weights.iter().zip(samples) {
                for (sum, &value) in sums.iter_mut().zip(sample) {
                    *sum += weight * i32::from(value);
                }
            }
            sums.map(to_byte)
        }));
    }
    let mut pixels = Vec::with_capacity(height * width * 3);
    let mut sums = vec![0i32; width * 3];
    for taps in &down {
        sums.fill(1 << (PRECISION_BITS - 1));
        let lines = wide[(taps.start - first) * width * 3..].chunks_exact(width * 3);
        for (&weight, line) in taps.weights.iter().zip(lines) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += weight * i32::from(value);
            }
        }
        pixels.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    Rgb8::new(width, height, pixels)
}

/// The input samples of one output position: `weights[k]` for sample `start + k`.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// Taps of the output positions `wanted` on an axis of `from` samples resized to `to`.
fn taps(from: usize, to: usize, wanted: Range<usize>, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = f64::from(1 << PRECISION_BITS);
    wanted
        .map(|position| {
            let center = (position as f64 + 0.5) * scale;
            // `as` cuts towards zero and keeps negative numbers at 0.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |sample: usize| filter.weight((sample as f64 - center + 0.5) * (1.0 / stretch));
            let exact: Vec<f64> = (start..end).map(weight).collect();
            let total: f64 = exact.iter().sum();
            let total = if total == 0.0 { 1.0 } else { total };
            // Half away from zero, as adding ±½ and cutting does.
            let fixed = |weight: &f64| ((weight / total) * one + 0.5f64.copysign(*weight)) as i32;
            Taps { start, weights: exact.iter().map(fixed).collect() }
        })
        .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing() {
        let picture = Rgb8::new(5, 4, (0..60).map(|i| (i * 37 % 256) as u8).collect()).unwrap();
        for filter in [Filter::Box, Filter::Bicubic] {
            assert_eq!(resize(&picture, 5, 4, filter).unwrap(), picture);
        }
    }

    #[test]
    fn a_box_of_two_is_the_rounded_mean() {
        let picture = Rgb8::new(2, 2, vec![0, 10, 255, 1, 20, 255, 2, 30, 255, 4, 40, 255]).unwrap();
        // Rows first: (0 + 1) / 2 rounds to 1 and (2 + 4) / 2 is 3, and their mean is 2.
        assert_eq!(resize(&picture, 1, 1, Filter::Box).unwrap().pixels(), [2, 25, 255]);
    }

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        for (from, to) in [(1, 1), (1, 97), (2, 3), (97, 1), (640, 384), (1000, 999)] {
            for filter in [Filter::Box, Filter::Bicubic] {
                for taps in taps(from, to, 0..to, filter) {
                    let sum: i64 = taps.weights.iter().map(|&w| i64::from(w)).sum();
                    assert!((sum - (1 << PRECISION_BITS)).abs() <= taps.weights.len() as i64);
                    assert!(taps.start + taps.weights.len() <= from);
                    // 255 times the weights' magnitudes must fit an i32.
                    let magnitude: i64 = taps.weights.iter().map(|&w| i64::from(w).abs()).sum();
                    assert!(magnitude * 255 + (1 << PRECISION_BITS) < i64::from(i32::MAX));
                }
            }
        }
    }

    #[test]
    fn a_window_has_the_bytes_of_the_whole() {
        let picture = Rgb8::new(31, 17, (0..31 * 17 * 3).map(|i| (i * i % 251) as u8).collect()).unwrap();
        for (width, height) in [(20, 9), (45, 60)] {
            let whole = resize(&picture, width, height, Filter::Bicubic).unwrap();
            let part = resize_window(&picture, (width, height), 3..11, 2..8, Filter::Bicubic).unwrap();
            for y in 0..6 {
                assert_eq!(part.row(y), &whole.row(y + 2)[9..33]);
            }
        }
    }
}
