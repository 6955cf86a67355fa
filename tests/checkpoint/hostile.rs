//! Random and mutated files: never a panic, never memory out of proportion, and views that read right.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use smalti::checkpoint::{Bytes, Checkpoint, DType, Tensor, WeightsChoice};
use smalti::config::ModelConfig;

use crate::files::{Pickle, Scratch, data, has, refusal, safetensors, torch, zip};

/// The system's allocator, with a note of the largest request of each thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(layout: Layout) {
    LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
}

// SAFETY: every call goes to the system's allocator unchanged; `note` does not allocate.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The largest single allocation that a small file may cause, and that each byte of a larger one may: an
/// opcode of one byte makes a container of 64, in a list that doubles as it grows.
const MOST: usize = 4 << 20;
const MOST_PER_BYTE: usize = 128;

/// All that can be done with a file of unknown bytes. Panics on nothing but wild allocations.
fn survive(bytes: &[u8]) {
    let scratch = Scratch::new(bytes);
    LARGEST.with(|largest| largest.set(0));
    for choice in [WeightsChoice::Model, WeightsChoice::Ema] {
        if let Ok(checkpoint) = Checkpoint::open(&scratch.path, choice) {
            let _ = ModelConfig::detect(&checkpoint, None);
            for tensor in checkpoint.tensors().values() {
                assert_eq!(tensor.to_f32().len(), tensor.len());
            }
        }
    }
    let largest = LARGEST.with(Cell::get);
    assert!(largest <= MOST.max(MOST_PER_BYTE * bytes.len()), "{} bytes asked for {largest}", bytes.len());
}

/// A small file of each format.
fn seeds() -> Vec<Vec<u8>> {
    let read = |file: &str| std::fs::read(data(Path::new("data").join(file).to_str().unwrap())).unwrap();
    let header = r#"{"__metadata__":{"n_head":"2"},"tok_embeddings.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"layers.0.feed_forward.w1.weight":{"dtype":"BF16","shape":[4,1],"data_offsets":[8,16]}}"#;
    vec![
        read("training.pt"),
        read("protocol_2.pt"),
        read("protocol_4.pt"),
        read("legacy.pt"),
        read("torchscript.pt"),
        safetensors(header, &[0; 16]),
    ]
}

/// Changes of single bytes; the place as a share of the length.
fn mutated(mut bytes: Vec<u8>, changes: &[(f64, u8)], kept: f64) -> Vec<u8> {
    for &(place, byte) in changes {
        let at = (place * bytes.len() as f64) as usize;
        bytes[at] = byte;
    }
    bytes.truncate((kept * bytes.len() as f64).ceil() as usize);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_files(bytes in vec(any::<u8>(), 0..300), start in 0..4usize) {
        let magic: [&[u8]; 4] = [b"", b"PK\x03\x04", b"\x80\x02", b"\x20\0\0\0\0\0\0\0{"];
        survive(&[magic[start], &bytes].concat());
    }

    #[test]
    fn random_pickles(bytes in vec(any::<u8>(), 0..200)) {
        survive(&torch(&bytes, &[0; 64]));
    }

    #[test]
    fn pickles_of_known_opcodes(ops in vec((prop::sample::select(OPCODES), any::<u8>()), 0..80)) {
        let program: Vec<u8> = ops.into_iter().flat_map(|(opcode, byte)| [opcode, byte % 4]).collect();
        survive(&torch(&program, &[0; 64]));
    }

    #[test]
    fn random_headers(header in "[{}\\[\\]\":,a-z0-9]{0,80}", bytes in vec(any::<u8>(), 0..20)) {
        survive(&safetensors(&format!("{{{header}"), &bytes));
    }

    #[test]
    fn mutated_files(seed in 0..6usize, changes in vec((0.0..1.0f64, any::<u8>()), 1..6), kept in prop_oneof![3 => Just(1.0f64), 1 => 0.0..1.0f64]) {
        survive(&mutated(seeds()[seed].clone(), &changes, kept));
    }

    #[test]
    fn mutated_pickles(changes in vec((0.0..1.0f64, any::<u8>()), 1..4)) {
        let pickle = Pickle::new().op("}").text("model").op("}").text("x").tensor("FloatStorage", 16, 1, &[3, 5], &[5, 1]).op("ss").end();
        survive(&torch(&mutated(pickle, &changes, 1.0), &[0; 64]));
    }

    #[test]
    fn views_read_right(shape in vec(0..5usize, 0..5), strides in vec(0..30usize, 5), start in 0..7usize, turn in any::<bool>()) {
        let strides = &strides[..shape.len()];
        let values: Vec<f32> = (0..150).map(|i| i as f32).collect();
        let bytes = Bytes::Owned(Arc::new(values.iter().flat_map(|x| x.to_le_bytes()).collect()));
        let view = Tensor::strided(DType::F32, shape.clone(), strides.to_vec(), bytes.clone(), 4 * start);
        // Every index in order, by division instead of by counting up.
        let count: usize = shape.iter().product();
        let at = |mut index: usize| {
            let mut at = start;
            for (&extent, &stride) in shape.iter().zip(strides).rev() {
                at += index % extent * stride;
                index /= extent;
            }
            at
        };
        let fits = (0..count).all(|index| at(index) < values.len());
        prop_assert_eq!(view.is_some(), fits);
        if let Some(view) = view {
            let expected: Vec<f32> = (0..count).map(|index| values[at(index)]).collect();
            prop_assert_eq!(view.to_f32(), expected.clone());
            if let Some(bytes) = view.bytes() {
                let plain: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                prop_assert_eq!(plain, expected);
            }
        }
        if turn && shape.len() == 2 {
            let plain = Tensor::contiguous(DType::F32, shape.clone(), bytes, 0).unwrap();
            prop_assert_eq!(plain.to_f32(), values[..count].to_vec());
        }
    }
}

