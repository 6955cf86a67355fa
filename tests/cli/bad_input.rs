//! Bad input: the exit code, the words of the message, and nothing left behind.

use std::fs;

use safetensors::tensor::{Dtype, TensorView};
use smalti::backend::cuda::{driver, kernels};
use smalti::checkpoint::{DType, Entry, write_random};
use smalti::config::T5Config;
use smalti::generate::Codes;
use smalti::image::{Rgb8, write_png};

use super::common;
use super::program::{Folder, fixture, gpt, vq};

/// Runs that must fail: arguments, exit code, words on standard error.
type Cases<'a> = &'a [(&'a [&'a str], i32, &'a [&'a str])];

/// Runs each case in a folder where `given` files lie and nothing else may lie afterwards.
#[track_caller]
fn all_fail(folder: &Folder, before: &[&str], cases: Cases) {
    let given = folder.names();
    for (args, code, words) in cases {
        let run = folder.run(&[before, args].concat());
        assert_eq!(run.code, *code, "{args:?}: {}", run.stderr);
        for word in *words {
            assert!(run.stderr.contains(word), "{args:?}: {word:?} in {}", run.stderr);
        }
        assert!(!run.stderr.contains("panicked"), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        assert_eq!(folder.names(), given, "{args:?} left something");
    }
}

#[test]
fn options_out_of_range() {
    let (gpt, vq) = (gpt(), vq());
    let models = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq];
    let good = ["--image-size", "64", "--class", "1"];
    all_fail(
        &Folder::new(),
        &[&models[..], &good].concat(),
        &[
            (&["--temperature", "NaN"], 2, &["--temperature", "NaN", "expected a number"]),
            (&["--temperature", "-1"], 2, &["--temperature -1", "expected a number of 0 or more", "--greedy"]),
            (&["--temperature", "inf"], 2, &["--temperature inf"]),
            (&["--top-k", "-5"], 2, &["--top-k -5", "0 (all codes) or more"]),
            (&["--top-p", "0"], 2, &["--top-p 0", "above 0 and at most 1"]),
            (&["--top-p", "1.5"], 2, &["--top-p 1.5", "above 0 and at most 1"]),
            (&["--top-p", "NaN"], 2, &["--top-p NaN"]),
            (&["--cfg-scale", "inf"], 2, &["--cfg-scale inf", "finite"]),
            (&["--cfg-interval", "-2"], 2, &["--cfg-interval -2", "-1"]),
            (&["--seed", "-1"], 2, &["invalid value '-1'", "--seed"]),
            (&["--count", "-1"], 2, &["invalid value '-1'", "--count"]),
            (&["--count", "0"], 2, &["--count 0", "1 or more"]),
            (&["--count", "99999999999999999"], 2, &["--count", "at most", "--first-image"]),
            (&["--batch-size", "0"], 2, &["--batch-size 0", "1 or more"]),
            (&["--batch-size", "999999999999"], 1, &["B of memory", "--batch-size"]),
            (&["--lookahead", "0"], 2, &["--lookahead 0", "auto or 1 to 16"]),
            (&["--lookahead", "-3"], 2, &["--lookahead -3", "auto or 1 to 16"]),
            (&["--lookahead", "17"], 2, &["--lookahead 17", "auto or 1 to 16"]),
            (&["--lookahead", "wide"], 2, &["--lookahead wide", "auto or 1 to 16"]),
            (&["--first-image", "18446744073709551615"], 2, &["--first-image", "room"]),
            (&["--threads", "100000"], 2, &["--threads 100000", "at most"]),
            (&["--device", "cuda", "--precision", "f32"], 2, &["--precision f32", "expected bf16", "--device cpu"]),
            (&["--device", "toaster"], 2, &["toaster", "auto, cpu, cuda"]),
            (&["--precision", "f8"], 2, &["f8", "bf16", "f32"]),
            (&["--n-head", "3"], 2, &["--n-head 3", "divisor of dim 128"]),
            (&["--n-head", "0"], 2, &["--n-head 0"]),
            (&["--weights", "ema"], 1, &["gpt.pt", "`ema`"]),
        ],
    );
    all_fail(
        &Folder::new(),
        &models,
        &[
            (&["--class", "10", "--image-size", "64"], 2, &["--class 10", "0 to 9"]),
            (&["--class", "-1", "--image-size", "64"], 2, &["--class -1", "0 to 9"]),
            (&["--class", "1,,2", "--image-size", "64"], 2, &["--class", "0 to 9"]),
            (&["--class", "cat", "--image-size", "64"], 2, &["--class cat", "no class names"]),
            (&["--image-size", "64"], 2, &["--class (missing)", "0 to 9"]),
            (&["--class", "1", "--image-size", "60"], 2, &["--image-size 60", "multiple of 16", "48 fits"]),
            (&["--class", "1", "--image-size", "0"], 2, &["--image-size 0", "multiple of 16"]),
            (&["--class", "1", "--image-size", "1000000000000000"], 2, &["--image-size 1000000000000000"]),
        ],
    );
}

