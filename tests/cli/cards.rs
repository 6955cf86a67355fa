//! `--device cuda`, by the driver of `smalti_simt`, whose card is the SIMT executor: what the program says of cards that
//! it cannot use, and that no setting changes what it draws.

use smalti::backend::cuda::kernels;
use smalti::generate::Codes;

use crate::common::card;
use crate::program::{Folder, Run, gpt, vq};

/// Runs the program where it finds a card of these properties.
fn run(folder: &Folder, card: &str, variables: &[(&str, &str)], args: &[&str]) -> Option<Run> {
    let own = card::variables("the program on a card", card)?;
    let own = own.each_ref().map(|(name, value)| (*name, value.as_str()));
    let run = folder.run_with(&[&own, variables].concat(), args);
    assert!(!run.stderr.contains("libcuda: "), "the driver was misused: {}", run.stderr);
    Some(run)
}

/// Three pictures of 16 codes on a card of these properties.
fn draw(folder: &Folder, card: &str, variables: &[(&str, &str)], device: &str) -> Option<Run> {
    let (gpt, vq) = (gpt(), vq());
    let models = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64"];
    let what =
        ["--class", "1", "--count", "3", "--batch-size", "2", "--seed", "3", "--codes", "a.codes", "-o", "a.png"];
    run(folder, card, variables, &[&models[..], &what, &["--device", device]].concat())
}

#[test]
fn no_way_of_launching_changes_a_picture() {
    let mut expected = None;
    for (card, variables, device) in [
        ("", [].as_slice(), "cuda"),
        ("", &[("SMALTI_CUDA_EAGER", "1")], "cuda"),
        ("", &[("SMALTI_CUDA_OVERLAP", "0")], "cuda"),
        ("", &[("SMALTI_CUDA_CARVEOUT", "50")], "cuda"),
        ("multiprocessors=132 cards=2", &[], "cuda:1"),
        ("pages=0", &[], "cuda"),
        // What a card of compute capability 8.9 lets a block have.
        ("multiprocessors=7 shared_bytes=101376", &[], "cuda:0"),
    ] {
        let folder = Folder::new();
        let Some(run) = draw(&folder, card, variables, device) else { return };
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("SIMT executor "), "{}", run.stderr);
        let files = folder.files();
        assert_eq!(folder.names(), ["a.codes", "a.png"]);
        match &expected {
            None => expected = Some(files),
            Some(expected) => assert!(files == *expected, "{card} {variables:?} {device}: other files"),
        }
    }
}

#[test]
fn cards_without_overlapping_launches_draw_the_same() {
    let folder = Folder::new();
    let Some(hopper) = draw(&folder, "", &[], "cuda") else { return };
    assert_eq!(hopper.code, 0, "{}", hopper.stderr);
    let expected = Codes::read(&folder.path("a.codes")).expect("codes");
    let ampere = draw(&folder, "major=8 minor=0", &[], "cuda").expect("as above");
    match kernels::TARGETS.contains(&"80") {
        true => {
            assert_eq!(ampere.code, 0, "{}", ampere.stderr);
            assert_eq!(Codes::read(&folder.path("a.codes")).expect("codes"), expected);
        }
        false => assert!(ampere.stderr.contains("it has compute capability 8.0, this program's kernels are for")),
    }
}

#[test]
fn what_a_card_lacks_is_told_before_anything_is_drawn() {
    for (card, device, expected) in [
        ("cards=0", "cuda", "CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)\nhint: check that `nvidia-smi`"),
        ("cards=2", "cuda:2", "there are 2 NVIDIA GPUs, cuda:0 to cuda:1\nhint: `nvidia-smi` lists the cards"),
        ("driver=12040", "cuda", "the driver is for CUDA 12.4, this program needs one for"),
        ("major=7 minor=5", "cuda", "it has compute capability 7.5; 8.0 is the least (Ampere)"),
        ("memory_bytes=268500000", "cuda", " kB are free\nhint: use a smaller --image-size"),
    ] {
        let folder = Folder::new();
        let Some(run) = draw(&folder, card, &[], device) else { return };
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains(expected), "{card}: {}", run.stderr);
        assert_eq!(folder.names(), [""; 0], "{card}: nothing is left");
    }
}

#[test]
fn a_fault_leaves_no_picture_and_its_launch_can_be_found() {
    let folder = Folder::new();
    let Some(run) = draw(&folder, "fault=100", &[], "cuda") else { return };
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && run.stderr.contains("SMALTI_CUDA_EAGER=1"));
    assert_eq!(folder.names(), [""; 0]);
    let run = draw(&folder, "fault=100", &[("SMALTI_CUDA_EAGER", "1")], "cuda").expect("as above");
    assert_eq!(run.code, 1, "{}", run.stderr);
    for part in ["running `", "kernel ", "grid ", "CUDA_ERROR_ILLEGAL_ADDRESS"] {
        assert!(run.stderr.contains(part), "{part} in {}", run.stderr);
    }
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_card_is_measured_as_the_processor_is() {
    let (folder, gpt, vq) = (Folder::new(), gpt(), vq());
    let models = ["bench", "latency", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64", "--device", "cuda"];
    let args = [&models[..], &["--warmup", "1", "--rounds", "1", "--json"]].concat();
    let Some(run) = run(&folder, "rate=0", &[], &args) else { return };
    let record: serde_json::Value = serde_json::from_str(run.lines()[0]).expect("JSON");
    assert!(record["device"].as_str().expect("a name").contains("SIMT executor"));
    for key in ["bytes", "flops", "bandwidth", "arithmetic", "floor_seconds"] {
        assert!(record["step"][key].as_f64().expect("a number") > 0.0, "{key} of {record}");
    }
    // The card's memory, not the program's.
    let peak = record["peak_memory_bytes"].as_u64().expect("bytes");
    assert!((1 << 20..64 << 20).contains(&peak), "{peak}");
}
