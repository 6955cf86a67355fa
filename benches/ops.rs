//! Every kind of op of a GPT-B step, of VQ-16's decoder and encoder and of T5-XL's blocks, in the shapes of the op
//! tests' true widths, on the CPU and, where there is one that the kernels run on, a GPU. The draw is among them,
//! `sample`, and what follows it in windows, `accept`.
//!
//! `cargo bench --bench ops`; beside their floors: `smalti bench kernels`.

mod executors;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use executors::executors;
use smalti::bench::{KernelsBench, Part};
use smalti::config::Preset;
use smalti::graph::Elem;

/// Runs of an op between two looks at the clock.
const TIMES: usize = 20;

fn ops(criterion: &mut Criterion) {
    let preset = Preset::named("B").expect("a preset");
    for (device, executor) in executors() {
        let executor = executor.as_ref();
        let step = |images, window| Part::step(executor, preset, 16, images, window, Elem::Bf16);
        let mut parts = vec![("step of 1", step(1, 1)), ("step of 8", step(8, 1)), ("window of 8", step(1, 8))];
        for precision in [Elem::F32, Elem::Bf16] {
            if executor.activations() == Elem::F32 || precision == Elem::Bf16 {
                let name = if precision == Elem::F32 { "VQ decode, f32" } else { "VQ decode, bf16" };
                parts.push((name, Part::vq_decode(executor, 256, precision).expect("it fits")));
            }
        }
        parts.push(("VQ encode", Part::vq_encode(executor, 256).expect("it fits")));
        parts.push(("text of 20 tokens", Part::text_encode(executor, 20, Elem::Bf16)));
        for (name, part) in parts {
            let mut bench = KernelsBench::new(executor, part).expect("it fits");
            let mut group = criterion.benchmark_group(format!("{device}, {name}"));
            group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
            for kind in 0..bench.kinds() {
                let node = bench.first(kind);
                let id = format!("{} {}", node.op.name(), node.name);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|iterations| {
                        let rounds = iterations.div_ceil(TIMES as u64);
                        let run = |_| bench.run(kind, TIMES).expect("it runs");
                        Duration::from_secs_f64((0..rounds).map(run).sum::<f64>() / rounds as f64 * iterations as f64)
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
