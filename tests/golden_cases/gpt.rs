//! Class-conditional transformers: logits, tokens, prefill, rotation table, filters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{GenerationOptions, GptConfig, Sampling};
use smalti::generate::{Conditioning, Request, Session, generate};
use smalti::graph::{Elem, Extent, Row, ops};
use smalti::models::gpt::freqs_cis;
use smalti::models::{GptGraph, GptShape};

use crate::common::{Expected, compare, compare_to_largest, cuda_executors};

/// One case, opened.
struct Case<'a> {
    name: &'a str,
    expected: &'a BTreeMap<String, Expected>,
    checkpoint: Checkpoint,
    config: GptConfig,
    latent_size: usize,
    labels: Vec<u32>,
    executor: CpuExecutor,
}

pub fn check(name: &str, folder: &Path, meta: &Value, expected: &BTreeMap<String, Expected>) {
    let checkpoint = Checkpoint::open(&folder.join("gpt.pt"), WeightsChoice::Model).expect("the checkpoint opens");
    let n_head = meta["n_head"].as_u64().map(|n| n as usize);
    let (config, _) = GptConfig::detect(&checkpoint, n_head).expect("a transformer");
    for (found, key) in [
        (config.dim, "dim"),
        (config.n_head, "n_head"),
        (config.n_layer, "n_layer"),
        (config.vocab_size, "vocab_size"),
        (config.unconditional_label() as usize, "num_classes"),
    ] {
        assert_eq!(found as u64, meta[key].as_u64().unwrap(), "{name}: {key}");
    }
    let case = Case {
        name,
        expected,
        checkpoint,
        config,
        latent_size: meta["grid"].as_u64().expect("grid") as usize,
        labels: expected["labels"].values.iter().map(|&label| label as u32).collect(),
        executor: CpuExecutor::new(2),
    };
    check_rotation(name, &case.config, case.latent_size, expected);
    case.check_prefill();
    for (j, filter) in meta["filters"].as_array().expect("filters").iter().enumerate() {
        check_filter(name, case.config.vocab_size, expected, j, filter);
    }
    let mut beyond_doubt: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (i, setting) in meta["greedy"].as_array().expect("greedy").iter().enumerate() {
        let options = GenerationOptions {
            cfg_scale: Some(setting["cfg_scale"].as_f64().unwrap() as f32),
            cfg_interval: setting["cfg_interval"].as_i64().unwrap() as i32,
            greedy: true,
            ..Default::default()
        };
        let sampling = options.validate(case.config.vocab_size).expect("valid options");
        case.check_logits(i, &sampling);
        for (device, (checked, tokens)) in case.check_logits_on_cuda(i, &sampling) {
            let sum = beyond_doubt.entry(device).or_insert((0, 0));
            *sum = (sum.0 + checked, sum.1 + tokens);
        }
        case.check_tokens(i, &sampling);
    }
    assert_most_beyond_doubt(name, &beyond_doubt);
}

/// Of each device's tokens, nine in ten.
pub fn assert_most_beyond_doubt(name: &str, devices: &BTreeMap<String, (usize, usize)>) {
    for (device, (checked, tokens)) in devices {
        println!("{name} on {device}: {checked} of {tokens} tokens checked");
        assert!(10 * checked >= 9 * tokens, "{name} on {device}: only {checked} of {tokens} tokens could be checked");
    }
}

