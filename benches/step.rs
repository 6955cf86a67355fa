//! One decoding step of GPT-B at one and eight guided pictures, random weights.
//!
//! On the CPU in bf16 and f32 and, where there is one that the kernels run on, a GPU, in bf16.
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
        let mut group = criterion.benchmark_group(format!("{device}, GPT-B step, 256 px, guided"));
        group.sample_size(20).measurement_time(Duration::from_secs(10));
        let precisions = if device == "cpu" { &[Elem::Bf16, Elem::F32][..] } else { &[Elem::Bf16] };
        for (&precision, images) in precisions.iter().flat_map(|precision| [1, 8].map(|images| (precision, images))) {
            let mut bench = StepBench::new(executor.as_ref(), preset, 16, images, true, precision).expect("it fits");
            group.bench_function(format!("{}, {images} images", precision.name()), |bencher| {
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
