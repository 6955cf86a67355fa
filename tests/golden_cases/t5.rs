//! Text encoders: the features of every valid token, of each text alone and of all in one pass.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use serde_json::Value;
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::backend::cpu::simd::Isa;
use smalti::checkpoint::{Checkpoint, Tensor, WeightsChoice};
use smalti::config::T5Config;
use smalti::generate::{TextEncoder, TextFeatures};
use smalti::graph::Elem;
use smalti::models::T5Shape;

use crate::common::{Expected, compare_to_largest, cuda_executors};

pub fn check(name: &str, folder: &Path, meta: &Value, expected: &BTreeMap<String, Expected>) {
    let tokens = meta["max_length"].as_u64().expect("max_length") as usize;
    let checkpoint = Checkpoint::open(folder, WeightsChoice::Model).expect("the folder opens");
    let config = T5Config::detect(&checkpoint).expect("a T5 encoder");

    // Valid tokens stand first in each row of `tokens`; what the mask leaves out has no row here at all.
    let texts: Vec<Vec<u32>> = expected["input_ids"]
        .values
        .chunks_exact(tokens)
        .zip(expected["attention_mask"].values.chunks_exact(tokens))
        .map(|(ids, mask)| {
            let valid = mask.iter().filter(|&&valid| valid == 1.0).count();
            assert!(mask[..valid].iter().all(|&valid| valid == 1.0), "{name}: padding stands behind the text");
            ids[..valid].iter().map(|&id| id as u32).collect()
        })
        .collect();
    let width = config.d_model;
    let padded = expected["last_hidden_state"].values.chunks_exact(tokens * width);
    let hidden: Vec<f64> =
        padded.zip(&texts).flat_map(|(hidden, text)| &hidden[..text.len() * width]).copied().collect();
    // On the left, as LlamaGen hands them to its transformer, padding moves the same rows and changes none.
    let places = expected["left_padded"].values.chunks_exact(width).zip(&expected["left_padded_mask"].values);
    let moved: Vec<f64> = places.filter(|(_, valid)| **valid == 1.0).flat_map(|(row, _)| row).copied().collect();
    assert!(moved == hidden, "{name}: left padding");
    let expected = hidden;

    let encode_on = |executor: &dyn Executor, checkpoint: &Checkpoint, precision, rows, batch: usize| {
        let shape = T5Shape { rows, tokens, precision, activations: executor.activations() };
        let mut encoder = TextEncoder::new(executor, checkpoint, &config, &shape).expect("an encoder");
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let parts = texts.chunks(batch).map(|texts| encoder.encode(texts).expect("features"));
        parts.collect::<Vec<_>>().concat()
    };
    let cpu = CpuExecutor::new(2);
    let encode = |checkpoint: &Checkpoint, precision, rows, batch| encode_on(&cpu, checkpoint, precision, rows, batch);
    let values = |features: &[TextFeatures]| -> Vec<f64> {
        features.iter().flat_map(TextFeatures::values).map(|&x| f64::from(x)).collect()
    };
    let alone = encode(&checkpoint, Elem::F32, tokens, 1);
    let used = compare_to_largest(&format!("{name}: last_hidden_state"), values(&alone), &expected);
    println!("{name}: last_hidden_state: {:.1} % of the allowance", 100.0 * used);
    for (rows, batch) in [(texts.len() * tokens, texts.len()), (tokens + 3, texts.len()), (2 * tokens, 2)] {
        assert!(
            encode(&checkpoint, Elem::F32, rows, batch) == alone,
            "{name}: features depend on the texts beside them"
        );
    }

    // How much rounding moves features depends on the weights, as scores are not scaled. What the rounding of the
    // matrices alone does is known from the CPU, which rounds nothing else; the CUDA kernels round a product's input
    // up to twice as well: three independent errors of one size, whose squares add. Half as much again is allowed,
    // as an input's rounding need not weigh what a matrix's does.
    let error = |found: &[f64]| {
        let squares = found.iter().zip(&expected).map(|(found, expected)| (found - expected).powi(2));
        (squares.sum::<f64>() / expected.len() as f64).sqrt()
    };
    let of_matrices = error(&values(&encode(&checkpoint, Elem::Bf16, tokens, 1)));
    let allowed = 1.5 * 3f64.sqrt() * of_matrices;
    let what = format!("{name}: last_hidden_state");
    for (device, executor) in cuda_executors(&what) {
        let what = format!("{what} on {device}");
        let encode = |rows, batch| encode_on(executor.as_ref(), &checkpoint, Elem::Bf16, rows, batch);
        let alone = encode(tokens, 1);
        assert!(encode(tokens + 3, texts.len()) == alone, "{what}: features depend on the texts beside them");
        let found = error(&values(&alone));
        println!("{what}: error {found:.4} in the mean square, {allowed:.4} allowed");
        assert!(found <= allowed, "{what}: error {found} in the mean square, {allowed} allowed");
    }

    // In bf16 the matrices are rounded and nothing else is: f32 with the rounded values gives the same bits, or, by tiles,
    // what another order of sums makes of them.
    let rounded = |(name, tensor): (&String, &Tensor)| {
        let is_matrix = tensor.shape().len() == 2 && !name.contains("relative_attention_bias");
        let values = tensor.to_f32().into_iter().map(|x| if is_matrix { bf16::from_f32(x).to_f32() } else { x });
        (name.clone(), Tensor::from_f32(tensor.shape().to_vec(), &values.collect::<Vec<_>>()))
    };
    let tensors = checkpoint.tensors().iter().map(rounded).collect();
    let rounded = Checkpoint::from_tensors("rounded", tensors, checkpoint.metadata().clone());
    let expected = encode(&rounded, Elem::F32, tokens, 1);
    for isa in Isa::available() {
        let found = encode_on(&CpuExecutor::with_isa(2, isa), &checkpoint, Elem::Bf16, tokens, 1);
        if isa.by_tiles() {
            compare_to_largest(&format!("{name}: bf16 on {isa:?}"), values(&found), &values(&expected));
        } else {
            assert!(found == expected, "{name}: bf16 on {isa:?}");
        }
    }
}
