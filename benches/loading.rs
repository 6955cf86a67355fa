//! From a file to a plan: GPT-B in bf16 from safetensors, mapped as it is (by AMX rearranged) and widened to f32, and a `.pt`.
//!
//! `cargo bench --bench loading`; the files lie in the page cache.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, DType, Entry, WeightsChoice, write_random};
use smalti::config::{Condition, GptConfig, Preset};
use smalti::graph::Elem;
use smalti::models::{GptGraph, GptShape};

fn lay_out(executor: &dyn Executor, path: &Path, precision: Elem) {
    let checkpoint = Checkpoint::open(path, WeightsChoice::Model).expect("a checkpoint");
    let (config, _) = GptConfig::detect(&checkpoint, None).expect("a GPT");
    let activations = executor.activations();
    let shape = GptShape { latent_size: 16, slots: 2, rows: 2, pictures: 1, precision, activations };
    let graph = Arc::new(GptGraph::new(&config, &shape).graph);
    black_box(executor.plan(graph, &checkpoint).expect("it fits"));
}

fn loading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gpt-b.safetensors");
    let preset = Preset::named("B").expect("a preset");
    let config = GptConfig::of_preset(preset, Condition::Class { num_classes: 1000 });
    write_random(&path, &Entry::all(config.tensors(), DType::BF16), &BTreeMap::new(), 0).expect("written");
    let pickled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/c2i/gpt.pt");
    let executor = CpuExecutor::new(0);
    let mut group = criterion.benchmark_group("loading");
    group.sample_size(10);
    group.bench_function("GPT-B bf16", |bencher| bencher.iter(|| lay_out(&executor, &path, Elem::Bf16)));
    group.bench_function("GPT-B bf16, widened", |bencher| bencher.iter(|| lay_out(&executor, &path, Elem::F32)));
    group.bench_function("a small .pt", |bencher| bencher.iter(|| lay_out(&executor, &pickled, Elem::F32)));
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
