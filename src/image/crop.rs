//! LlamaGen's crop: the largest square of the picture, at a given size.

use super::resize::{Filter, resize, resize_window};
use super::{MAX_SIDE, Rgb8};
use crate::error::{Error, Result};

/// The middle square of the picture at `size` x `size` pixels, byte for byte as LlamaGen's `center_crop_arr`.
///
/// The picture is halved by box means while both sides are at least `2 * size`, then resized with the
/// bicubic filter so that its shorter side is `size`, then cut in the middle (of an odd surplus the larger
/// part falls off the right and the bottom). A picture smaller than `size` grows.
///
/// # Errors
/// [`Error::Option`] for `image-size` if `size` is 0 or above [`MAX_SIDE`].
pub fn center_crop(picture: &Rgb8, size: usize) -> Result<Rgb8> {
    if size == 0 || size > MAX_SIDE {
        return Err(Error::Option {
            option: "image-size",
            value: size.to_string(),
            expected: format!("a size in pixels from 1 to {MAX_SIDE}"),
            hint: String::new(),
        });
    }
    let mut halved: Option<Rgb8> = None;
    loop {
        let current = halved.as_ref().unwrap_or(picture);
        let (width, height) = (current.width, current.height);
        let shorter = width.min(height);
        if shorter >= 2 * size {
            halved = Some(resize(current, width / 2, height / 2, Filter::Box)?);
            continue;
        }
        let scale = size as f64 / shorter as f64;
        // Python's round: halves go to the even neighbour.
        let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
        let (width, height) = (scaled(width), scaled(height));
        let (left, top) = ((width - size) / 2, (height - size) / 2);
        return resize_window(current, (width, height), left..left + size, top..top + size, Filter::Bicubic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_kept_and_the_odd_pixel_falls_off_the_end() {
        let picture = Rgb8::new(5, 2, (0..30).collect()).unwrap();
        let crop = center_crop(&picture, 2).unwrap();
        assert_eq!((crop.row(0), crop.row(1)), (&picture.row(0)[3..9], &picture.row(1)[3..9]));
    }

    #[test]
    fn every_shape_gives_a_square() {
        for (width, height) in [(1, 1), (1, 300), (300, 1), (16, 16), (33, 32), (1000, 31)] {
            for size in [1, 2, 7, 16, 40] {
                let crop = center_crop(&Rgb8::filled(width, height, [7, 8, 9]).unwrap(), size).unwrap();
                assert_eq!(crop, Rgb8::filled(size, size, [7, 8, 9]).unwrap());
            }
        }
    }

    #[test]
    fn a_long_strip_does_not_fill_the_memory() {
        let crop = center_crop(&Rgb8::filled(16384, 1, [1, 2, 3]).unwrap(), 384).unwrap();
        assert_eq!((crop.width(), crop.height()), (384, 384));
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let picture = Rgb8::filled(2, 2, [0; 3]).unwrap();
        for size in [0, MAX_SIDE + 1, usize::MAX] {
            assert!(center_crop(&picture, size).unwrap_err().is_usage());
        }
    }
}