/// What there is of CUDA differs from machine to machine; each lacks something that can be asked for.
#[test]
fn cards_that_cannot_be_used() {
    let (gpt, vq) = (gpt(), vq());
    let generate = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64", "--class", "1"];
    let words: &[&str] = match (kernels::MODULES.is_empty(), driver::seems_present()) {
        (true, _) => &["built without CUDA kernels", "nvcc", "CUDA_HOME", "--device cpu"],
        (false, false) => &["no CUDA driver", "install NVIDIA's driver", "--device cpu"],
        (false, true) => &["hint: "],
    };
    let folder = Folder::new();
    let none = &[&["error: cuda:9"], words].concat()[..];
    all_fail(
        &folder,
        &[],
        &[
            (&[&generate[..], &["--device", "cuda:9"]].concat(), 1, none),
            (&["encode", &fixture("golden/vq16/input_0.png"), "--vq-ckpt", &vq, "--device", "cuda:9"], 1, none),
            (&["bench", "vq", "--device", "cuda:9"], 1, none),
            (&["bench", "step", "--precision", "f32", "--device", "cuda"], 2, &["--precision f32", "expected bf16"]),
            (&["inspect", &gpt, "--precision", "f32", "--device", "cuda"], 2, &["--precision f32", "expected bf16"]),
        ],
    );
    if !driver::seems_present() {
        all_fail(&folder, &generate, &[(&["--device", "cuda"], 1, &[&["error: cuda:0"], words].concat())]);
    }
}

/// `--device auto` says nothing of a GPU where there is none, and runs.
#[test]
fn without_a_driver_the_cpu_runs_and_nothing_is_said_of_it() {
    if driver::seems_present() {
        return common::skip("a machine without a GPU's driver", "this one has a driver");
    }
    let folder = Folder::new();
    let run = folder.generate(&["--class", "1", "--quiet"]);
    assert_eq!((run.lines(), run.stderr.as_str()), (vec!["sample_c2i.png"], ""));
}

