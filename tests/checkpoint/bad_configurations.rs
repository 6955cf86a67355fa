//! Checkpoints that are files in order but no model of ours.

use std::collections::BTreeMap;

use smalti::Error;
use smalti::checkpoint::{Checkpoint, DType, Entry, Tensor, random};
use smalti::config::{Condition, GptConfig, ModelConfig, ModelKind, VqConfig};

use crate::files::has;

fn gpt(dim: usize) -> GptConfig {
    GptConfig {
        dim,
        n_layer: 2,
        n_head: 1,
        hidden_dim: 256,
        vocab_size: 8,
        condition: Condition::Class { num_classes: 2 },
        norm_eps: 1e-5,
        rope_base: 10000.0,
    }
}

fn vq() -> VqConfig {
    VqConfig {
        codebook_size: 16,
        codebook_embed_dim: 4,
        z_channels: 32,
        ch: 32,
        decoder_ch_mult: vec![1, 2],
        encoder_ch_mult: Some(vec![1, 2]),
        num_res_blocks: 1,
    }
}

fn made(config: &ModelConfig) -> Checkpoint {
    random("made", &Entry::all(config.tensors(), DType::BF16), BTreeMap::new(), 0)
}

/// The checkpoint of a configuration, after a change.
fn changed(config: ModelConfig, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Checkpoint {
    altered(&made(&config), change)
}

/// A checkpoint, after a change.
fn altered(made: &Checkpoint, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Checkpoint {
    let mut tensors = made.tensors().clone();
    change(&mut tensors);
    Checkpoint::from_tensors("changed.pt", tensors, BTreeMap::new())
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()])
}

/// What the user reads about a checkpoint of either model.
fn refusal(checkpoint: &Checkpoint) -> String {
    let error = ModelConfig::detect(checkpoint, None).unwrap_err();
    format!("{error}\nhint: {}", error.hint().unwrap_or_default())
}

#[test]
fn each_missing_tensor_is_named() {
    for config in [ModelConfig::Gpt(gpt(64)), ModelConfig::Vq(vq())] {
        let made = made(&config);
        for spec in config.tensors() {
            let checkpoint = altered(&made, |tensors| {
                tensors.remove(&spec.name);
            });
            let text = refusal(&checkpoint);
            has(&text, &["changed.pt", "expected", "found"]);
            // Where the list itself follows from a tensor, its absence can show in another.
            let by_itself = text.contains(&format!("`{}`", spec.name));
            let tells_levels = spec.name.contains("conv_blocks") || spec.name.starts_with("encoder.conv_in");
            assert!(by_itself || tells_levels, "{}: {text}", spec.name);
        }
    }
}

#[test]
fn each_wrong_shape_is_named() {
    for config in [ModelConfig::Gpt(gpt(64)), ModelConfig::Vq(vq())] {
        let made = made(&config);
        for spec in config.tensors() {
            let mut shape = spec.shape.clone();
            *shape.last_mut().unwrap() += 1;
            let checkpoint = altered(&made, |tensors| {
                tensors.insert(spec.name.clone(), zeros(&shape));
            });
            has(&refusal(&checkpoint), &["changed.pt", "expected", "found"]);
            for odd in [&[][..], &[0], &[0, 0], &[0, 0, 0, 0], &[1, 1, 1, 1, 1]] {
                let checkpoint = altered(&made, |tensors| {
                    tensors.insert(spec.name.clone(), zeros(odd));
                });
                has(&refusal(&checkpoint), &["expected", "found"]);
            }
        }
    }
}

#[test]
fn extra_tensors_and_types() {
    let text = refusal(&changed(ModelConfig::Gpt(gpt(64)), |tensors| {
        tensors.insert("layers.0.attention.bq".into(), zeros(&[3]));
    }));
    has(&text, &["`layers.0.attention.bq`", "no such tensor", "f32 [3]", "another model"]);
    let text = refusal(&changed(ModelConfig::Gpt(gpt(64)), |tensors| {
        tensors.insert("layers.18446744073709551615.x".into(), zeros(&[3]));
    }));
    has(&text, &["layers.2.attention_norm.weight", "no such tensor"]);
    let whole = Entry { name: "norm.weight".into(), dtype: DType::I64, shape: vec![64] };
    let whole = random("whole", &[whole], BTreeMap::new(), 0).get("norm.weight").unwrap().clone();
    let text = refusal(&changed(ModelConfig::Gpt(gpt(64)), |tensors| {
        tensors.insert("norm.weight".into(), whole);
    }));
    has(&text, &["`norm.weight`", "bf16", "i64"]);
}

#[test]
fn the_other_model() {
    let error = VqConfig::detect(&changed(ModelConfig::Gpt(gpt(64)), |_| {})).unwrap_err();
    has(error.hint().unwrap(), &["holds a GPT", "expected a VQ"]);
    let error = GptConfig::detect(&changed(ModelConfig::Vq(vq()), |_| {}), None).unwrap_err();
    has(error.hint().unwrap(), &["holds a VQ", "expected a GPT"]);
    let none = Checkpoint::from_tensors("none.pt", BTreeMap::from([("w".into(), zeros(&[1]))]), BTreeMap::new());
    has(&ModelKind::detect(&none).unwrap_err().to_string(), &["none.pt", "`w`", "tok_embeddings.weight"]);
}

#[test]
fn heads_that_do_not_fit() {
    let checkpoint = |dim: usize, n_head: Option<&str>| {
        let made = random("made.pt", &Entry::all(gpt(dim).tensors(), DType::BF16), BTreeMap::new(), 0);
        let metadata = n_head.map(|n_head| ("n_head".to_string(), n_head.to_string()));
        Checkpoint::from_tensors("made.pt", made.tensors().clone(), metadata.into_iter().collect())
    };
    // 64 / 32 leaves 2 channels, too few for pairs that turn by row and by column.
    for flag in [0, 3, 32, usize::MAX] {
        let error = GptConfig::detect(&checkpoint(64, None), Some(flag)).unwrap_err();
        assert!(matches!(error, Error::Option { option: "n-head", .. }) && error.is_usage());
        has(&error.to_string(), &["--n-head", "dim 64"]);
    }
    for text in ["0", "3", "-1", "many", ""] {
        let error = GptConfig::detect(&checkpoint(64, Some(text)), None).unwrap_err();
        has(&error.to_string(), &["n_head", "expected"]);
    }
    let error = GptConfig::detect(&checkpoint(72, None), None).unwrap_err();
    has(&error.to_string(), &["made.pt", "n_head", "dim 72"]);
    has(error.hint().unwrap(), &["--n-head"]);
}

#[test]
fn widths_that_do_not_fit() {
    let config = VqConfig { ch: 48, ..vq() };
    has(&refusal(&changed(ModelConfig::Vq(config), |_| {})), &["conv_blocks", "multiple of 32", "48"]);
    let text = refusal(&changed(ModelConfig::Vq(vq()), |tensors| {
        tensors.insert("encoder.conv_in.weight".into(), zeros(&[64, 3, 3, 3]));
    }));
    has(&text, &["conv_blocks", "multiple of ch 64", "32"]);
}
