//! T5 encoders: sizes from tensors and config.json, whole T5s in PyTorch's shards, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use smalti::Error;
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, DType, Tensor, WeightsChoice};
use smalti::config::{ModelConfig, T5Config};
use smalti::generate::TextEncoder;
use smalti::graph::Elem;
use smalti::models::T5Shape;

/// A whole T5 of one block in two `.bin` files, f16.
fn whole() -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/t5_bin");
    Checkpoint::open(&folder, WeightsChoice::Model).expect("the folder opens")
}

/// The same with other tensors or other entries of config.json.
fn changed(change: impl Fn(&mut BTreeMap<String, Tensor>, &mut BTreeMap<String, String>)) -> Result<T5Config, Error> {
    let (whole, mut tensors) = (whole(), whole().tensors().clone());
    let mut metadata = whole.metadata().clone();
    change(&mut tensors, &mut metadata);
    T5Config::detect(&Checkpoint::from_tensors("changed", tensors, metadata))
}

#[test]
fn a_whole_t5_in_shards_has_an_encoder() {
    let checkpoint = whole();
    let names = checkpoint.tensors().keys();
    assert!(names.clone().any(|name| name.starts_with("decoder.")) && checkpoint.get("lm_head.weight").is_some());
    let config = T5Config::detect(&checkpoint).expect("a T5 encoder");
    let expected =
        T5Config { d_model: 8, d_kv: 6, num_heads: 2, d_ff: 16, num_layers: 1, vocab_size: 20, ..T5Config::xl() };
    assert_eq!(config, expected);
    for spec in config.tensors() {
        assert_eq!(checkpoint.get(&spec.name).expect("a tensor").shape(), spec.shape, "{}", spec.name);
    }
    let (found, note) = ModelConfig::detect(&checkpoint, None).expect("a model");
    assert_eq!((found, note), (ModelConfig::T5(expected), None));
}

#[test]
fn its_f16_weights_encode_as_the_same_numbers_in_f32_do() {
    let f16 = whole();
    let config = T5Config::detect(&f16).expect("a T5 encoder");
    let widened = f16.tensors().iter().map(|(name, tensor)| {
        assert_eq!(tensor.dtype(), DType::F16, "{name}");
        (name.clone(), Tensor::from_f32(tensor.shape().to_vec(), &tensor.to_f32()))
    });
    let f32 = Checkpoint::from_tensors("widened", widened.collect(), f16.metadata().clone());
    let executor = CpuExecutor::new(1);
    let shape = T5Shape { rows: 8, tokens: 8, precision: Elem::F32, activations: executor.activations() };
    let features = |checkpoint: &Checkpoint| {
        let mut encoder = TextEncoder::new(&executor, checkpoint, &config, &shape).expect("an encoder");
        encoder.encode(&[&[3, 7, 19, 1], &[1]]).expect("features")
    };
    let found = features(&f16);
    assert!(found == features(&f32));
    assert!(found[0].values().iter().all(|x| x.is_finite()) && found[0].values().iter().any(|&x| x != 0.0));
}

#[test]
fn the_tokens_vectors_may_have_either_name() {
    let config = changed(|tensors, _| drop(tensors.remove("shared.weight"))).expect("a T5 encoder");
    assert_eq!(config.embedding, "encoder.embed_tokens.weight");
    let config = changed(|tensors, _| drop(tensors.remove("encoder.embed_tokens.weight"))).expect("a T5 encoder");
    assert_eq!(config.embedding, "shared.weight");
}

#[test]
fn what_does_not_fit_is_named() {
    type Change = fn(&mut BTreeMap<String, Tensor>, &mut BTreeMap<String, String>);
    let cases: [(Change, &[&str]); 7] = [
        (
            |tensors, _| drop(tensors.remove("encoder.block.0.layer.0.SelfAttention.k.weight")),
            &["`encoder.block.0.layer.0.SelfAttention.k.weight`", "[12, 8]", "no such tensor"],
        ),
        (
            |tensors, _| {
                drop(tensors.insert("encoder.final_layer_norm.weight".into(), Tensor::from_f32(vec![9], &[1.0; 9])))
            },
            &["`encoder.final_layer_norm.weight`", "[8]", "[9]"],
        ),
        (
            |tensors, _| drop(tensors.insert("encoder.extra.weight".into(), Tensor::from_f32(vec![1], &[1.0]))),
            &["`encoder.extra.weight`", "no such tensor in this T5 encoder"],
        ),
        (
            |_, metadata| drop(metadata.insert("feed_forward_proj".into(), "relu".into())),
            &["`feed_forward_proj`", "`gated-gelu`", "`relu`"],
        ),
        (|_, metadata| drop(metadata.insert("model_type".into(), "bert".into())), &["`model_type`", "`t5`", "`bert`"]),
        (
            |_, metadata| drop(metadata.insert("d_kv".into(), "64".into())),
            &["`d_kv`", "6, as the tensors have it", "found 64"],
        ),
        (
            |_, metadata| drop(metadata.insert("layer_norm_epsilon".into(), "0".into())),
            &["`layer_norm_epsilon`", "above 0"],
        ),
    ];
    for (change, words) in cases {
        let told = changed(change).expect_err("it does not fit").to_string();
        for word in words {
            assert!(told.contains(word), "{word} in {told}");
        }
    }
}
