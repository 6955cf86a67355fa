//! `smalti encode`, `decode` and `reconstruct`.

use smalti::checkpoint::Checkpoint;
use smalti::generate::Codes;
use smalti::image::{Rgb8, center_crop, read, read_png_text, write_png};

use super::common;
use super::program::{Folder, fixture, vq};

/// The golden pictures.
fn inputs() -> [String; 2] {
    [fixture("golden/vq16/input_0.png"), fixture("golden/vq16/input_1.png")]
}

#[test]
fn encoding_gives_the_golden_codes() {
    let folder = Folder::new();
    let [one, two] = inputs();
    let run = folder.run(&["encode", &one, &two, "--vq-ckpt", &vq(), "-o", "codes.safetensors", "--quiet"]);
    assert_eq!(run.lines(), ["codes.safetensors"]);
    let codes = Codes::read(&folder.path("codes.safetensors")).unwrap();
    assert_eq!(codes.latent, (4, 4));
    let expected = common::read_expected(fixture("golden/vq16/expected.safetensors").as_ref());
    let found: Vec<f64> = codes.pictures.concat().into_iter().map(f64::from).collect();
    assert_eq!(found, expected["encode_codes"].values);
    assert!(codes.metadata["parameters"].contains(r#""file":"input_1.png""#), "{:?}", codes.metadata);
    assert!(codes.metadata["parameters"].contains(r#""vq_ckpt":"vq.pt""#), "{:?}", codes.metadata);
}

#[test]
fn decoding_carries_the_text_along() {
    let folder = Folder::new();
    let [one, two] = inputs();
    folder.run(&["encode", &one, &two, "--vq-ckpt", &vq()]).lines();
    let run = folder.run(&["decode", "codes.safetensors", "--vq-ckpt", &vq(), "-o", "out/"]);
    assert_eq!(run.lines(), ["out/000000.png", "out/000001.png"]);
    let text = read_png_text(&folder.path("out/000001.png")).unwrap();
    assert_eq!(text[1].1, r#"{"images":[{"file":"input_1.png","image":1}],"vq_ckpt":"vq.pt"}"#);

    folder.run(&["decode", "codes.safetensors", "--vq-ckpt", &vq()]).lines();
    let grid = read(&folder.path("decoded.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 * 66 + 2, 66 + 2));
}

#[test]
fn image_size_crops_as_llamagen_does() {
    let folder = Folder::new();
    let source = fixture("data/images/crop_source.png");
    folder.run(&["encode", &source, "--vq-ckpt", &vq(), "--image-size", "32", "-o", "cropped.safetensors"]).lines();
    write_png(&folder.path("by_hand.png"), &center_crop(&read(source.as_ref()).unwrap(), 32).unwrap(), &[]).unwrap();
    folder.run(&["encode", "by_hand.png", "--vq-ckpt", &vq(), "-o", "by_hand.safetensors"]).lines();
    let codes = ["cropped", "by_hand"].map(|name| Codes::read(&folder.path(&format!("{name}.safetensors"))).unwrap());
    assert_eq!(codes[0].latent, (2, 2));
    assert_eq!(codes[0].pictures, codes[1].pictures);
}

#[test]
fn pictures_need_not_be_square_and_may_be_jpegs() {
    let folder = Folder::new();
    write_png(&folder.path("wide.png"), &Rgb8::filled(48, 16, [9, 80, 200]).unwrap(), &[]).unwrap();
    folder.run(&["encode", "wide.png", "--vq-ckpt", &vq(), "-o", "wide.safetensors"]).lines();
    assert_eq!(Codes::read(&folder.path("wide.safetensors")).unwrap().latent, (1, 3));
    folder.run(&["decode", "wide.safetensors", "--vq-ckpt", &vq(), "-o", "again.png"]).lines();
    let again = read(&folder.path("again.png")).unwrap();
    assert_eq!((again.width(), again.height()), (48, 16));
    let jpeg = fixture("data/images/rgb.jpg");
    folder.run(&["reconstruct", &jpeg, "--vq-ckpt", &vq(), "--image-size", "16"]).lines();
}

#[test]
fn reconstructions_stand_beside_their_originals() {
    let folder = Folder::new();
    let [one, two] = inputs();
    let run = folder.run(&["reconstruct", &one, &two, "--vq-ckpt", &vq(), "-o", "pairs.png"]);
    let lines = run.lines();
    assert_eq!((lines.len(), lines[2]), (3, "pairs.png"));
    for (line, input) in lines.iter().zip([&one, &two]) {
        let likeness = line.strip_prefix(&format!("{input}: PSNR ")).unwrap_or_else(|| panic!("{line}"));
        let value: f64 = likeness.split(' ').next().unwrap().parse().unwrap();
        assert!(value > 5.0 && value < 50.0, "{line}");
        assert!(line.contains(" dB, SSIM 0.") && line.contains("of 256 codes used by 16 tokens"), "{line}");
    }
    // One pair per row: 2 x 64 pixels and the gap, in a grid of one column.
    let pairs = read(&folder.path("pairs.png")).unwrap();
    assert_eq!((pairs.width(), pairs.height()), (64 + 2 + 64 + 4, 2 * 66 + 2));
    let original = read(one.as_ref()).unwrap();
    assert_eq!(pairs.row(2)[2 * 3..66 * 3], *original.row(0));

    let quiet = folder.run(&["reconstruct", &one, "--vq-ckpt", &vq(), "-q", "-o", "pairs/"]);
    assert_eq!((quiet.lines(), quiet.stderr.as_str()), (vec!["pairs/000000.png"], ""));
    let pair = read(&folder.path("pairs/000000.png")).unwrap();
    assert_eq!((pair.width(), pair.height()), (64 + 2 + 64, 64));
}

#[test]
fn a_decoder_alone_decodes_and_says_that_it_cannot_encode() {
    let folder = Folder::new();
    let whole = Checkpoint::open(vq().as_ref(), smalti::checkpoint::WeightsChoice::Model).unwrap();
    let decoder = whole.tensors().iter().filter(|(name, _)| !name.starts_with("encoder."));
    let decoder = decoder.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let decoder = Checkpoint::from_tensors("decoder", decoder, Default::default());
    smalti::checkpoint::convert(&decoder, &folder.path("decoder.safetensors"), &Default::default()).unwrap();

    let [one, _] = inputs();
    folder.run(&["encode", &one, "--vq-ckpt", &vq(), "-o", "codes.safetensors"]).lines();
    folder.run(&["decode", "codes.safetensors", "--vq-ckpt", &vq(), "-o", "a.png"]).lines();
    folder.run(&["decode", "codes.safetensors", "--vq-ckpt", "decoder.safetensors", "-o", "b.png"]).lines();
    assert!(folder.files()["a.png"] == folder.files()["b.png"]);
    let run = folder.run(&["encode", &one, "--vq-ckpt", "decoder.safetensors", "-o", "no.safetensors"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("expected an encoder"), "{}", run.stderr);
}
