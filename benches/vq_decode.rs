//! VQ-16 decodes one 256 px picture in f32 and in bf16, random weights of the true shapes, on all cores.
//!
//! `cargo bench --bench vq_decode`; other sizes: `smalti bench vq --image-size 512`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use smalti::backend::cpu::CpuExecutor;
use smalti::bench::VqBench;
use smalti::config::VqConfig;
use smalti::graph::Elem;

fn decode(criterion: &mut Criterion) {
    let executor = CpuExecutor::new(0);
    let config = VqConfig::released(&[1, 1, 2, 2, 4]);
    let mut group = criterion.benchmark_group("VQ-16 decode");
    group.sample_size(10);
    for precision in [Elem::F32, Elem::Bf16] {
        let mut bench = VqBench::new(&executor, &config, 256, precision).expect("it fits");
        let name = format!("256 px, {}", precision.name());
        group.bench_function(name, |bencher| bencher.iter(|| black_box(bench.run().expect("it runs"))));
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