/// Opcodes that the machine knows, for programs that get further than random bytes.
const OPCODES: &[u8] = b"(012NKM\x88\x89\x8a)]}tl\x85\x86\x87dasue\x8f\x90\x91qh\x94R\x81bQ\x93";

#[test]
fn deep_nesting_needs_no_stack() {
    // [[[[…]]]], a dict that contains itself, and a tuple of a tuple of …
    let deep = Pickle::new().op(vec![b']'; 300_000]).op(vec![b'a'; 299_999]).end();
    has(&refusal(&torch(&deep, &[])), &["list"]);
    survive(&torch(&Pickle::new().op("}q\0").text("model").op("h\0s").end(), &[]));
    survive(&torch(&Pickle::new().op(")").op(vec![0x85; 300_000]).end(), &[]));
}

#[test]
fn copies_of_copies_are_bounded() {
    // A list of 10 000 pairs in the memo, made into a dict again and again.
    let pickle = Pickle::new().op("](");
    let pickle = (0..10_000).fold(pickle, |pickle, _| pickle.op([b'K', 1, b'K', 2, 0x86]));
    let pickle = pickle.op([b'e', 0x85, b'q', 0]).global("collections", "OrderedDict").op([b'q', 1]);
    let pickle = (0..100_000).fold(pickle, |pickle, _| pickle.op(b"h\x01h\0R0"));
    has(&refusal(&torch(&pickle.end(), &[])), &["more than", "values"]);
    // Values that only ever pile up.
    has(&refusal(&torch(&Pickle::new().op(vec![b'N'; 3 << 20]).end(), &[])), &["more than", "values"]);
    has(&refusal(&torch(&Pickle::new().op(vec![b'('; 3 << 20]).end(), &[])), &["more than", "values"]);
}

#[test]
fn errors_stay_short_and_plain() {
    let name = format!("\x1b[31m{}", "x".repeat(100_000));
    for pickle in [
        Pickle::new().op("}").text(&name).int(1).op("s").end(),
        Pickle::new().global(&name, &name).op(")R").end(),
        Pickle::new().global("collections", &name).op("N").op("R").end(),
    ] {
        let text = refusal(&torch(&pickle, &[]));
        assert!(text.len() < 4000 && !text.contains('\x1b'), "{text}");
    }
}

#[test]
fn a_huge_pickle_is_refused_unread() {
    let pickle = vec![0; (32 << 20) + 1];
    has(&refusal(&zip(&[("a/data.pkl", 0, &pickle)])), &["data.pkl", "at most"]);
}

#[test]
fn every_prefix_of_a_small_file() {
    for seed in seeds() {
        for kept in 0..seed.len() {
            if kept % 7 == 0 || kept < 64 || seed.len() - kept < 64 {
                survive(&seed[..kept]);
            }
        }
    }
}
