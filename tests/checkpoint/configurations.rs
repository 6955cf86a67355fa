//! What is detected in good checkpoints.

use std::collections::BTreeMap;

use smalti::checkpoint::{Checkpoint, DType, Entry, random};
use smalti::config::{Condition, GptConfig, ModelConfig, ModelKind, PRESETS, Preset, VqConfig, default_image_size};

use crate::files::{data, open};

#[test]
fn golden_gpt() {
    let (config, note) = GptConfig::detect(&open(&data("golden/c2i/gpt.pt")), None).unwrap();
    assert_eq!(
        (config.dim, config.n_layer, config.n_head, config.hidden_dim, config.vocab_size),
        (128, 2, 2, 512, 256)
    );
    assert_eq!(config.condition, Condition::Class { num_classes: 10 });
    assert!(note.unwrap().contains("--n-head"));

    let checkpoint = open(&data("golden/c2i-head100-bf16/gpt.pt"));
    assert!(GptConfig::detect(&checkpoint, None).unwrap_err().hint().unwrap().contains("--n-head"));
    let (config, note) = GptConfig::detect(&checkpoint, Some(2)).unwrap();
    assert_eq!((config.head_dim(), note), (100, None));

    let (config, _) = GptConfig::detect(&open(&data("golden/t2i/gpt.pt")), None).unwrap();
    assert_eq!(config.condition, Condition::Text { cls_token_num: 120, caption_dim: 48 });
}

#[test]
fn golden_vq() {
    let config = VqConfig::detect(&open(&data("golden/vq16/vq.pt"))).unwrap();
    assert_eq!(
        config,
        VqConfig {
            codebook_size: 256,
            codebook_embed_dim: 8,
            z_channels: 32,
            ch: 32,
            decoder_ch_mult: vec![1; 5],
            encoder_ch_mult: Some(vec![1; 5]),
            num_res_blocks: 2,
        }
    );
    assert_eq!(config.downsample_size(), 16);
    let config = VqConfig::detect(&open(&data("golden/vq8/vq.pt"))).unwrap();
    assert_eq!(config.decoder_ch_mult, [1, 1, 1, 2]);
    assert_eq!((config.codebook_size, config.codebook_embed_dim, config.downsample_size()), (300, 4, 8));
}

/// Tensors of a configuration that need no memory: zeros, one element wide.
fn hollow(config: &ModelConfig, metadata: &[(&str, &str)]) -> Checkpoint {
    let zeros = smalti::checkpoint::Bytes::Static(&[0; 2]);
    let tensor = |shape: Vec<usize>| {
        let strides = vec![0; shape.len()];
        smalti::checkpoint::Tensor::strided(DType::BF16, shape, strides, zeros.clone(), 0).unwrap()
    };
    let tensors = config.tensors().into_iter().map(|spec| (spec.name, tensor(spec.shape))).collect();
    let metadata = metadata.iter().map(|&(name, text)| (name.to_string(), text.to_string())).collect();
    Checkpoint::from_tensors("hollow", tensors, metadata)
}

#[test]
fn every_released_gpt() {
    let parameters = [
        111_000_000,
        343_000_000,
        775_000_000,
        1_411_000_000,
        3_898_000_000,
        1_222_000_000,
        3_081_000_000,
        6_608_000_000u64,
    ];
    for (preset, about) in PRESETS.iter().zip(parameters) {
        for condition in
            [Condition::Class { num_classes: 1000 }, Condition::Text { cls_token_num: 120, caption_dim: 2048 }]
        {
            let config = GptConfig::of_preset(preset, condition);
            let found = GptConfig::detect(&hollow(&ModelConfig::Gpt(config.clone()), &[]), None).unwrap();
            assert_eq!(found, (config.clone(), None), "{}", preset.name);
            let count: usize = config.tensors().iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
            // The papers' counts are rounded, and count one condition only.
            assert!((count as f64 / about as f64 - 1.0).abs() < 0.05, "{}: {count} parameters", preset.name);
        }
        assert_eq!(Preset::named(&format!("gpt-{}", preset.name.to_lowercase())), Some(preset));
    }
    assert_eq!(Preset::named("M"), None);
}

