//! Pictures at the border: 8-bit RGB in and out of files, scaled, cropped, laid out and compared.
//!
//! Nothing here knows of models; it depends on `error` and `files` alone. What LlamaGen does to pictures
//! with PIL and torchvision is done here with equal bytes: the resampling of [`center_crop`] is Pillow's
//! fixed-point algorithm as of version 11 (the `image` crate's own filters round differently, so they are
//! not used), [`grid`] is torchvision's layout, and [`Rgb8::from_f32`] is LlamaGen's rounding. The one
//! exception is JPEG, where decoders differ among themselves by a few levels.
//! Tested by `tests/image.rs` and by fixtures that Pillow made (`tests/data/images`).

mod crop;
mod grid;
mod metrics;
mod read;
mod resize;
mod write;

pub use crop::center_crop;
pub use grid::{grid, side_by_side};
pub use metrics::{psnr, ssim};
pub use read::{MAX_PIXELS, MAX_SIDE, decode, read};
pub use resize::{Filter, resize};
pub use write::{encode_png, read_png_text, write_png};

use crate::error::{Error, Result};

/// An 8-bit RGB picture, at least 1 x 1.
///
/// Pixels lie row by row, three bytes each (height, width, 3). Opaque: there is no alpha.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Rgb8 {
    /// A picture from its bytes, (height, width, 3).
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a side is zero or `pixels` is not `height * width * 3` long.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        check_len(width, height, 1, pixels.len())?;
        Ok(Self { width, height, pixels })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a side is zero or the size does not fit in memory's addresses.
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Result<Self> {
        let count = values_of(width, height, 1)?;
        let mut pixels = vec![0; count];
        pixels.as_chunks_mut().0.fill(color);
        Self::new(width, height, pixels)
    }

    /// A picture from a decoder's output in [-1, 1], (height, width, 3).
    ///
    /// LlamaGen's rule for saving: clamp(127.5 x + 128, 0, 255), cut to an integer. NaN becomes 0.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a side is zero or `values` is not `height * width * 3` long.
    pub fn from_f32(width: usize, height: usize, values: &[f32]) -> Result<Self> {
        check_len(width, height, 1, values.len())?;
        Ok(Self { width, height, pixels: values.iter().map(|&x| to_u8(x)).collect() })
    }

    /// Several pictures of one size from a decoder's output in [-1, 1], (count, height, width, 3); see
    /// [`Rgb8::from_f32`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a side is zero or `values` is not `count * height * width * 3` long.
    pub fn from_f32_batch(count: usize, width: usize, height: usize, values: &[f32]) -> Result<Vec<Self>> {
        check_len(width, height, count, values.len())?;
        values.chunks_exact(width * height * 3).map(|values| Self::from_f32(width, height, values)).collect()
    }

    /// The encoder's input: x / 127.5 - 1 in f32, so in [-1, 1]; (height, width, 3).
    pub fn to_f32(&self) -> Vec<f32> {
        self.pixels.iter().map(|&x| f32::from(x) / 127.5 - 1.0).collect()
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, (height, width, 3).
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes without the picture, (height, width, 3).
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// One row's bytes, (width, 3).
    ///
    /// # Panics
    /// If `y` is not below the height.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width * 3..][..self.width * 3]
    }

    /// The same picture copied onto this one with its top left corner at (x, y); it must fit.
    fn paste(&mut self, picture: &Rgb8, x: usize, y: usize) {
        for (row, line) in picture.pixels.chunks_exact(picture.width * 3).enumerate() {
            let start = ((y + row) * self.width + x) * 3;
            self.pixels[start..start + line.len()].copy_from_slice(line);
        }
    }
}

/// Names the size; the bytes themselves help nobody.
impl std::fmt::Debug for Rgb8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rgb8({} x {})", self.width, self.height)
    }
}

fn to_u8(x: f32) -> u8 {
    (127.5 * x + 128.0).clamp(0.0, 255.0) as u8
}

/// `count * height * width * 3`, if the sides are not zero and the product is a possible length.
fn values_of(width: usize, height: usize, count: usize) -> Result<usize> {
    let values = width.checked_mul(height).and_then(|n| n.checked_mul(3)).and_then(|n| n.checked_mul(count));
    match values {
        Some(values) if width > 0 && height > 0 && values <= isize::MAX as usize => Ok(values),
        _ => Err(Error::Mismatch {
            what: "picture".into(),
            expected: "a size of at least 1 x 1 that fits in memory".into(),
            found: format!("{width} x {height}"),
            hint: String::new(),
        }),
    }
}

fn check_len(width: usize, height: usize, count: usize, found: usize) -> Result<()> {
    let expected = values_of(width, height, count)?;
    if found == expected {
        return Ok(());
    }
    let pictures = if count == 1 { String::new() } else { format!("{count} x ") };
    Err(Error::Mismatch {
        what: "values of a picture".into(),
        expected: format!("{expected} ({pictures}{height} x {width} x 3)"),
        found: found.to_string(),
        hint: String::new(),
    })
}

/// The two pictures' common size.
fn same_size(what: &str, a: &Rgb8, b: &Rgb8) -> Result<(usize, usize)> {
    if (a.width, a.height) == (b.width, b.height) {
        return Ok((a.width, a.height));
    }
    Err(Error::Mismatch {
        what: what.into(),
        expected: format!("a picture of {} x {} pixels", a.width, a.height),
        found: format!("{} x {}", b.width, b.height),
        hint: "crop or resize both pictures to one size".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        assert!(Rgb8::new(2, 3, vec![0; 18]).is_ok());
        assert!(Rgb8::new(2, 3, vec![0; 17]).is_err());
        assert!(Rgb8::new(0, 3, vec![]).is_err());
        assert!(Rgb8::new(usize::MAX, 3, vec![]).is_err());
        assert!(Rgb8::filled(usize::MAX / 4, 1, [0; 3]).is_err());
        assert!(Rgb8::from_f32(1, 1, &[0.0; 4]).is_err());
        assert!(Rgb8::from_f32_batch(3, 1, 1, &[0.0; 6]).is_err());
        assert_eq!(Rgb8::from_f32_batch(2, 1, 1, &[0.0; 6]).unwrap().len(), 2);
        assert!(Rgb8::from_f32_batch(0, 1, 1, &[]).unwrap().is_empty());
        let message = Rgb8::new(2, 3, vec![0; 17]).unwrap_err().to_string();
        assert_eq!(message, "values of a picture: expected 18 (3 x 2 x 3), found 17");
    }

    #[test]
    fn floats_become_bytes_by_llamagens_rule() {
        let values = [-1.0, 0.0, 1.0, -7.0, 7.0, f32::NAN, -0.996, 0.99, 1.0 / 127.5];
        let picture = Rgb8::from_f32(3, 1, &values).unwrap();
        assert_eq!(picture.pixels(), [0, 128, 255, 0, 255, 0, 1, 254, 129]);
    }

    #[test]
    fn bytes_survive_the_way_there_and_back() {
        let bytes: Vec<u8> = (0..=255).flat_map(|x| [x; 3]).collect();
        let picture = Rgb8::new(256, 1, bytes).unwrap();
        let floats = picture.to_f32();
        assert_eq!((floats[0], floats[767]), (-1.0, 1.0));
        assert_eq!(Rgb8::from_f32(256, 1, &floats).unwrap(), picture);
    }

    #[test]
    fn filled_repeats_the_colour() {
        assert_eq!(Rgb8::filled(2, 1, [1, 2, 3]).unwrap().pixels(), [1, 2, 3, 1, 2, 3]);
    }
}
