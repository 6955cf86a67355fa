//! Reading PNG and JPEG into [`Rgb8`], as PIL's `Image.open(path).convert("RGB")` does.
//!
//! - Grey is repeated, palettes are looked up, bilevel and 2- and 4-bit samples are scaled to bytes.
//! - Alpha is **dropped**, not composited: a transparent pixel keeps its hidden colour. So does PIL.
//! - 16-bit samples keep their high byte. So does PIL for colour; 16-bit grey it would clip to white.
//! - Colour profiles, gamma and the EXIF orientation are **ignored**, as LlamaGen's loader ignores them.
//! - JPEG: grey and three components at 8 bits. CMYK is refused: its colours need a profile.
//!
//! The header is checked against [`MAX_SIDE`] and [`MAX_PIXELS`] before anything is decoded.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ::image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use ::image::{ColorType, ImageDecoder, Limits};

use super::Rgb8;
use crate::error::{Error, Result};

/// The longest side, in pixels, that is read.
pub const MAX_SIDE: usize = 16384;
/// The largest picture, in pixels, that is read.
pub const MAX_PIXELS: usize = 100_000_000;
/// The longest file: [`MAX_PIXELS`] uncompressed at eight bytes each, and some.
const MAX_BYTES: u64 = 1 << 30;

const DAMAGED: &str = "the file is cut off or damaged: fetch or write it again";
const CONVERT: &str = "convert it to an RGB PNG first";

/// Reads a PNG or JPEG file; the content counts, not the name's ending.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is neither PNG nor JPEG, is cut off,
/// damaged, CMYK or too large.
pub fn read(path: &Path) -> Result<Rgb8> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    decode(&bytes, path)
}

/// Decodes the bytes of a PNG or JPEG file; `path` names them in errors.
///
/// # Errors
/// [`Error::Format`] as in [`read()`].
pub fn decode(bytes: &[u8], path: &Path) -> Result<Rgb8> {
    let (format, decoded) = match kind(bytes) {
        "PNG" => ("PNG", decode_png(bytes)),
        "JPEG" => ("JPEG", decode_jpeg(bytes)),
        other => ("PNG or JPEG", Err((format!("found {other}"), CONVERT))),
    };
    decoded.map_err(|(problem, hint)| Error::Format { path: path.into(), format, problem, hint: hint.into() })
}

/// What is wrong, and the cure.
type Refusal = (String, &'static str);

fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "an empty file",
        _ if bytes.len() as u64 > MAX_BYTES => "a file of more than 1 GiB",
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "PNG",
        [0xff, 0xd8, 0xff, ..] => "JPEG",
        [b'G', b'I', b'F', b'8', ..] => "a GIF file",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP file",
        [b'B', b'M', ..] => "a BMP file",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF file",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIC or video file",
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8] => "the beginning of a damaged file",
        _ => "something else",
    }
}

