//! Writing PNG, with text fields, and reading the fields back.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use png::text_metadata::{ITXtChunk, TEXtChunk};

use super::Rgb8;
use crate::error::{Error, Result};
use crate::files::write_atomically;

/// The bytes of a PNG file: 8-bit RGB, not interlaced, with `text` as (keyword, value) in the given order.
///
/// A value becomes a `tEXt` chunk where its characters are printable Latin-1 or line feeds, else an `iTXt`
/// chunk (UTF-8). Equal pictures and texts give equal bytes: there is no time stamp.
///
/// # Errors
/// [`Error::Mismatch`] if a keyword is not 1 to 79 printable Latin-1 characters without spaces at its ends
/// or in a row, a value holds a NUL, or the picture is too large for a PNG.
pub fn encode_png(picture: &Rgb8, text: &[(&str, &str)]) -> Result<Vec<u8>> {
    for (keyword, value) in text {
        check_text(keyword, value)?;
    }
    let mut bytes = Vec::new();
    encode(picture, text, &mut bytes).map_err(|error| Error::Mismatch {
        what: "picture".into(),
        expected: "one that a PNG file can hold".into(),
        found: format!("{} x {} pixels ({error})", picture.width, picture.height),
        hint: String::new(),
    })?;
    Ok(bytes)
}

/// Writes a PNG file whole or not at all; see [`encode_png`].
///
/// # Errors
/// As [`encode_png`], and [`Error::Io`] with the directory or file if it cannot be written; then nothing is
/// left behind, and a file that was there before stays as it was.
pub fn write_png(path: &Path, picture: &Rgb8, text: &[(&str, &str)]) -> Result<()> {
    let bytes = encode_png(picture, text)?;
    write_atomically(path, |file| file.write_all(&bytes))
}

/// A PNG file's text fields as (keyword, value): all `tEXt`, then all `zTXt`, then all `iTXt` chunks, each
/// kind in the file's order.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, [`Error::Format`] if it is not a whole PNG.
pub fn read_png_text(path: &Path) -> Result<Vec<(String, String)>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    text_fields(BufReader::new(file)).map_err(|error| match error {
        png::DecodingError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::io("read", path)(source)
        }
        error => Error::Format {
            path: path.into(),
            format: "PNG",
            problem: error.to_string(),
            hint: "text fields are read from whole PNG files only".into(),
        },
    })
}

fn encode(picture: &Rgb8, text: &[(&str, &str)], bytes: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    // A size beyond u32 becomes 0, which the encoder refuses.
    let side = |side: usize| u32::try_from(side).unwrap_or(0);
    let mut encoder = png::Encoder::new(bytes, side(picture.width), side(picture.height));
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // A picture that is served waits for this.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    for &(keyword, value) in text {
        if value.chars().all(|c| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}')) {
            writer.write_text_chunk(&TEXtChunk::new(keyword, value))?;
        } else {
            writer.write_text_chunk(&ITXtChunk::new(keyword, value))?;
        }
    }
    writer.write_image_data(&picture.pixels)?;
    writer.finish()
}

fn check_text(keyword: &str, value: &str) -> Result<()> {
    let wrong = |what: &str, expected: &str| {
        Err(Error::Mismatch {
            what: format!("PNG text field {keyword:?}"),
            expected: expected.into(),
            found: what.into(),
            hint: String::new(),
        })
    };
    let printable = keyword.chars().all(|c| matches!(c, ' '..='~' | '\u{a1}'..='\u{ff}'));
    if !printable || keyword.trim() != keyword || keyword.contains("  ") {
        return wrong("another keyword", "printable Latin-1 without spaces at the ends or in a row");
    }
    let length = keyword.chars().count();
    if !(1..=79).contains(&length) {
        return wrong(&format!("a keyword of {length} characters"), "a keyword of 1 to 79 characters");
    }
    if value.contains('\0') {
        return wrong("a NUL character in the value", "text");
    }
    Ok(())
}

fn text_fields(file: BufReader<File>) -> Result<Vec<(String, String)>, png::DecodingError> {
    let mut reader = png::Decoder::new(file).read_info()?;
    // Chunks may follow the pixels.
    reader.finish()?;
    let info = reader.info();
    let mut fields: Vec<_> =
        info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())).collect();
    for chunk in &info.compressed_latin1_text {
        // `decompress_text` stops at 2 MiB, `get_text` alone would not.
        let mut chunk = chunk.clone();
        chunk.decompress_text()?;
        fields.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text()?;
        fields.push((chunk.keyword.clone(), chunk.get_text()?));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_input_gives_equal_bytes() {
        let picture = Rgb8::new(3, 2, (0..18).collect()).unwrap();
        let text = [("Software", "smalti"), ("Prompt", "ένα ψηφιδωτό")];
        assert_eq!(encode_png(&picture, &text).unwrap(), encode_png(&picture, &text).unwrap());
    }

    #[test]
    fn latin_1_is_text_and_the_rest_is_itxt() {
        let picture = Rgb8::filled(1, 1, [0; 3]).unwrap();
        let has = |bytes: &[u8], name: &[u8]| bytes.windows(4).any(|w| w == name);
        let plain = encode_png(&picture, &[("Prompt", "café\nau lait")]).unwrap();
        assert!(has(&plain, b"tEXt") && !has(&plain, b"iTXt"));
        for value in ["猫", "tab\there", "“quoted”", "\u{85}"] {
            let bytes = encode_png(&picture, &[("Prompt", value)]).unwrap();
            assert!(has(&bytes, b"iTXt") && !has(&bytes, b"tEXt"), "{value}");
        }
    }

    #[test]
    fn bad_fields_are_refused() {
        let picture = Rgb8::filled(1, 1, [0; 3]).unwrap();
        let long = "k".repeat(80);
        for keyword in ["", " a", "a ", "a  b", "a\n", "猫", "\u{a0}a", &long] {
            assert!(encode_png(&picture, &[(keyword, "v")]).is_err(), "{keyword:?}");
        }
        assert!(encode_png(&picture, &[("k", "a\0b")]).is_err());
        assert!(encode_png(&picture, &[(&long[1..], "")]).is_ok());
    }
}
