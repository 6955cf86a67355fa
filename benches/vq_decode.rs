//! Decodes one 256 px image with VQ-16 in f32, random weights of the true shapes, on all cores.
//!
//! ```text
//! cargo bench --bench vq_decode
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, Tensor};
use smalti::config::VqConfig;
use smalti::graph::{Extent, Graph, Load};
use smalti::models::{Pixels, VqDecoder, latent_size};

fn vq_16() -> VqConfig {
    VqConfig {
        codebook_size: 16384,
        codebook_embed_dim: 8,
        z_channels: 256,
        ch: 128,
        decoder_ch_mult: vec![1, 1, 2, 2, 4],
        encoder_ch_mult: None,
        num_res_blocks: 2,
    }
}

/// Weights of variance 1 / fan-in, so that activations neither vanish nor overflow; vectors near one.
fn random_weights(graph: &Graph) -> Checkpoint {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let tensors = graph.weights().iter().map(|weight| {
        let fan_in: usize = weight.shape[1..].iter().product();
        let scale = (12.0 / fan_in as f32).sqrt();
        let count = weight.shape.iter().product();
        let values: Vec<f32> = match weight.shape.len() {
            1 => (0..count).map(|_| 0.9 + 0.2 * uniform()).collect(),
            _ => (0..count).map(|_| (uniform() - 0.5) * scale).collect(),
        };
        (weight.name.clone(), Tensor::from_f32(weight.shape.clone(), &values))
    });
    Checkpoint::from_tensors("random VQ-16", tensors.collect(), BTreeMap::new())
}

fn decode(c: &mut Criterion) {
    let config = vq_16();
    let latent = latent_size(&config, (256, 256)).expect("256 is divisible by 16");
    let decoder = VqDecoder::build(&config, latent, 1, Pixels::U8).expect("VQ-16 can be built");
    let checkpoint = random_weights(&decoder.graph);
    let executor = CpuExecutor::new(0);
    let mut plan = executor.plan(Arc::new(decoder.graph.clone()), &checkpoint).expect("it can be planned");
    let codes: Vec<u32> = (0..latent.0 * latent.1).map(|i| (i * 7919 % config.codebook_size) as u32).collect();
    plan.write(decoder.codes, 0, &codes).expect("written");

    let extent = Extent { rows: 1, draws: 0 };
    let cost = decoder.graph.cost(decoder.decode, &Load { extent, keys: 0 });
    println!("{}: {:.0} GFLOP by the definition of the convolutions", executor.describe(), cost.flops as f64 * 1e-9);
    let mut group = c.benchmark_group("vq_decode");
    group.sample_size(10).throughput(Throughput::Elements(1));
    group.bench_function("vq-16 256 px f32", |b| b.iter(|| plan.run(decoder.decode, extent).expect("it runs")));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
