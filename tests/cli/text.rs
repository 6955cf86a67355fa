//! `smalti generate` with prompts: files, their text, and what pictures depend on.

use std::fs;

use serde_json::Value;
use smalti::generate::Codes;
use smalti::image::{read, read_png_text};

use super::common::read_expected;
use super::program::{Folder, Run, fixture, vq};

/// The golden text model with the golden T5, at 64 pixels: 16 tokens.
fn generate(folder: &Folder, args: &[&str]) -> Run {
    let (gpt, vq, t5) = (fixture("golden/t2i/gpt.pt"), vq(), fixture("golden/t5"));
    let models = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--t5-path", &t5, "--image-size", "64"];
    folder.run(&[&models, args].concat())
}

/// The codes that a run with these settings draws.
fn codes(args: &[&str]) -> Vec<Vec<u32>> {
    let folder = Folder::new();
    generate(&folder, &[args, &["--codes", "codes.safetensors"]].concat()).lines();
    Codes::read(&folder.path("codes.safetensors")).unwrap().pictures
}

#[test]
fn prompts_become_pictures_that_tell_of_them() {
    let folder = Folder::new();
    let run = generate(&folder, &["A red Square", "a tree", "--count", "2", "-o", "out/"]);
    let expected = ["000000", "000001", "000002", "000003"].map(|number| format!("out/{number}.png"));
    assert_eq!(run.lines(), expected);
    let text = read_png_text(&folder.path("out/000001.png")).unwrap();
    let told: Value = serde_json::from_str(&text[1].1).unwrap();
    assert_eq!(told["images"], serde_json::json!([{ "image": 1, "prompt": "A red Square" }]));
    assert_eq!((&told["options"]["cfg_scale"], &told["options"]["top_k"]), (&7.5.into(), &1000.into()));
    assert_eq!((&told["gpt_ckpt"], &told["t5_path"]), (&"gpt.pt".into(), &"t5".into()));

    generate(&folder, &["a tree"]).lines();
    let picture = read(&folder.path("sample_t2i.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
}

#[test]
fn pictures_depend_on_seed_prompt_and_number_alone() {
    let folder = Folder::new();
    fs::write(folder.path("prompts.txt"), "\u{feff}a tree\r\n\n  \na blue circle left of a red square\n").unwrap();
    let all = codes(&["a tree", "a blue circle left of a red square", "--count", "2"]);
    assert_eq!(all.len(), 4);
    let args = ["--prompts", "prompts.txt", "--count", "2", "--codes", "c.safetensors"];
    for how in [&["--threads", "1"][..], &["--batch-size", "1"], &["--batch-size", "3"], &["--text-device", "cpu"]] {
        let run = generate(&folder, &[&args[..], how].concat());
        run.lines();
        assert!(run.stderr.contains("note: prompts.txt: 2 blank lines passed over"), "{}", run.stderr);
        assert_eq!(Codes::read(&folder.path("c.safetensors")).unwrap().pictures, all, "{how:?}");
    }
    // The same once cleaned, and its number decides the noise.
    assert_eq!(codes(&["A <b>Tree</b>", "--first-image", "1"]), all[1..2]);
    assert_ne!(all[0], all[1]);
    assert_ne!(codes(&["a tree", "--seed", "1"]), all[..1]);
    assert_ne!(codes(&["a tree", "--greedy", "--cfg-scale", "1"]), codes(&["a tree", "--greedy"]));
}

#[test]
fn features_computed_elsewhere_draw_the_reference_codes() {
    let file = fixture("golden/t2i/expected.safetensors");
    let expected = read_expected(file.as_ref());
    let found = codes(&["--text-features", &file, "--greedy", "--precision", "f32"]);
    let golden = expected["greedy_1_tokens"].values.chunks_exact(16);
    for (text, (found, golden)) in found.iter().zip(golden).enumerate() {
        // A tie may be broken the other way; from there on the pictures differ by right.
        let equal = found.iter().zip(golden).take_while(|(found, golden)| f64::from(**found) == **golden).count();
        let margin = expected["greedy_1_margin"].values.get(text * 16 + equal);
        assert!(equal == 16 || margin.is_some_and(|margin| *margin < 1e-2), "text {text}, token {equal}");
    }
    let folder = Folder::new();
    generate(&folder, &["--text-features", &file, "-o", "a/"]).lines();
    let text = read_png_text(&folder.path("a/000002.png")).unwrap();
    let told: Value = serde_json::from_str(&text[1].1).unwrap();
    let about = serde_json::json!([{ "image": 2, "text": 2, "text_features": "expected.safetensors" }]);
    assert_eq!(told["images"], about);
}

#[test]
fn nothing_and_too_much_are_prompts_too() {
    let folder = Folder::new();
    let run = generate(&folder, &["", "--codes", "c.safetensors"]);
    assert_eq!(run.lines(), ["sample_t2i.png", "c.safetensors"]);
    assert!(!run.stderr.contains("cut"), "{}", run.stderr);

    let long = "a red square on a white background and a blue circle ".repeat(20);
    let run = generate(&folder, &["a tree", &long]);
    run.lines();
    assert!(run.stderr.contains("note: prompt 2 is longer than 120 tokens and was cut: \"…"), "{}", run.stderr);
    let parts =
        run.stderr.split("was cut: \"…").nth(1).and_then(|rest| rest.split_once("\" | \"")).expect("both sides");
    let (kept, dropped) = (parts.0, parts.1.split('…').next().expect("an excerpt"));
    assert!(long.contains(&format!("{kept}{dropped}")), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_prompt_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("smalti");
    command.arg("generate").arg(std::ffi::OsStr::from_bytes(b"a \xff tree"));
    let output = command.args(["--gpt-ckpt", "a.pt", "--vq-ckpt", "b.pt"]).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("UTF-8"), "{told}");
}