#[test]
fn every_released_vq_with_and_without_encoder() {
    for ch_mult in [&[1, 1, 2, 2, 4][..], &[1, 2, 2, 4]] {
        let mut config = VqConfig::released(ch_mult);
        assert_eq!(VqConfig::detect(&hollow(&ModelConfig::Vq(config.clone()), &[])).unwrap(), config);
        config.encoder_ch_mult = None;
        assert_eq!(VqConfig::detect(&hollow(&ModelConfig::Vq(config.clone()), &[])).unwrap(), config);
    }
}

#[test]
fn other_vq_shapes() {
    let config = VqConfig {
        codebook_size: 512,
        codebook_embed_dim: 16,
        z_channels: 48,
        ch: 32,
        decoder_ch_mult: vec![1, 3],
        encoder_ch_mult: Some(vec![2, 2, 5]),
        num_res_blocks: 1,
    };
    assert_eq!(VqConfig::detect(&hollow(&ModelConfig::Vq(config.clone()), &[])).unwrap(), config);
    assert_eq!(config.downsample_size(), 2);
}

#[test]
fn heads_by_flag_then_metadata_then_preset_then_64() {
    let of = |dim: usize, n_layer: usize| {
        let preset = Preset { name: "", n_layer, n_head: 1, dim };
        ModelConfig::Gpt(GptConfig::of_preset(&preset, Condition::Class { num_classes: 10 }))
    };
    let heads = |config: &ModelConfig, metadata: &[(&str, &str)], flag| {
        let (config, note) = GptConfig::detect(&hollow(config, metadata), flag).unwrap();
        (config.n_head, note.is_some())
    };
    let b = of(768, 12);
    assert_eq!(heads(&b, &[("n_head", "6")], Some(3)), (3, false));
    assert_eq!(heads(&b, &[("n_head", "6")], None), (6, false));
    assert_eq!(heads(&b, &[], None), (12, false));
    assert_eq!(heads(&of(768, 11), &[], None), (12, true));
    assert_eq!(heads(&of(3200, 24), &[], None), (32, false));
}

#[test]
fn eps_and_base_come_from_the_metadata() {
    let config = ModelConfig::Gpt(GptConfig::of_preset(&PRESETS[0], Condition::Class { num_classes: 3 }));
    let (found, _) =
        GptConfig::detect(&hollow(&config, &[("norm_eps", "1e-6"), ("rope_base", "500000")]), None).unwrap();
    assert_eq!((found.norm_eps, found.rope_base), (1e-6, 500_000.0));
}

#[test]
fn leftovers_of_training_do_not_matter() {
    let config = VqConfig::released(&[1, 2]);
    let mut entries = Entry::all(ModelConfig::Vq(VqConfig { encoder_ch_mult: None, ..config }).tensors(), DType::BF16);
    for name in ["quantize.codebook_used", "quant_conv.weight", "loss.lpips.weight", "x.num_batches_tracked"] {
        entries.push(Entry { name: name.into(), dtype: DType::F32, shape: vec![2] });
    }
    entries.push(Entry { name: "step".into(), dtype: DType::I64, shape: vec![] });
    let checkpoint = random("vq", &entries, BTreeMap::new(), 1);
    assert_eq!(ModelKind::detect(&checkpoint).unwrap(), ModelKind::Vq);
    VqConfig::detect(&checkpoint).unwrap();
}

#[test]
fn image_sizes() {
    let class = Condition::Class { num_classes: 1000 };
    let size = |path: &str, metadata: &[(&str, &str)]| {
        let metadata = metadata.iter().map(|&(name, text)| (name.to_string(), text.to_string())).collect();
        default_image_size(&Checkpoint::from_tensors(path, BTreeMap::new(), metadata), &class, 16)
    };
    assert_eq!(size("c2i_B_256.pt", &[("image_size", "128")]), 128);
    assert_eq!(size("c2i_B_256.pt", &[("block_size", "576")]), 384);
    assert_eq!(size("c2i_B_256.pt", &[("block_size", "577")]), 256);
    assert_eq!(size("512/c2i_XXL_384.pt", &[]), 384);
    assert_eq!(size("t2i_XL_stage2_512.pt", &[]), 512);
    assert_eq!(size("steps_2560.pt", &[]), 384);
    assert_eq!(size("run12563840.pt", &[]), 384);
    assert_eq!(size("gpt.pt", &[]), 384);
    let text = Condition::Text { cls_token_num: 120, caption_dim: 2048 };
    assert_eq!(
        default_image_size(&Checkpoint::from_tensors("gpt.pt", BTreeMap::new(), BTreeMap::new()), &text, 16),
        512
    );
}