impl Case<'_> {
    fn shape(&self, precision: Elem, pictures: usize) -> GptShape {
        let latent_size = self.latent_size;
        // Room for every position of every slot in one pass.
        let rows = 2 * pictures * (latent_size * latent_size);
        GptShape { latent_size, slots: 2 * pictures, rows, pictures, precision, activations: Elem::F32 }
    }

    /// The residual stream behind each layer for the condition alone.
    fn check_prefill(&self) {
        let gpt = GptGraph::new(&self.config, &self.shape(Elem::F32, self.labels.len()));
        let mut plan = self.executor.plan(Arc::new(gpt.graph.clone()), &self.checkpoint).expect("a plan");
        let rows: Vec<Row> = self
            .labels
            .iter()
            .enumerate()
            .map(|(slot, &token)| Row { slot: slot as u32, token, ..Row::default() })
            .collect();
        plan.write(gpt.rows, 0, &rows).unwrap();
        for layer in 0..self.config.n_layer {
            let extent = Extent { rows: rows.len(), draws: 0 };
            plan.run_nodes(gpt.step, 0..gpt.end_of_layer(layer), extent).unwrap();
            let mut x = vec![0f32; rows.len() * self.config.dim];
            plan.read(gpt.x, 0, &mut x).unwrap();
            let what = format!("prefill_layer_{layer}_out");
            let used = compare_to_largest(&what, x.into_iter().map(f64::from), &self.expected[&what].values);
            println!("{}: {what}: {:.1} % of the allowance", self.name, 100.0 * used);
        }
    }

    /// Logits of every token with the golden tokens fed: one row per slot and step, and all rows in one pass.
    fn check_logits(&self, i: usize, sampling: &Sampling) {
        let expected = &self.expected[&format!("greedy_{i}_logits")].values;
        let f32_logits = self.forced_logits(i, sampling, Elem::F32, 1);
        let tokens = self.latent_size * self.latent_size;
        for rows_per_slot in [2, 3, tokens] {
            let several = self.forced_logits(i, sampling, Elem::F32, rows_per_slot);
            let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&several) == bits(&f32_logits), "{}: {rows_per_slot} rows per slot change bits", self.name);
        }
        let what = format!("{}: greedy_{i}_logits", self.name);
        let used = compare_to_largest(&what, f32_logits.iter().map(|&x| f64::from(x)), expected);
        println!("{what}: {:.1} % of the allowance", 100.0 * used);

        // bf16: every weight of the 5 products of a layer and of the head is rounded by 2^-9 on average, and k and v
        // in the cache once more; each stage moves its output by at most that share. Guidance scales the
        // logits and their errors alike.
        let stages = (5 * self.config.n_layer + 1) as f64;
        let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let allowed = stages * largest / 512.0;
        let bf16_logits = self.forced_logits(i, sampling, Elem::Bf16, 1);
        let used =
            compare(&format!("{what} in bf16"), bf16_logits.iter().map(|&x| f64::from(x)), expected, |_| allowed);
        println!("{what} in bf16: {:.1} % of ±{allowed:.3}", 100.0 * used);
    }

    /// The same through the CUDA kernels, on every device that there is. Returns each device's number of tokens beyond
    /// doubt, and of all.
    fn check_logits_on_cuda(&self, i: usize, sampling: &Sampling) -> Vec<(String, (usize, usize))> {
        let tokens = self.latent_size * self.latent_size;
        let what = format!("{}: greedy_{i}_logits", self.name);
        let mut sums = Vec::new();
        for (device, executor) in cuda_executors(&what) {
            let logits = self.forced_logits_on(executor.as_ref(), i, sampling, Elem::Bf16, tokens);
            let one_by_one = self.forced_logits_on(executor.as_ref(), i, sampling, Elem::Bf16, 1);
            assert!(logits == one_by_one, "{what} on {device}: the rows of a pass change bits");
            let what = format!("{what} on {device}");
            let products = 5 * self.config.n_layer + 1;
            let sum = compare_logits_on_cuda(&what, i, products, &logits, self.config.vocab_size, self.expected);
            sums.push((device, sum));
        }
        sums
    }

    /// (B, N, V) guided logits with the golden tokens fed, `rows_per_slot` positions of each slot per pass.
    fn forced_logits(&self, i: usize, sampling: &Sampling, precision: Elem, rows_per_slot: usize) -> Vec<f32> {
        self.forced_logits_on(&self.executor, i, sampling, precision, rows_per_slot)
    }

    fn forced_logits_on(
        &self,
        executor: &dyn Executor,
        i: usize,
        sampling: &Sampling,
        precision: Elem,
        rows_per_slot: usize,
    ) -> Vec<f32> {
        let (pictures, vocab_size) = (self.labels.len(), self.config.vocab_size);
        let shape = GptShape { activations: executor.activations(), ..self.shape(precision, pictures) };
        let gpt = GptGraph::new(&self.config, &shape);
        let mut plan = executor.plan(Arc::new(gpt.graph.clone()), &self.checkpoint).expect("a plan");
        let golden = &self.expected[&format!("greedy_{i}_tokens")].values;
        let tokens = self.latent_size * self.latent_size;
        let mut guided = vec![0f32; pictures * tokens * vocab_size];
        for first in (0..tokens).step_by(rows_per_slot) {
            let last = (first + rows_per_slot).min(tokens);
            let mut rows = Vec::new();
            for slot in 0..2 * pictures {
                let label = if slot % 2 == 0 { self.labels[slot / 2] } else { self.config.unconditional_label() };
                for position in first..last {
                    let token = match position {
                        0 => label,
                        _ => golden[slot / 2 * tokens + position - 1] as u32,
                    };
                    rows.push(Row { slot: slot as u32, position: position as u32, token, settled: 0 });
                }
            }
            plan.write(gpt.rows, 0, &rows).unwrap();
            plan.run_nodes(gpt.step, 0..gpt.sampling(), Extent { rows: rows.len(), draws: 0 }).unwrap();
            let mut logits = vec![0f32; rows.len() * vocab_size];
            plan.read(gpt.logits, 0, &mut logits).unwrap();
            let per_slot = (last - first) * vocab_size;
            for picture in 0..pictures {
                let (cond, uncond) = logits[2 * picture * per_slot..][..2 * per_slot].split_at(per_slot);
                let out = &mut guided[(picture * tokens + first) * vocab_size..][..per_slot];
                for (at, out) in out.iter_mut().enumerate() {
                    *out = match sampling.cfg_scale {
                        Some(scale) if sampling.guides(first + at / vocab_size) => {
                            uncond[at] + (cond[at] - uncond[at]) * scale
                        }
                        _ => cond[at],
                    };
                }
            }
        }
        guided
    }

    /// Greedy decoding from the program's own session, all pictures at once and each alone.
    fn check_tokens(&self, i: usize, sampling: &Sampling) {
        let requests: Vec<Request> = self
            .labels
            .iter()
            .enumerate()
            .map(|(image, &class)| Request {
                condition: Conditioning::Class(class),
                image: image as u64,
                sampling: *sampling,
            })
            .collect();
        let run = |places| {
            let shape = self.shape(Elem::F32, places);
            let mut session = Session::new(&self.executor, &self.checkpoint, &self.config, &shape).expect("a session");
            generate(&mut session, &requests, |_| true).expect("codes")
        };
        let found = run(requests.len());
        assert_eq!(found, run(1), "{}: pictures depend on their batch", self.name);
        compare_tokens(self.name, i, &found, self.expected);
    }
}

