//! Checkpoints: readers, conversion and detection, on good files, on bad ones, and on random bytes.

use std::path::{Path, PathBuf};

use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::{Condition, GptConfig, VqConfig};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, WeightsChoice::Model).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn golden_gpt_configurations() {
    let (config, note) = GptConfig::detect(&open(&golden("c2i/gpt.pt")), None).unwrap();
    assert_eq!(
        (config.dim, config.n_layer, config.n_head, config.hidden_dim, config.vocab_size),
        (128, 2, 2, 512, 256)
    );
    assert_eq!(config.condition, Condition::Class { num_classes: 10 });
    assert!(note.unwrap().contains("--n-head"));

    let checkpoint = open(&golden("c2i-head100-bf16/gpt.pt"));
    assert!(GptConfig::detect(&checkpoint, None).unwrap_err().hint().unwrap().contains("--n-head"));
    assert!(GptConfig::detect(&checkpoint, Some(3)).unwrap_err().is_usage());
    let (config, note) = GptConfig::detect(&checkpoint, Some(2)).unwrap();
    assert_eq!((config.head_dim(), note), (100, None));

    let (config, _) = GptConfig::detect(&open(&golden("t2i/gpt.pt")), None).unwrap();
    assert_eq!(config.condition, Condition::Text { cls_token_num: 120, caption_dim: 48 });
}

#[test]
fn golden_vq_configurations() {
    let config = VqConfig::detect(&open(&golden("vq16/vq.pt"))).unwrap();
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
    let config = VqConfig::detect(&open(&golden("vq8/vq.pt"))).unwrap();
    assert_eq!(config.decoder_ch_mult, [1, 1, 1, 2]);
    assert_eq!((config.codebook_size, config.codebook_embed_dim, config.downsample_size()), (300, 4, 8));
}