#[test]
fn models_that_cannot_be_used() {
    let (gpt, vq, vq8, t2i) = (gpt(), vq(), fixture("golden/vq8/vq.pt"), fixture("golden/t2i/gpt.pt"));
    let folder = Folder::new();
    let whole = fs::read(&gpt).unwrap();
    fs::write(folder.path("cut.pt"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.path("text.pt"), "hello").unwrap();
    fs::write(folder.path("empty.pt"), "").unwrap();
    let good = ["generate", "--image-size", "64", "--class", "1"];
    all_fail(
        &folder,
        &good,
        &[
            (&["--gpt-ckpt", "none.pt", "--vq-ckpt", &vq], 1, &["cannot open none.pt", "check the path"]),
            (&["--gpt-ckpt", &gpt, "--vq-ckpt", "none.pt"], 1, &["cannot open none.pt"]),
            (&["--gpt-ckpt", &gpt, "--vq-ckpt", &vq8], 1, &["256 and 300", "VQ checkpoint", "vq8"]),
            (&["--gpt-ckpt", &vq, "--vq-ckpt", &gpt], 1, &["vq.pt", "expected a GPT checkpoint"]),
            (&["--gpt-ckpt", &t2i, "--vq-ckpt", &vq], 2, &["--class 1", "a prompt", "text-conditional (t2i)"]),
            (&["--gpt-ckpt", "cut.pt", "--vq-ckpt", &vq], 1, &["cut.pt", "hint"]),
            (&["--gpt-ckpt", "text.pt", "--vq-ckpt", &vq], 1, &["text.pt", "neither safetensors nor"]),
            (&["--gpt-ckpt", "empty.pt", "--vq-ckpt", &vq], 1, &["empty.pt", "empty"]),
            (&["--vq-ckpt", &vq], 2, &["--gpt-ckpt"]),
        ],
    );
    all_fail(
        &folder,
        &[],
        &[
            (&["convert", "none.pt", "out.safetensors"], 1, &["none.pt"]),
            (&["convert", "cut.pt", "out.safetensors"], 1, &["cut.pt"]),
            (&["inspect", "none.pt"], 1, &["none.pt"]),
            (&["inspect", "."], 1, &["not a usable Hub folder: expected"]),
            (&["bench", "step", "--rounds", "0"], 2, &["--rounds 0", "1 to"]),
            (&["bench", "vq", "--rounds", "0"], 2, &["--rounds 0", "1 to"]),
            (&["bench", "step", "--images", "-1"], 2, &["invalid value '-1'", "--images"]),
            (&["bench", "text", "--tokens", "0"], 2, &["--tokens 0", "1 to"]),
            (&["bench", "text", "--t5-path", &gpt], 1, &["gpt.pt", "shared.weight"]),
            (&["bench", "vq", "--image-size", "16"], 2, &["--image-size 16", "from 32 to"]),
            (&["bench", "latency", "--size", "Q"], 2, &["--size Q", "one of B, L"]),
            (&["bench", "latency", "--size", "7B", "--lookahead", "257"], 2, &["--lookahead 257", "1 to 256"]),
            (&["bench", "latency", "--batch-size", "1,0"], 2, &["--batch-size 0", "1 to"]),
            (&["bench", "latency", "--gpt-ckpt", &gpt], 2, &["--vq-ckpt"]),
            (&["bench", "throughput", "--batch-size", "8", "--num-images", "4"], 2, &["--num-images 4", "at least 8"]),
            (&["bench", "kernels", "--rounds", "0"], 2, &["--rounds 0", "1 to"]),
            (&["bench", "serve", "--request-rate", "0"], 2, &["--request-rate 0", "above 0"]),
            (&["bench", "serve", "--goodput", "itl:5"], 2, &["itl:5", "as e2el:500"]),
            (&["bench", "serve", "--goodput", "e2el:5,tpot:5"], 2, &["--goodput tpot", "--partial-images 1"]),
            (&["bench", "kernels", "--part", "vq-encode", "--vq-precision", "f32"], 2, &["only with --part vq"]),
            (&["bench", "kernels", "--part", "vq", "--lookahead", "2"], 2, &["--lookahead 2", "--part step"]),
            (&["bench", "kernels", "--image-size", "64", "--lookahead", "9"], 2, &["--lookahead 9", "1 to 8"]),
            (&["bench", "serve", "--partial-images", "4"], 2, &["--partial-images 4", "0 to 3"]),
            (&["bench", "serve", "--url", "https://a"], 2, &["--url https://a", "http://host:port"]),
            (&["bench", "plot"], 2, &["<FILE>"]),
            (&["bench", "plot", "some.jsonl", "-o", "some.png"], 2, &["--output some.png", "ends in .svg"]),
            (&["bench", "plot", "nothing.jsonl"], 1, &["nothing.jsonl", "check the path"]),
            (&["inspect", &gpt, "--batch-size", "0"], 2, &["--batch-size 0"]),
            (&["inspect", &gpt, "--bandwidth", "0"], 2, &["--bandwidth 0"]),
            (&["inspect", &gpt, "--downsample-size", "0"], 2, &["--downsample-size 0"]),
        ],
    );
}

#[test]
fn prompts_and_encoders_that_cannot_be_used() {
    let (gpt, vq, t2i, t5) = (gpt(), vq(), fixture("golden/t2i/gpt.pt"), fixture("golden/t5"));
    let folder = Folder::new();
    let copy = |to: &str, names: &[(&str, &str)]| {
        fs::create_dir(folder.path(to)).unwrap();
        for (from, name) in names {
            fs::copy(format!("{t5}/{from}"), folder.path(to).join(name)).unwrap();
        }
    };
    let (shards, tokenizer) =
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "tokenizer.json");
    copy("no_tokenizer", &[("config.json", "config.json"), (shards[0], "model.safetensors")]);
    copy("no_weights", &[("config.json", "config.json"), (tokenizer, tokenizer)]);
    copy("half", &[(shards[0], "model.safetensors"), (tokenizer, tokenizer)]);
    let index = "model.safetensors.index.json";
    copy("no_shard", &[(shards[0], shards[0]), (index, index), (tokenizer, tokenizer)]);
    copy("first_form", &[(shards[0], "model.safetensors"), (tokenizer, tokenizer)]);
    fs::write(folder.path("first_form/config.json"), r#"{ "model_type": "t5", "feed_forward_proj": "relu" }"#).unwrap();
    copy("narrow", &[(tokenizer, tokenizer)]);
    let config =
        T5Config { d_model: 32, d_kv: 8, num_heads: 2, d_ff: 16, num_layers: 1, vocab_size: 125, ..T5Config::xl() };
    let entries = Entry::all(config.tensors(), DType::F32);
    write_random(&folder.path("narrow/model.safetensors"), &entries, &Default::default(), 0).unwrap();
    fs::write(folder.path("latin.txt"), b"a tree\na caf\xe9\n").unwrap();
    fs::write(folder.path("blank.txt"), "\n  \n").unwrap();
    fs::write(folder.path("text.txt"), "a tree\n").unwrap();

    let t5_of = |name: &'static str| ["a tree", "--gpt-ckpt", &t2i, "--t5-path", name];
    let with = |more: &[&'static str]| [&["--gpt-ckpt", t2i.as_str(), "--t5-path", &t5][..], more].concat();
    all_fail(
        &folder,
        &["generate", "--vq-ckpt", &vq, "--image-size", "64"],
        &[
            (&["a tree", "--gpt-ckpt", &gpt], 2, &["PROMPT a tree", "--class", "class-conditional (c2i)", "t2i"]),
            (&["--prompts", "text.txt", "--gpt-ckpt", &gpt], 2, &["--prompts text.txt", "c2i"]),
            (&["--text-features", "text.txt", "--gpt-ckpt", &gpt], 2, &["--text-features text.txt", "c2i"]),
            (&["--class", "1", "--gpt-ckpt", &t2i], 2, &["--class 1", "a prompt", "text-conditional (t2i)"]),
            (&["--gpt-ckpt", &t2i], 2, &["PROMPT (missing)", "--prompts", "--text-features"]),
            (&["a tree", "--gpt-ckpt", &t2i], 2, &["--t5-path (missing)", "flan-t5-xl"]),
            (&t5_of("none"), 1, &["cannot open none", "check the path"]),
            (&t5_of("text.txt"), 1, &["text.txt"]),
            (&t5_of("no_tokenizer"), 1, &["no_tokenizer", "tokenizer.json"]),
            (&t5_of("no_weights"), 1, &["no_weights", "not a usable Hub folder: expected model.safetensors"]),
            (&t5_of("no_shard"), 1, &["model-00002-of-00002.safetensors"]),
            (&t5_of("half"), 1, &["half", "`encoder.final_layer_norm.weight`", "no such tensor"]),
            (&t5_of("first_form"), 1, &["first_form", "`feed_forward_proj`", "`gated-gelu`", "found `relu`"]),
            (&t5_of("narrow"), 1, &["narrow: d_model", "expected 48, the caption_dim", "found 32"]),
            (&with(&["--prompts", "none.txt"]), 1, &["cannot read none.txt"]),
            (&with(&["--prompts", "latin.txt"]), 1, &["latin.txt", "line 2 is not UTF-8", "UTF-8"]),
            (&with(&["--prompts", "blank.txt"]), 1, &["blank.txt", "found none"]),
            (&with(&["a tree", "--prompts", "text.txt"]), 2, &["cannot be used with"]),
            (&with(&["a tree", "--class", "1"]), 2, &["--class", "cannot be used with"]),
            (&with(&["--prompts", "text.txt", "--class", "1"]), 2, &["--class", "cannot be used with"]),
            (&with(&["--text-features", "text.txt", "--class", "1"]), 2, &["--class", "cannot be used with"]),
            (&with(&["a tree", "--text-features", "text.txt"]), 2, &["cannot be used with"]),
            (&with(&["--text-features", "text.txt"]), 1, &["text.txt: not a usable text features file", "hint"]),
            (&with(&["a tree", "--text-device", "toaster"]), 2, &["toaster", "auto, cpu, cuda"]),
            (
                &with(&["a tree", "--text-device", "cuda", "--precision", "f32"]),
                2,
                &["--precision f32", "expected bf16"],
            ),
        ],
    );
    let features = |name: &str, shape: [usize; 3], valid: bool| {
        let values = vec![0.5f32; shape.iter().product()];
        let mask = vec![i32::from(valid); shape[0] * shape[1]];
        let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        let tensors = [
            ("caption_embeddings", view(Dtype::F32, &shape, bytemuck::cast_slice(&values))),
            ("caption_mask", view(Dtype::I32, &shape[..2], bytemuck::cast_slice(&mask))),
        ];
        fs::write(folder.path(name), safetensors::serialize(tensors, None).unwrap()).unwrap();
    };
    features("wide", [1, 2, 64], true);
    features("long", [1, 121, 48], true);
    features("empty", [1, 2, 48], false);
    all_fail(
        &folder,
        &["generate", "--vq-ckpt", &vq, "--image-size", "64", "--gpt-ckpt", &t2i, "--text-features"],
        &[
            (&["none"], 1, &["cannot read none"]),
            (&["wide"], 1, &["expected 48, the transformer's caption_dim", "found 64"]),
            (&["long"], 1, &["at most 120", "found 121"]),
            (&["empty"], 1, &["text 0 has no valid place"]),
            (&[&fixture("golden/t5/expected.safetensors")], 1, &["it has no tensor `caption_embeddings`"]),
        ],
    );
}

#[test]
fn places_that_cannot_be_written() {
    let (gpt, vq, input) = (gpt(), vq(), fixture("golden/vq16/input_0.png"));
    let folder = Folder::new();
    fs::write(folder.path("file"), "mine").unwrap();
    fs::create_dir(folder.path("folder")).unwrap();
    let generate = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64", "--class", "1"];
    all_fail(
        &folder,
        &generate,
        &[
            (&["-o", "none/a.png"], 2, &["--output none/a.png", "found no none", "make the folder first"]),
            (&["-o", "file/a.png"], 2, &["--output file/a.png", "found the file file"]),
            (&["-o", "file/"], 2, &["--output file/", "folder"]),
            (&["-o", "file/deep/"], 2, &["--output file/deep/", "folder"]),
            (&["-o", ""], 2, &["--output", "a value is required"]),
            (&["--codes", "none/c.safetensors"], 2, &["--codes none/c.safetensors"]),
            (&["--codes", "folder"], 2, &["--codes folder", "found a folder"]),
            (&["--codes", "a.png", "-o", "a.png"], 2, &["--codes a.png", "another file"]),
            (&["--codes", "./a.png", "-o", "a.png"], 2, &["--codes ./a.png", "another file"]),
            (&["--codes", "a.png", "-o", "folder/../a.png"], 2, &["--codes a.png", "another file"]),
            (&["--codes", "folder/000000.png", "-o", "./folder"], 2, &["--codes folder/000000.png", "another file"]),
            (&["--codes", "folder/000003.png", "-o", "folder/", "--first-image", "3"], 2, &["another file"]),
        ],
    );
    all_fail(
        &folder,
        &[],
        &[
            (&["encode", &input, "--vq-ckpt", &vq, "-o", "none/c.safetensors"], 2, &["none"]),
            (&["reconstruct", &input, "--vq-ckpt", &vq, "-o", "none/c.png"], 2, &["none"]),
            (&["convert", &gpt, "none/c.safetensors"], 2, &["none"]),
            (&["convert", &gpt, "folder"], 2, &["error: OUT folder", "found a folder"]),
        ],
    );
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"mine");
}

#[test]
fn pictures_and_codes_that_cannot_be_used() {
    let (vq, vq8) = (vq(), fixture("golden/vq8/vq.pt"));
    let folder = Folder::new();
    let image = |name: &str| fixture(&format!("data/images/{name}"));
    let good = fixture("golden/vq16/input_0.png");
    write_png(&folder.path("small.png"), &Rgb8::filled(32, 32, [9; 3]).unwrap(), &[]).unwrap();
    fs::write(folder.path("text.png"), "hello").unwrap();
    fs::write(folder.path("cut.png"), &fs::read(&good).unwrap()[..3000]).unwrap();
    fs::write(folder.path("huge.png"), b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x40\0\0\0\x40\0").unwrap();
    let codes = Codes { latent: (1, 2), pictures: vec![vec![0, 255], vec![299, 7]], metadata: Default::default() };
    codes.write(&folder.path("of_300.safetensors")).unwrap();
    for command in ["encode", "reconstruct"] {
        all_fail(
            &folder,
            &[command, "--vq-ckpt", &vq],
            &[
                (&["none.png"], 1, &["cannot open none.png"]),
                (&["text.png"], 1, &["text.png", "not a usable PNG or JPEG file"]),
                (&["cut.png"], 1, &["cut.png", "damaged"]),
                (&["huge.png"], 1, &["huge.png", "16384 x 16384"]),
                (&[&image("cmyk.jpg")], 1, &["cmyk.jpg", "CMYK", "convert it"]),
                (&[&image("picture.gif")], 1, &["picture.gif", "GIF"]),
                (&[&image("crop_source.png")], 1, &["divisible by 16", "--image-size"]),
                (&[&good, "small.png"], 1, &["small.png", "64x64", "32x32", "--image-size 32"]),
                (&["small.png", "--image-size", "20"], 2, &["--image-size 20", "multiple of 16"]),
                (&["small.png", "--image-size", "0"], 2, &["--image-size 0"]),
                (&[], 2, &["IMAGE"]),
            ],
        );
    }
    all_fail(
        &folder,
        &["decode", "--vq-ckpt", &vq],
        &[
            (&["none.safetensors"], 1, &["none.safetensors"]),
            (&["text.png"], 1, &["text.png", "not a usable codes file"]),
            (&[&fixture("golden/t5/model-00001-of-00002.safetensors")], 1, &["model-00001", "`codes`"]),
            (&["of_300.safetensors"], 1, &["codes of picture 1", "0 to 255", "found 299"]),
        ],
    );
    folder.run(&["decode", "of_300.safetensors", "--vq-ckpt", &vq8, "-o", "fine.png"]).lines();
}

#[test]
fn instructions_that_no_processor_has() {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("smalti");
    command.env("SMALTI_CPU", "bogus").args(["bench", "vq", "--device", "cpu"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("error: SMALTI_CPU bogus") && text.contains("portable"), "{text}");
}

/// `/dev/full` answers every write as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure_and_devices_stay_devices() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return common::skip("a full disk", "there is no /dev/full");
    }
    let (gpt, vq, input) = (gpt(), vq(), fixture("golden/vq16/input_0.png"));
    let generate = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64", "--class", "1"];
    let folder = Folder::new();
    let words: &[&str] = &["cannot write /dev/full", "No space left", "make room"];
    all_fail(
        &folder,
        &[],
        &[
            (&[&generate[..], &["-o", "/dev/full"]].concat(), 1, words),
            (&["encode", &input, "--vq-ckpt", &vq, "-o", "/dev/full"], 1, words),
            (&["reconstruct", &input, "--vq-ckpt", &vq, "-q", "-o", "/dev/full"], 1, words),
            (&["convert", &gpt, "/dev/full"], 1, words),
        ],
    );
    assert!(!fs::metadata(full).unwrap().is_file());

    let out = fs::OpenOptions::new().write(true).open(full).unwrap();
    let program = assert_cmd::cargo::cargo_bin!("smalti");
    let output = std::process::Command::new(program).args(["inspect", &gpt]).stdout(out).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{output:?}");
}