/// Logits from the CUDA kernels against those of setting `i`, and the token that each step would draw wherever the
/// margin is beyond doubt. Returns the number of such tokens, and of all.
pub fn compare_logits_on_cuda(
    what: &str,
    i: usize,
    products: usize,
    logits: &[f32],
    vocab_size: usize,
    expected: &BTreeMap<String, Expected>,
) -> (usize, usize) {
    let golden = &expected[&format!("greedy_{i}_tokens")].values;
    let margins = &expected[&format!("greedy_{i}_margin")].values;
    let expected = &expected[&format!("greedy_{i}_logits")].values;
    // Each of the products rounds its weights, and its input up to twice: independent relative errors of up to 2^-8,
    // which add as a random walk does: the root of their number holds for the largest of all logits.
    let roundings = (3 * products) as f64;
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let allowed = roundings.sqrt() * largest / 256.0;
    let used = compare(what, logits.iter().map(|&x| f64::from(x)), expected, |_| allowed);
    // A step's tolerance is the largest error of its own logits: the token is beyond doubt where the two best lie
    // further apart than both can have moved.
    let (mut checked, mut equal) = (0, 0);
    for (at, (row, expected)) in logits.chunks_exact(vocab_size).zip(expected.chunks_exact(vocab_size)).enumerate() {
        let error = row.iter().zip(expected).map(|(&x, y)| (f64::from(x) - y).abs()).fold(0.0, f64::max);
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("codes");
        equal += usize::from(best as f64 == golden[at]);
        if margins[at] > 2.0 * error {
            assert_eq!(best as f64, golden[at], "{what}: token {at}, margin {}", margins[at]);
            checked += 1;
        }
    }
    let (tokens, share) = (margins.len(), 100.0 * used);
    println!("{what}: {share:.1} % of ±{allowed:.3}; of {tokens} tokens {checked} beyond doubt, {equal} equal");
    (checked, tokens)
}

