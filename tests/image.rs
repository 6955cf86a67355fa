//! Pictures in files: what is read, what is refused, what is written, and Pillow's bytes for crops.
//!
//! The fixtures are made by `tests/data/images/make.py`; its pattern is [`pattern`].

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use smalti::Error;
use smalti::image::{self, Filter, Rgb8};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)
}

fn fixture_bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

fn read(name: &str) -> Rgb8 {
    image::read(&fixture(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// The message of the refusal, which must name the file and be an [`Error::Format`].
fn refused(bytes: &[u8]) -> String {
    let error = image::decode(bytes, Path::new("the file")).unwrap_err();
    assert!(matches!(&error, Error::Format { path, .. } if path == Path::new("the file")), "{error:?}");
    error.to_string()
}

/// The small fixtures' picture: `color` of (red 40 x, green 60 y, blue 10 (x + y)).
fn pattern(color: impl Fn([u8; 3]) -> [u8; 3]) -> Rgb8 {
    let at = |i: u8| [40 * (i % 6), 60 * (i / 6), 10 * (i % 6 + i / 6)];
    Rgb8::new(6, 4, (0..24).flat_map(|i| color(at(i))).collect()).unwrap()
}

#[test]
fn every_kind_of_png_becomes_rgb_as_in_pil() {
    for name in ["rgb.png", "rgba.png", "palette.png", "palette_alpha.png", "rgb16.png", "rgba16.png"] {
        assert!(read(name) == pattern(|p| p), "{name}");
    }
    for name in ["grey.png", "grey_alpha.png", "grey16.png"] {
        assert!(read(name) == pattern(|[red, ..]| [red; 3]), "{name}");
    }
    let checks = (0..24).flat_map(|i| [255 * ((i % 6 + i / 6) % 2) as u8; 3]).collect();
    assert!(read("bilevel.png") == Rgb8::new(6, 4, checks).unwrap());
}

#[test]
fn jpegs_are_read_and_their_orientation_is_ignored() {
    for (name, color) in [("rgb.jpg", [200, 100, 50]), ("progressive.jpg", [200, 100, 50]), ("grey.jpg", [90; 3])] {
        let picture = read(name);
        assert_eq!((picture.width(), picture.height()), (24, 16), "{name}");
        let far = picture.pixels().iter().zip(color.iter().cycle()).map(|(&a, &b)| a.abs_diff(b)).max();
        assert!(far <= Some(2), "{name}: {far:?} levels away");
    }
}

#[test]
fn cmyk_and_other_formats_are_refused() {
    let message = refused(&fixture_bytes("cmyk.jpg"));
    assert_eq!(message, "the file: not a usable JPEG file: expected 1 or 3 colour components, found 4 (CMYK)");
    assert!(refused(&fixture_bytes("picture.gif")).ends_with("found a GIF file"));
    let error = image::decode(&fixture_bytes("cmyk.jpg"), Path::new("x")).unwrap_err();
    assert_eq!(error.hint(), Some("convert it to an RGB PNG first"));
}

#[test]
fn files_cut_off_anywhere_are_refused() {
    for name in ["rgb.png", "rgb16.png", "palette.png", "rgb.jpg", "progressive.jpg", "grey.jpg"] {
        let bytes = fixture_bytes(name);
        // A PNG's last chunk, which is empty, may be missing (12 bytes); its pixels may not.
        let end = if name.ends_with("png") { bytes.len() - 16 } else { bytes.len() };
        for len in 0..end {
            refused(&bytes[..len]);
        }
    }
}

#[test]
fn a_damaged_png_is_refused() {
    let mut bytes = fixture_bytes("rgb.png");
    let middle = bytes.len() - 30;
    bytes[middle] ^= 0x55;
    assert!(refused(&bytes).contains("not a usable PNG file"));
}

#[test]
fn a_huge_header_is_refused_before_anything_is_decoded() {
    let mut png = fixture_bytes("rgb.png");
    png[16..20].copy_from_slice(&2_000_000_000u32.to_be_bytes());
    assert!(refused(&png).contains("found 2000000000 x 4"));
    let mut png = fixture_bytes("rgb.png")[..33].to_vec();
    png[16..20].copy_from_slice(&10_001u32.to_be_bytes());
    png[20..24].copy_from_slice(&10_000u32.to_be_bytes());
    assert!(refused(&png).contains("100 million in all, found 10001 x 10000"));
    let mut empty = fixture_bytes("rgb.png");
    empty[16..20].fill(0);
    assert!(refused(&empty).contains("found 0 x 4"));
}

#[test]
fn missing_files_and_directories_are_told() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().join("absent.png"), directory.path().to_path_buf()] {
        let error = image::read(&path).unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
    }
}

#[test]
fn a_written_png_comes_back_with_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("picture.png");
    let picture = read("crop_source.png");
    let text = [
        ("Software", "smalti"),
        ("Prompt", "a café, ünder the sea\nat night"),
        ("Prompt", "モザイク 🐙"),
        ("Empty", ""),
    ];
    image::write_png(&path, &picture, &text).unwrap();
    assert!(image::read(&path).unwrap() == picture);
    let found = image::read_png_text(&path).unwrap();
    let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, [text[0], text[1], text[3], text[2]]);
    assert_eq!(fs::read(&path).unwrap(), image::encode_png(&picture, &text).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn text_is_read_from_png_only() {
    assert!(image::read_png_text(&fixture("rgb.png")).unwrap().is_empty());
    assert!(matches!(image::read_png_text(&fixture("rgb.jpg")), Err(Error::Format { .. })));
    assert!(matches!(image::read_png_text(&fixture("absent.png")), Err(Error::Io { .. })));
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let picture = pattern(|p| p);
    let missing = directory.path().join("missing");
    let error = image::write_png(&missing.join("a.png"), &picture, &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");
    assert!(error.to_string().starts_with("cannot create a file in the directory "), "{error}");
    assert!(!error.to_string().contains(".smalti-"), "{error}");

    let file = directory.path().join("file");
    fs::write(&file, b"x").unwrap();
    let error = image::write_png(&file.join("a.png"), &picture, &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == file), "{error}");

    let error = image::write_png(directory.path(), &picture, &[]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path == directory.path()), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn crops_have_pillows_bytes() {
    let source = read("crop_source.png");
    for size in [1, 9, 12, 18, 30, 37, 45] {
        assert!(image::center_crop(&source, size).unwrap() == read(&format!("crop_{size}.png")), "size {size}");
    }
    assert!(image::resize(&source, 20, 41, Filter::Box).unwrap() == read("resize_box_20x41.png"));
    assert!(image::resize(&source, 60, 13, Filter::Bicubic).unwrap() == read("resize_bicubic_60x13.png"));
}

/// Any small picture.
fn pictures() -> impl Strategy<Value = Rgb8> {
    (1usize..40, 1usize..40).prop_flat_map(|(width, height)| {
        prop::collection::vec(any::<u8>(), width * height * 3)
            .prop_map(move |pixels| Rgb8::new(width, height, pixels).unwrap())
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    prop_oneof![Just(Filter::Box), Just(Filter::Bicubic)]
}

/// How files of random bytes begin, so that some get past the first look.
const STARTS: [&[u8]; 4] = [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", b"\xff\xd8\xff"];

proptest! {
    #[test]
    fn any_picture_resizes_and_crops(picture in pictures(), width in 1usize..90, height in 1usize..90, filter in filters()) {
        let resized = image::resize(&picture, width, height, filter).unwrap();
        prop_assert_eq!((resized.width(), resized.height()), (width, height));
        let cropped = image::center_crop(&picture, width).unwrap();
        prop_assert_eq!((cropped.width(), cropped.height()), (width, width));
    }

    #[test]
    fn one_colour_stays_that_colour(
        color in any::<[u8; 3]>(), from in (1usize..300, 1usize..300), to in (1usize..90, 1usize..90), filter in filters()
    ) {
        let picture = Rgb8::filled(from.0, from.1, color).unwrap();
        prop_assert!(image::resize(&picture, to.0, to.1, filter).unwrap() == Rgb8::filled(to.0, to.1, color).unwrap());
    }

    #[test]
    fn pngs_come_back_whole(picture in pictures(), value in "[^\0]{0,40}") {
        let bytes = image::encode_png(&picture, &[("Comment", &value)]).unwrap();
        prop_assert!(image::decode(&bytes, Path::new("x")).unwrap() == picture);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        start in prop::sample::select(&STARTS[..]),
        rest in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let _ = image::decode(&[start, &rest].concat(), Path::new("x"));
    }

    #[test]
    fn damaged_files_are_read_or_refused(
        name in prop::sample::select(&["rgb.png", "palette_alpha.png", "rgb.jpg", "progressive.jpg", "grey.jpg"][..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = fixture_bytes(name);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = image::decode(&bytes, Path::new("x"));
    }
}
