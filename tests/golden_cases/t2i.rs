//! Text-conditional transformers: prefill, logits, tokens; and the collapsed prefix against the plain one in f64.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use smalti::backend::cpu::CpuExecutor;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{Condition, GenerationOptions, GptConfig, Sampling};
use smalti::generate::{Conditioning, Request, Session, TextFeatures, generate};
use smalti::graph::{Elem, Extent, Row};
use smalti::models::{GptGraph, GptShape, GptText};

use super::{gpt, plain};
use crate::common::{Expected, compare, compare_to_largest, cuda_executors};

/// One case, opened.
struct Case<'a> {
    name: &'a str,
    expected: &'a BTreeMap<String, Expected>,
    checkpoint: Checkpoint,
    config: GptConfig,
    latent_size: usize,
    /// T: places of a text, of which the last n are valid.
    places: usize,
    texts: Vec<Arc<TextFeatures>>,
    executor: CpuExecutor,
}

pub fn check(name: &str, folder: &Path, meta: &Value, expected: &BTreeMap<String, Expected>) {
    let checkpoint = Checkpoint::open(&folder.join("gpt.pt"), WeightsChoice::Model).expect("the checkpoint opens");
    let n_head = meta["n_head"].as_u64().map(|n| n as usize);
    let (config, _) = GptConfig::detect(&checkpoint, n_head).expect("a transformer");
    let size = |key: &str| meta[key].as_u64().expect("a size") as usize;
    let condition = Condition::Text { cls_token_num: size("cls_token_num"), caption_dim: size("caption_dim") };
    assert_eq!(config.condition, condition, "{name}");
    assert_eq!((config.dim, config.n_layer), (size("dim"), size("n_layer")), "{name}");
    let (places, width) = (size("cls_token_num"), size("caption_dim"));
    let texts = expected["caption_embeddings"].values.chunks_exact(places * width);
    let texts = texts.zip(expected["caption_mask"].values.chunks_exact(places)).map(|(vectors, mask)| {
        let valid = mask.iter().filter(|&&valid| valid == 1.0).count();
        assert!(mask[places - valid..].iter().all(|&valid| valid == 1.0), "{name}: texts are padded on the left");
        let values = vectors[(places - valid) * width..].iter().map(|&x| x as f32).collect();
        Arc::new(TextFeatures::new(width, values))
    });
    let texts = texts.collect();
    let latent_size = size("grid");
    let executor = CpuExecutor::new(2);
    let case = Case { name, expected, checkpoint, config, latent_size, places, texts, executor };

    gpt::check_rotation(name, &case.config, latent_size, expected);
    case.check_prefill();
    for (j, filter) in meta["filters"].as_array().expect("filters").iter().enumerate() {
        gpt::check_filter(name, case.config.vocab_size, expected, j, filter);
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
    gpt::assert_most_beyond_doubt(name, &beyond_doubt);
    case.check_collapsed_prefix();
}

impl Case<'_> {
    fn shape(&self, precision: Elem, pictures: usize) -> GptShape {
        let latent_size = self.latent_size;
        // Room for all texts of all slots in one pass, and for every position of every slot.
        let rows = 2 * pictures * self.places.max(latent_size * latent_size);
        GptShape { latent_size, slots: 2 * pictures, rows, pictures, precision, activations: Elem::F32 }
    }

    fn plan(&self, executor: &dyn Executor, precision: Elem) -> (GptGraph, GptText, Box<dyn Plan>) {
        let shape = self.shape(precision, self.texts.len());
        let gpt = GptGraph::new(&self.config, &GptShape { activations: executor.activations(), ..shape });
        let plan = executor.plan(Arc::new(gpt.graph.clone()), &self.checkpoint).expect("a plan");
        let text = gpt.text.expect("a text model has a text part");
        (gpt, text, plan)
    }

    /// (n, caption_dim) of a slot: the text of its picture, or no text under that text's mask.
    fn caption(&self, slot: usize) -> Vec<f32> {
        let text = &self.texts[slot / 2];
        if slot.is_multiple_of(2) {
            return text.values().to_vec();
        }
        let all = self.checkpoint.get("cls_embedding.uncond_embedding").expect("no text").to_f32();
        all[all.len() - text.values().len()..].to_vec()
    }

    /// Writes rows and captions of some slots, one behind the other; returns how many rows.
    fn write_captions(&self, plan: &mut dyn Plan, gpt: &GptGraph, slots: impl Iterator<Item = usize>) -> usize {
        let (mut rows, mut captions) = (Vec::new(), Vec::new());
        for slot in slots {
            captions.extend(self.caption(slot));
            let tokens = self.texts[slot / 2].tokens() as u32;
            rows.extend((0..tokens).map(|position| Row { slot: slot as u32, position, ..Row::default() }));
        }
        plan.write(gpt.rows, 0, &rows).unwrap();
        plan.write_floats(gpt.text.expect("a text part").caption, 0, &captions).unwrap();
        rows.len()
    }

    /// The residual stream behind each layer at every valid place, for the texts alone.
    fn check_prefill(&self) {
        let (gpt, text, mut plan) = self.plan(&self.executor, Elem::F32);
        let dim = self.config.dim;
        for layer in 0..self.config.n_layer {
            let rows = self.write_captions(plan.as_mut(), &gpt, (0..self.texts.len()).map(|text| 2 * text));
            let nodes = 0..GptText::PROJECTOR + (layer + 1) * GptGraph::NODES_PER_LAYER;
            plan.run_nodes(text.prefill, nodes, Extent { rows, draws: 0 }).unwrap();
            let mut x = vec![0f32; rows * dim];
            plan.read(gpt.x, 0, &mut x).unwrap();
            let what = format!("prefill_layer_{layer}_out");
            let golden = self.expected[&what].values.chunks_exact(self.places * dim).zip(&self.texts);
            let golden: Vec<f64> =
                golden.flat_map(|(all, text)| &all[(self.places - text.tokens()) * dim..]).copied().collect();
            let used = compare_to_largest(&what, x.into_iter().map(f64::from), &golden);
            println!("{}: {what}: {:.1} % of the allowance", self.name, 100.0 * used);
        }
    }

    /// Logits of every token with the golden tokens fed.
    fn check_logits(&self, i: usize, sampling: &Sampling) {
        let expected = &self.expected[&format!("greedy_{i}_logits")].values;
        let f32_logits = self.guided(&self.executor, i, sampling, Elem::F32, 1);
        let tokens = self.latent_size * self.latent_size;
        for rows_per_slot in [3, tokens - 1] {
            let several = self.guided(&self.executor, i, sampling, Elem::F32, rows_per_slot);
            assert!(several == f32_logits, "{}: {rows_per_slot} rows per slot change bits", self.name);
        }
        let what = format!("{}: greedy_{i}_logits", self.name);
        let used = compare_to_largest(&what, f32_logits.iter().map(|&x| f64::from(x)), expected);
        println!("{what}: {:.1} % of the allowance", 100.0 * used);

        // bf16 as for class models, and the projector's two products besides.
        let stages = (5 * self.config.n_layer + 1 + 2) as f64;
        let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let allowed = stages * largest / 512.0;
        let bf16_logits = self.guided(&self.executor, i, sampling, Elem::Bf16, 1);
        let used =
            compare(&format!("{what} in bf16"), bf16_logits.iter().map(|&x| f64::from(x)), expected, |_| allowed);
        println!("{what} in bf16: {:.1} % of ±{allowed:.3}", 100.0 * used);
    }

    /// The same through the CUDA kernels, on every device that there is, from the projector on. Returns each device's
    /// number of tokens beyond doubt, and of all.
    fn check_logits_on_cuda(&self, i: usize, sampling: &Sampling) -> Vec<(String, (usize, usize))> {
        let tokens = self.latent_size * self.latent_size;
        let what = format!("{}: greedy_{i}_logits", self.name);
        let mut sums = Vec::new();
        for (device, executor) in cuda_executors(&what) {
            let logits = self.guided(executor.as_ref(), i, sampling, Elem::Bf16, tokens - 1);
            let one_by_one = self.guided(executor.as_ref(), i, sampling, Elem::Bf16, 1);
            assert!(logits == one_by_one, "{what} on {device}: the rows of a pass change bits");
            let what = format!("{what} on {device}");
            let products = 5 * self.config.n_layer + 1 + 2;
            let sum = gpt::compare_logits_on_cuda(&what, i, products, &logits, self.config.vocab_size, self.expected);
            sums.push((device, sum));
        }
        sums
    }

    /// (B, N, V) guided logits with the golden tokens fed.
    fn guided(
        &self,
        executor: &dyn Executor,
        i: usize,
        sampling: &Sampling,
        precision: Elem,
        rows_per_slot: usize,
    ) -> Vec<f32> {
        let logits = self.forced_logits(executor, i, precision, rows_per_slot);
        let vocab_size = self.config.vocab_size;
        let guide = |pair: &[Vec<f32>]| {
            let guide = |(at, (&cond, &uncond)): (usize, (&f32, &f32))| match sampling.cfg_scale {
                Some(scale) if sampling.guides(at / vocab_size) => uncond + (cond - uncond) * scale,
                _ => cond,
            };
            pair[0].iter().zip(&pair[1]).enumerate().map(guide).collect::<Vec<f32>>()
        };
        logits.chunks_exact(2).flat_map(guide).collect()
    }

    /// (N, V) logits of each slot with the golden tokens of setting `i` fed, several positions per pass.
    fn forced_logits(&self, executor: &dyn Executor, i: usize, precision: Elem, rows_per_slot: usize) -> Vec<Vec<f32>> {
        let (slots, vocab_size) = (2 * self.texts.len(), self.config.vocab_size);
        let (gpt, text, mut plan) = self.plan(executor, precision);
        let golden = &self.expected[&format!("greedy_{i}_tokens")].values;
        let tokens = self.latent_size * self.latent_size;
        let mut logits = vec![Vec::with_capacity(tokens * vocab_size); slots];
        let mut take = |plan: &mut dyn Plan, slot: usize, row: usize, rows: usize| {
            let mut values = vec![0f32; rows * vocab_size];
            plan.read(gpt.logits, row * vocab_size, &mut values).unwrap();
            logits[slot].extend(values);
        };

        let rows = self.write_captions(plan.as_mut(), &gpt, 0..slots);
        plan.run(text.prefill, Extent { rows, draws: 0 }).unwrap();
        let mut end = 0;
        for slot in 0..slots {
            end += self.texts[slot / 2].tokens();
            take(plan.as_mut(), slot, end - 1, 1);
        }
        let table: Vec<Row> = (0..slots as u32).map(|slot| Row { slot, ..Row::default() }).collect();
        plan.write(gpt.rows, 0, &table).unwrap();
        plan.run(text.set_prefix, Extent { rows: slots, draws: 0 }).unwrap();
        let log_n: Vec<f32> = (0..slots).map(|slot| (self.texts[slot / 2].tokens() as f32).ln()).collect();
        plan.write(gpt.prefix_log_n, 0, &log_n).unwrap();

        for first in (1..tokens).step_by(rows_per_slot) {
            let last = (first + rows_per_slot).min(tokens);
            let row = |slot: usize, position: usize| Row {
                slot: slot as u32,
                position: position as u32,
                token: golden[slot / 2 * tokens + position - 1] as u32,
                settled: 0,
            };
            let rows: Vec<Row> =
                (0..slots).flat_map(|slot| (first..last).map(move |position| row(slot, position))).collect();
            plan.write(gpt.rows, 0, &rows).unwrap();
            plan.run_nodes(gpt.step, 0..gpt.sampling(), Extent { rows: rows.len(), draws: 0 }).unwrap();
            for slot in 0..slots {
                take(plan.as_mut(), slot, slot * (last - first), last - first);
            }
        }
        logits
    }

    /// Greedy decoding from the program's own session: all pictures at once, each alone, and each twice.
    fn check_tokens(&self, i: usize, sampling: &Sampling) {
        let requests: Vec<Request> = (0..)
            .zip(&self.texts)
            .map(|(image, text)| Request { condition: Conditioning::Text(text.clone()), image, sampling: *sampling })
            .collect();
        let run = |places, requests: &[Request]| {
            let shape = GptShape { rows: 2 * places, ..self.shape(Elem::F32, places) };
            let mut session = Session::new(&self.executor, &self.checkpoint, &self.config, &shape).expect("a session");
            generate(&mut session, requests, |_| true).expect("codes")
        };
        let found = run(requests.len(), &requests);
        assert_eq!(found, run(1, &requests), "{}: pictures depend on their batch", self.name);
        let twice: Vec<Request> = requests.iter().chain(&requests).cloned().collect();
        assert_eq!(run(2, &twice), [&found[..], &found].concat(), "{}: kept prefixes differ", self.name);
        gpt::compare_tokens(self.name, i, &found, self.expected);
    }

    /// The plain form, in f64: all places of a text, masked, as the reference has them, then the image tokens.
    fn check_collapsed_prefix(&self) {
        let model = plain::Model::new(&self.checkpoint, &self.config, self.latent_size);
        let golden = &self.expected["greedy_0_tokens"].values;
        let tokens = self.latent_size * self.latent_size;
        for (slot, found) in self.forced_logits(&self.executor, 0, Elem::F32, 1).iter().enumerate() {
            let codes = &golden[slot / 2 * tokens..][..tokens - 1];
            let codes: Vec<usize> = codes.iter().map(|&code| code as usize).collect();
            let expected = model.logits(&self.caption(slot), self.places, &codes);
            // Each output of a product carries the roundings of its sum, which walk to 0.9 rms in a chain of any
            // length, and some 10 of the norm before it. They are independent, so m of them come to sqrt(m) U of the
            // sum's typical size; five products a layer, the head and the projector's two add up in the same way, and
            // of some ten thousand values the worst lies within five deviations.
            let roundings = (0.9f64.powi(2) + 10.0) * (5 * self.config.n_layer + 3) as f64;
            let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            let allowed = 5.0 * roundings.sqrt() * largest / (1u64 << 24) as f64;
            let what = format!("{}: slot {slot}, collapsed prefix", self.name);
            let used = compare(&what, found.iter().map(|&x| f64::from(x)), &expected, |_| allowed);
            println!("{what}: {:.1} % of ±{allowed:e}", 100.0 * used);
        }
    }
}
