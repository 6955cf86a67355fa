//! Which model a checkpoint holds.

use std::collections::BTreeMap;

use super::{Condition, GptConfig, T5Config, TensorSpec, VqConfig};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// The models that checkpoints hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelKind {
    Gpt,
    Vq,
    /// The text encoder.
    T5,
}

impl ModelKind {
    /// Tells the kind by the names of the tensors; an error when they are of neither.
    pub fn detect(checkpoint: &Checkpoint) -> Result<Self> {
        let has = |prefix: &str| {
            let next = checkpoint.tensors().range(prefix.to_string()..).next();
            next.is_some_and(|(name, _)| name.starts_with(prefix))
        };
        if ["tok_embeddings.", "cls_embedding.", "layers."].into_iter().any(has) {
            return Ok(Self::Gpt);
        }
        if ["quantize.", "post_quant_conv.", "decoder.conv_blocks.", "decoder.conv_in."].into_iter().any(has) {
            return Ok(Self::Vq);
        }
        if ["encoder.block.", "shared."].into_iter().any(has) {
            return Ok(Self::T5);
        }
        let found = match checkpoint.tensors().keys().next() {
            Some(first) => format!("{} tensors, the first one `{first}`", checkpoint.tensors().len()),
            None => "no tensors".into(),
        };
        Err(Error::Mismatch {
            what: format!("{}: model", checkpoint.path().display()),
            expected: "tensors of LlamaGen's transformer (`tok_embeddings.weight` …) or VQ model \
                       (`quantize.embedding.weight` …), or of a T5 encoder (`shared.weight` …)"
                .into(),
            found,
            hint: String::new(),
        })
    }

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT checkpoint",
            Self::Vq => "VQ checkpoint",
            Self::T5 => "T5 encoder",
        }
    }
}

/// The configuration of any of the models.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    Gpt(GptConfig),
    Vq(VqConfig),
    T5(T5Config),
}

impl ModelConfig {
    /// Detects kind and configuration; see [`GptConfig::detect`], [`VqConfig::detect`] and [`T5Config::detect`].
    ///
    /// The second item is a line for the user, when something had to be guessed.
    pub fn detect(checkpoint: &Checkpoint, n_head: Option<usize>) -> Result<(Self, Option<String>)> {
        match ModelKind::detect(checkpoint)? {
            ModelKind::Gpt => {
                let (config, note) = GptConfig::detect(checkpoint, n_head)?;
                Ok((Self::Gpt(config), note))
            }
            ModelKind::Vq => Ok((Self::Vq(VqConfig::detect(checkpoint)?), None)),
            ModelKind::T5 => Ok((Self::T5(T5Config::detect(checkpoint)?), None)),
        }
    }

    /// Every tensor that the model needs, in the order of the model.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        match self {
            Self::Gpt(config) => config.tensors(),
            Self::Vq(config) => config.tensors(),
            Self::T5(config) => config.tensors(),
        }
    }

    /// The configuration as a converted file's metadata has it: `smalti.kind` (`gpt`, `vq` or `t5`), and the
    /// sizes by LlamaGen's names, T5's by Hugging Face's.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let list = |numbers: &[usize]| format!("{numbers:?}");
        let mut metadata = BTreeMap::new();
        let mut put = |name: &str, value: String| metadata.insert(name.to_string(), value);
        match self {
            Self::Gpt(config) => {
                put("smalti.kind", "gpt".into());
                put("dim", config.dim.to_string());
                put("n_layer", config.n_layer.to_string());
                put("n_head", config.n_head.to_string());
                put("hidden_dim", config.hidden_dim.to_string());
                put("vocab_size", config.vocab_size.to_string());
                put("norm_eps", config.norm_eps.to_string());
                put("rope_base", config.rope_base.to_string());
                match config.condition {
                    Condition::Class { num_classes } => {
                        put("model_type", "c2i".into());
                        put("num_classes", num_classes.to_string());
                        put("cls_token_num", "1".into());
                    }
                    Condition::Text { cls_token_num, caption_dim } => {
                        put("model_type", "t2i".into());
                        put("cls_token_num", cls_token_num.to_string());
                        put("caption_dim", caption_dim.to_string());
                    }
                }
            }
            Self::Vq(config) => {
                put("smalti.kind", "vq".into());
                put("codebook_size", config.codebook_size.to_string());
                put("codebook_embed_dim", config.codebook_embed_dim.to_string());
                put("z_channels", config.z_channels.to_string());
                put("ch", config.ch.to_string());
                put("num_res_blocks", config.num_res_blocks.to_string());
                put("decoder_ch_mult", list(&config.decoder_ch_mult));
                if let Some(ch_mult) = &config.encoder_ch_mult {
                    put("encoder_ch_mult", list(ch_mult));
                }
            }
            Self::T5(config) => {
                metadata = config.metadata();
                metadata.insert("smalti.kind".into(), "t5".into());
            }
        }
        metadata
    }
}