/// The table's rows, of which those of all condition tokens are row 0 of ours.
pub fn check_rotation(name: &str, config: &GptConfig, latent_size: usize, expected: &BTreeMap<String, Expected>) {
    let table = freqs_cis(latent_size, config.head_dim(), config.rope_base);
    let expected = &expected["rope_2d"].values;
    let row = config.head_dim();
    let found = table[..row].iter().cycle().take(expected.len() + row - table.len()).chain(&table[row..]);
    let used = compare_to_largest("rope_2d", found.map(|&x| f64::from(x)), expected);
    println!("{name}: rope_2d: {:.1} % of the allowance", 100.0 * used);
}

/// Probabilities after temperature, top-k, top-p and softmax.
pub fn check_filter(name: &str, vocab_size: usize, expected: &BTreeMap<String, Expected>, j: usize, filter: &Value) {
    let options = GenerationOptions {
        temperature: filter["temperature"].as_f64().unwrap() as f32,
        top_k: Some(filter["top_k"].as_i64().unwrap()),
        top_p: filter["top_p"].as_f64().unwrap() as f32,
        ..Default::default()
    };
    let sampling = options.validate(vocab_size).expect("valid options");
    let mut probabilities = Vec::new();
    for logits in expected["filter_logits"].values.chunks_exact(vocab_size) {
        let z: Vec<f32> = logits.iter().map(|&logit| logit as f32 / sampling.temperature).collect();
        let keep = ops::cutoff(&z, sampling.top_k as usize, sampling.top_p, &mut vec![0.0; vocab_size]);
        let mass: Vec<f64> = z.iter().map(|&z| if z >= keep { f64::from(z).exp() } else { 0.0 }).collect();
        let total: f64 = mass.iter().sum();
        probabilities.extend(mass.into_iter().map(|mass| mass / total));
    }
    let what = format!("filter_{j}_probs");
    let expected = &expected[&what].values;
    let zero = |values: &[f64]| values.iter().map(|&p| p == 0.0).collect::<Vec<_>>();
    assert_eq!(zero(&probabilities), zero(expected), "{name}: {what}: which codes stay");
    compare_to_largest(&what, probabilities, expected);
}

/// Codes against those of setting `i`, up to where a tie may have been broken the other way.
pub fn compare_tokens(name: &str, i: usize, found: &[Vec<u32>], expected: &BTreeMap<String, Expected>) {
    let golden = &expected[&format!("greedy_{i}_tokens")].values;
    let margin = &expected[&format!("greedy_{i}_margin")].values;
    let logits = &expected[&format!("greedy_{i}_logits")].values;
    let tolerance = 2e-4 * logits.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let mut compared = 0;
    for (picture, codes) in found.iter().enumerate() {
        for (t, &code) in codes.iter().enumerate() {
            let at = picture * codes.len() + t;
            if f64::from(code) != golden[at] {
                // A tie within the tolerance may be broken the other way; from there on the pictures differ by right.
                assert!(margin[at] <= tolerance, "{}: greedy_{i}: picture {picture}, token {t}", name);
                break;
            }
            compared += 1;
        }
    }
    println!("{}: greedy_{i}_tokens: {compared} of {} equal", name, golden.len());
    assert!(10 * compared >= 9 * golden.len(), "{}: greedy_{i}: too few tokens compared", name);
}
