use smalti::{
    backend::{Executor, cpu::CpuExecutor},
    checkpoint::*,
    config::*,
    graph::*,
    models::*,
};
use std::{collections::BTreeMap, sync::Arc, time::Instant};
fn main() {
    let (l, h, d, f) = match std::env::args().nth(1).as_deref() {
        Some("L") => (24, 16, 1024, 2816),
        _ => (12, 12, 768, 2048),
    };
    let rows_n: usize = std::env::args().nth(2).map_or(2, |x| x.parse().unwrap());
    let config = GptConfig {
        dim: d,
        n_layer: l,
        n_head: h,
        hidden_dim: f,
        vocab_size: 16384,
        condition: Condition::Class { num_classes: 1000 },
        norm_eps: 1e-5,
        rope_base: 1e4,
    };
    let b = rows_n.max(2) / 2;
    let gpt = GptGraph::new(
        &config,
        &GptShape { latent_size: 16, slots: 2 * b, rows: 2 * b, pictures: b, precision: Elem::Bf16 },
    );
    let mut t = BTreeMap::new();
    let mut s = 1u64;
    for w in gpt.graph.weights() {
        let n: usize = w.shape.iter().product();
        let v: Vec<u16> = (0..n)
            .map(|_| {
                s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                half::bf16::from_f32(((s >> 40) as f32 / 16777216.0 - 0.5) * 0.07).to_bits()
            })
            .collect();
        let bytes: Vec<u8> = bytemuck::cast_slice(&v).to_vec();
        t.insert(
            w.name.clone(),
            Tensor::contiguous(DType::BF16, w.shape.clone(), Bytes::Owned(Arc::new(bytes)), 0).unwrap(),
        );
    }
    let ck = Checkpoint::from_tensors("r", t, BTreeMap::new());
    let ex = CpuExecutor::new(0);
    println!("{}", ex.describe());
    let mut plan = ex.plan(Arc::new(gpt.graph.clone()), &ck).unwrap();
    let rows: Vec<Row> = (0..rows_n).map(|r| Row { slot: r as u32, position: 128, token: 5, reserved: 0 }).collect();
    plan.write(gpt.rows, 0, &rows).unwrap();
    let e = Extent { rows: rows_n, draws: 0 };
    let cost = gpt.graph.cost(gpt.step, &Load { extent: e, keys: 129 });
    let big = vec![1u8; 512 << 20];
    for _ in 0..3 {
        let t0 = Instant::now();
        use std::hint::black_box;
        std::thread::scope(|s| {
            for half in big.chunks(256 << 20) {
                s.spawn(move || {
                    let w: &[u64] = bytemuck::cast_slice(half);
                    let mut a = [0u64; 16];
                    for c in w.chunks_exact(16) {
                        for i in 0..16 {
                            a[i] = a[i].wrapping_add(c[i]);
                        }
                    }
                    black_box(a);
                });
            }
        });
        let bw = big.len() as f64 / t0.elapsed().as_secs_f64();
        let mut v = vec![];
        for _ in 0..40 {
            let t = Instant::now();
            plan.run_nodes(gpt.step, 0..gpt.sampling(), e).unwrap();
            v.push(t.elapsed().as_secs_f64());
        }
        v.sort_by(f64::total_cmp);
        println!(
            "bw {:.1} GB/s; step median {:.2} ms min {:.2}; floor {:.2} ms; ratio {:.2}; {:.1} GFLOP/s",
            bw / 1e9,
            v[20] * 1e3,
            v[0] * 1e3,
            cost.bytes() as f64 / bw * 1e3,
            v[20] * bw / cost.bytes() as f64,
            cost.flops as f64 / v[20] / 1e9
        );
    }
    // by op
    let n = gpt.sampling();
    let mut per: BTreeMap<&str, f64> = BTreeMap::new();
    for i in 0..n {
        let t = Instant::now();
        for _ in 0..5 {
            plan.run_nodes(gpt.step, i..i + 1, e).unwrap();
        }
        *per.entry(gpt.graph.nodes(gpt.step)[i].op.name()).or_default() += t.elapsed().as_secs_f64() / 5.0 * 1e3;
    }
    println!("{per:.2?}");
}