fn check_size(width: usize, height: usize) -> Result<(), Refusal> {
    if width.max(height) > MAX_SIDE || width * height > MAX_PIXELS {
        let problem = format!(
            "expected at most {MAX_SIDE} pixels a side and {} million in all, found {width} x {height}",
            MAX_PIXELS / 1_000_000
        );
        return Err((problem, "make the picture smaller first"));
    }
    if width == 0 || height == 0 {
        return Err((format!("expected at least 1 x 1 pixels, found {width} x {height}"), ""));
    }
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Result<Rgb8, Refusal> {
    let header = bytes.get(8..24).ok_or(("the file ends within its header".to_string(), DAMAGED))?;
    let side = |at: usize| header[at..at + 4].iter().fold(0, |side, &byte| side << 8 | usize::from(byte));
    if &header[4..8] != b"IHDR" {
        return Err(("expected the chunk IHDR first".into(), DAMAGED));
    }
    check_size(side(8), side(12))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    to_rgb(PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(damaged)?)
}

fn decode_jpeg(bytes: &[u8]) -> Result<Rgb8, Refusal> {
    let frame = jpeg_frame(bytes)?;
    if frame.bits != 8 {
        return Err((format!("expected 8 bits a sample, found {}", frame.bits), CONVERT));
    }
    if !matches!(frame.components, 1 | 3) {
        let what = if frame.components == 4 { " (CMYK)" } else { "" };
        return Err((format!("expected 1 or 3 colour components, found {}{what}", frame.components), CONVERT));
    }
    check_size(frame.width, frame.height)?;
    to_rgb(JpegDecoder::new(Cursor::new(bytes)).map_err(damaged)?)
}

fn damaged(error: ::image::ImageError) -> Refusal {
    (error.to_string(), DAMAGED)
}

/// Decodes and brings every kind of sample to 8-bit RGB.
fn to_rgb(decoder: impl ImageDecoder) -> Result<Rgb8, Refusal> {
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let color = decoder.color_type();
    let mut bytes = vec![0; width * height * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut bytes).map_err(damaged)?;
    // The high byte of a 16-bit sample in this machine's order.
    let high = usize::from(cfg!(target_endian = "little"));
    let pick = |size: usize, at: [usize; 3]| bytes.chunks_exact(size).flat_map(|p| at.map(|i| p[i])).collect();
    let pixels = match color {
        ColorType::Rgb8 => bytes,
        ColorType::Rgba8 => pick(4, [0, 1, 2]),
        ColorType::L8 => pick(1, [0; 3]),
        ColorType::La8 => pick(2, [0; 3]),
        ColorType::L16 => pick(2, [high; 3]),
        ColorType::La16 => pick(4, [high; 3]),
        ColorType::Rgb16 => pick(6, [high, 2 + high, 4 + high]),
        ColorType::Rgba16 => pick(8, [high, 2 + high, 4 + high]),
        other => return Err((format!("found samples of the kind {other:?}"), CONVERT)),
    };
    Rgb8::new(width, height, pixels).map_err(|error| (error.to_string(), DAMAGED))
}

/// What a JPEG's frame header says.
struct Frame {
    bits: u8,
    width: usize,
    height: usize,
    components: u8,
}

/// Walks a JPEG's segments to its end. The decoder would fill up a file that is cut off with grey, and
/// would turn CMYK to RGB in silence.
fn jpeg_frame(bytes: &[u8]) -> Result<Frame, Refusal> {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: u8 = 0xd9;
    let cut = || ("the file ends before the picture does".to_string(), DAMAGED);
    let mut frame = None;
    let mut at = 2;
    loop {
        // The next marker; between segments there is nothing, after a scan's header its coded data, in which
        // 0xff is followed by 0 (a plain byte), by a restart marker or by a fill byte.
        let marker = loop {
            at += bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)).ok_or_else(cut)?;
            match *bytes.get(at + 1).ok_or_else(cut)? {
                0xff => at += 1,
                0x00 | 0x01 | 0xd0..=0xd7 => at += 2,
                marker => break marker,
            }
        };
        if marker == END_OF_IMAGE {
            return frame.ok_or_else(|| ("the file holds no picture".to_string(), DAMAGED));
        }
        let length = bytes.get(at + 2..at + 4).ok_or_else(cut)?;
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        let segment = bytes.get(at + 4..at + 2 + length).ok_or_else(cut)?;
        match (marker, segment) {
            (0xc4 | 0xc8 | 0xcc, _) => (), // tables, not frames
            (0xc0..=0xcf, &[bits, h1, h0, w1, w0, components, ..]) => {
                let side = |high, low| usize::from(high) << 8 | usize::from(low);
                frame = Some(Frame { bits, width: side(w1, w0), height: side(h1, h0), components });
            }
            (START_OF_SCAN, _) if frame.is_none() => {
                return Err(("the coded data comes before its header".into(), DAMAGED));
            }
            _ => (),
        }
        at += 2 + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(bytes: &[u8]) -> String {
        decode(bytes, Path::new("x")).unwrap_err().to_string()
    }

    #[test]
    fn other_formats_are_named() {
        assert_eq!(problem(b""), "x: not a usable PNG or JPEG file: found an empty file");
        assert_eq!(problem(b"GIF89a..."), "x: not a usable PNG or JPEG file: found a GIF file");
        assert_eq!(problem(b"RIFF....WEBPVP8 "), "x: not a usable PNG or JPEG file: found a WebP file");
        assert_eq!(problem(b"hello"), "x: not a usable PNG or JPEG file: found something else");
    }

    #[test]
    fn segments_with_lying_lengths_are_refused() {
        for bytes in [&b"\xff\xd8\xff"[..], b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8\xff\xe0\xff\xff\0"]
        {
            assert!(problem(bytes).contains("JPEG"), "{}", problem(bytes));
        }
        assert!(problem(b"\xff\xd8\xff\xd9").ends_with("the file holds no picture"));
        assert!(problem(b"\xff\xd8\xff\xda\0\x02\xff\xd9").ends_with("before its header"));
    }

    #[test]
    fn sizes_are_checked_on_the_header_alone() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x40\x01\0\0\0\x01";
        assert!(problem(png).contains("found 16385 x 1"), "{}", problem(png));
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x40\0\0\0\x40\0";
        assert!(problem(png).contains("found 16384 x 16384"), "{}", problem(png));
        let jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x03\0\0\0\xff\xd9";
        assert!(problem(jpeg).contains("found 65535 x 65535"), "{}", problem(jpeg));
    }
}
