//! VQ-16 decodes one 256 px picture in f32, random weights of the true shapes, on all cores.
//!
//! `cargo bench --bench vq_decode`; other sizes: `smalti bench vq --image-size 512`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use smalti::backend::cpu::CpuExecutor;
use smalti::bench::VqBench;
use smalti::config::VqConfig;

fn decode(criterion: &mut Criterion) {
    let executor = CpuExecutor::new(0);
    let config = VqConfig::released(&[1, 1, 2, 2, 4]);
    let mut bench = VqBench::new(&executor, &config, 256).expect("it fits");
    let mut group = criterion.benchmark_group("VQ-16 decode");
    group.sample_size(10);
    group.bench_function("256 px, f32", |bencher| bencher.iter(|| black_box(bench.run().expect("it runs"))));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
