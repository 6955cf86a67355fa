//! One decoding step of GPT-B, bf16, at one and eight guided pictures, random weights.
//!
//! On the CPU and, where there is one that the kernels run on, a GPU.
//!
//! `cargo bench --bench step`; beside the floor of the same run: `smalti bench step`.

mod executors;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use executors::executors;
use smalti::bench::StepBench;
use smalti::config::Preset;
use smalti::graph::Elem;

fn step(criterion: &mut Criterion) {
    let preset = Preset::named("B").expect("a preset");
    for (device, executor) in executors() {
        let mut group = criterion.benchmark_group(format!("{device}, GPT-B step, 256 px, bf16, guided"));
        group.sample_size(20).measurement_time(Duration::from_secs(10));
        for images in [1, 8] {
            let mut bench = StepBench::new(executor.as_ref(), preset, 16, images, true, Elem::Bf16).expect("it fits");
            group.bench_function(format!("{images} images"), |bencher| {
                // Several steps per entry into the team, as a generation runs them.
                bencher.iter_custom(|steps| {
                    let seconds: f64 = (0..steps).map(|_| black_box(bench.run(16).expect("it runs"))).sum();
                    Duration::from_secs_f64(seconds)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
