//! `smalti inspect` and `convert`.

use smalti::generate::Codes;

use super::program::{Folder, fixture, gpt, vq};

#[test]
fn inspect_shows_a_transformers_configuration_plan_and_floor() {
    let run = Folder::new().run(&["inspect", &gpt(), "--image-size", "64", "--bandwidth", "20", "--precision", "f32"]);
    let text = run.lines().join("\n");
    for part in [
        "18 tensors: 18 of f32, 2.37 MB",
        "class-conditional (c2i)",
        "n_head              2\n",
        "n_head 2 is a guess",
        "layers.0 to layers.1, 2 times:",
        "attention.wqkv  ",
        "norm_swiglu",
        "[2, 2, 2, 17, 64]",
        "memory: 2.4",
        "one step: 2.3",
        "all 16: ",
        " MFLOP; at least 0.1",
        " ms at 20 GB/s",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains("layers.0.attention.wqkv.weight"), "tensors unasked");
}

#[test]
fn inspect_lists_the_launches_of_a_card_that_is_not_there() {
    let folder = Folder::new();
    let text = folder.run(&["inspect", &gpt(), "--image-size", "64", "--device", "cuda"]).lines().join("\n");
    let row = |start: &str| {
        let row =
            text.lines().find(|line| line.trim().starts_with(start)).unwrap_or_else(|| panic!("{start} in {text}"));
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(text.contains("launches on a card of 132 multiprocessors, "), "{text}");
    let listed = text.split("launches on a card").nth(1).unwrap_or_default();
    let listed: Vec<String> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(listed.contains(&"tok_embeddings embed 2 x 1 x 1 128 x 1 x 1 0 B".to_string()), "{text}");
    assert!(row("heads ").contains("bf16"), "{text}");
    let text = folder.run(&["inspect", &vq(), "--image-size", "64", "--device", "cuda"]).lines().join("\n");
    assert_eq!(text.matches("launches on a card").count(), 2, "{text}");
}

#[test]
fn inspect_shows_both_halves_of_a_tokenizer() {
    let folder = Folder::new();
    let text = folder.run(&["inspect", &vq(), "--image-size", "64", "--tensors"]).lines().join("\n");
    for part in [
        "downsample_size     16",
        "plan vq_decoder: 64x64",
        "plan vq_encoder: 64x64",
        "codebook_lookup",
        "nearest_code",
        "quantize.embedding.weight",
        "[256, 8]",
        "one run: ",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn inspect_looks_into_text_models_and_files_of_no_model() {
    let folder = Folder::new();
    let text = folder.run(&["inspect", &fixture("golden/t2i/gpt.pt"), "--image-size", "64"]).lines().join("\n");
    for part in ["text-conditional (t2i)", "ops of a text of 20 tokens", "cap_proj.fc1", "prefix_mean", "one text: "] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let text = folder.run(&["inspect", &fixture("golden/t5"), "--bandwidth", "20"]).lines().join("\n");
    for part in
        ["T5 encoder", "d_model", "plan t5: 1 text of 20 tokens", "text_attention", "norm_gated_gelu", "one run: "]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }

    let other = folder.run(&["inspect", &fixture("golden/vq16/expected.safetensors"), "--tensors"]);
    assert_ne!(other.code, 0);
    assert!(other.stderr.contains("expected") && !other.stderr.contains("panicked"), "{}", other.stderr);
}

#[test]
fn a_converted_model_draws_the_same_codes() {
    let folder = Folder::new();
    let run = folder.run(&["convert", &gpt(), "gpt.safetensors"]);
    assert_eq!(run.lines(), ["gpt.safetensors"]);
    assert!(run.stderr.contains("n_head 2 is a guess") && run.stderr.contains("2.37 MB"), "{}", run.stderr);
    assert!(run.stderr.contains("  dim                 128\n"), "{}", run.stderr);
    folder.run(&["convert", &vq(), "vq.safetensors", "--quiet"]).lines();

    let draw = |gpt: &str, vq: &str, codes: &str| {
        let models = ["generate", "--gpt-ckpt", gpt, "--vq-ckpt", vq, "--image-size", "64", "--precision", "f32"];
        let run = folder.run(&[&models[..], &["--class", "1,2,3", "--codes", codes, "-o", "out.png"]].concat());
        run.lines();
        (Codes::read(&folder.path(codes)).unwrap().pictures, run.stderr)
    };
    let (original, _) = draw(&gpt(), &vq(), "a.safetensors");
    let (converted, told) = draw("gpt.safetensors", "vq.safetensors", "b.safetensors");
    assert_eq!(original, converted);
    assert!(!told.contains("guess"), "the head count is in the file: {told}");
}

#[test]
fn conversion_takes_a_type_a_head_count_and_a_set_of_weights() {
    let folder = Folder::new();
    let run = folder.run(&["convert", &gpt(), "half.safetensors", "--dtype", "bf16", "--n-head", "4"]);
    run.lines();
    assert!(!run.stderr.contains("guess"), "{}", run.stderr);
    let text = folder.run(&["inspect", "half.safetensors", "--image-size", "64"]).lines().join("\n");
    assert!(text.contains("18 of bf16") && text.contains("n_head              4\n"), "{text}");

    for (args, word) in
        [(["--weights", "ema"], "ema"), (["--dtype", "i64"], "possible values"), (["--n-head", "3"], "divisor")]
    {
        let run = folder.run(&[&["convert", &gpt(), "no.safetensors"], &args[..]].concat());
        assert_ne!(run.code, 0, "{args:?}");
        assert!(run.stderr.contains(word), "{word} in {}", run.stderr);
    }
    assert_eq!(folder.names(), ["half.safetensors"]);
}
