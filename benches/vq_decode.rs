//! VQ-16 decodes one 256 px picture in f32 and in bf16, random weights of the true shapes, on all cores of the CPU and,
//! in bf16, on a GPU where there is one that the kernels run on.
//!
//! `cargo bench --bench vq_decode`; other sizes: `smalti bench vq --image-size 512`.

mod executors;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use executors::executors;
use smalti::bench::VqBench;
use smalti::config::VqConfig;
use smalti::graph::Elem;

fn decode(criterion: &mut Criterion) {
    let config = VqConfig::released(&[1, 1, 2, 2, 4]);
    for (device, executor) in executors() {
        let mut group = criterion.benchmark_group(format!("{device}, VQ-16 decode"));
        group.sample_size(10);
        for precision in [Elem::F32, Elem::Bf16] {
            // A device that holds activations in bf16 multiplies nothing else.
            if precision == Elem::F32 && executor.activations() == Elem::Bf16 {
                continue;
            }
            let mut bench = VqBench::new(executor.as_ref(), &config, (1, 256), precision).expect("it fits");
            let name = format!("256 px, {}", precision.name());
            group.bench_function(name, |bencher| bencher.iter(|| black_box(bench.run().expect("it runs"))));
        }
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
