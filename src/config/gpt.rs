//! The transformer's sizes.

use super::check::{check, count, number, shape};
use super::{ModelKind, Preset, TensorSpec};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// What a GPT is conditioned on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A class label (c2i): `cls_embedding.embedding_table` has `num_classes + 1` rows, the last one unconditional.
    Class { num_classes: usize },
    /// T5 features of a text (t2i): `cls_embedding.cap_proj`, `cls_token_num` positions of `caption_dim`.
    Text { cls_token_num: usize, caption_dim: usize },
}

/// The transformer's sizes, by the names of LlamaGen's `ModelArgs`.
#[derive(Clone, Debug, PartialEq)]
pub struct GptConfig {
    pub dim: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Width of the feed-forward part: rows of `w1` and `w3`.
    pub hidden_dim: usize,
    pub vocab_size: usize,
    pub condition: Condition,
    pub norm_eps: f32,
    pub rope_base: f32,
}

const TABLE: &str = "cls_embedding.embedding_table.weight";
const FC1: &str = "cls_embedding.cap_proj.fc1.weight";
const FC2: &str = "cls_embedding.cap_proj.fc2.weight";
const UNCOND: &str = "cls_embedding.uncond_embedding";

/// LlamaGen's values, which no checkpoint but a Hub folder's config.json repeats.
const NORM_EPS: f32 = 1e-5;
const ROPE_BASE: f32 = 10000.0;

impl GptConfig {
    /// A released size with LlamaGen's defaults: vocabulary 16384, and for texts 120 tokens of 2048.
    pub fn of_preset(preset: &Preset, condition: Condition) -> Self {
        Self {
            dim: preset.dim,
            n_layer: preset.n_layer,
            n_head: preset.n_head,
            hidden_dim: (8 * preset.dim / 3).next_multiple_of(256),
            vocab_size: 16384,
            condition,
            norm_eps: NORM_EPS,
            rope_base: ROPE_BASE,
        }
    }

    /// Channels of one attention head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_head
    }

    /// The label that stands for "no class"; 0 for a text model, which has none.
    pub fn unconditional_label(&self) -> u32 {
        match self.condition {
            Condition::Class { num_classes } => num_classes as u32,
            Condition::Text { .. } => 0,
        }
    }

    /// Reads the sizes off the tensors and checks every tensor against them.
    ///
    /// The number of heads shows in no shape. It is `n_head` when given, else the metadata's, else that of
    /// the [`Preset`] of this `dim` and `n_layer`, else `dim / 64`; the second item then is a line that
    /// tells the user so.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a tensor that is missing, unknown or of the wrong shape or type;
    /// [`Error::Option`] when `n_head` does not fit; [`Error::Mismatch`] when the metadata does not fit or
    /// the number of heads cannot be told.
    pub fn detect(checkpoint: &Checkpoint, n_head: Option<usize>) -> Result<(Self, Option<String>)> {
        let kind = ModelKind::Gpt;
        let [vocab_size, dim] = shape(checkpoint, kind, "tok_embeddings.weight", "[vocab_size, dim]")?;
        let [hidden_dim, _] = shape(checkpoint, kind, "layers.0.feed_forward.w1.weight", "[hidden_dim, dim]")?;
        let has_text = [FC1, FC2, UNCOND].iter().any(|&name| checkpoint.get(name).is_some());
        let condition = if has_text && checkpoint.get(TABLE).is_none() {
            let [cls_token_num, caption_dim] = shape(checkpoint, kind, UNCOND, "[cls_token_num, caption_dim]")?;
            Condition::Text { cls_token_num, caption_dim }
        } else {
            let [rows, _] = shape(checkpoint, kind, TABLE, "[num_classes + 1, dim]")?;
            Condition::Class { num_classes: rows - 1 }
        };
        if let Condition::Class { num_classes: 0 } = condition {
            return Err(super::check::wrong(checkpoint, TABLE, "at least 2 rows".into(), "1".into()));
        }
        let n_layer = count(checkpoint, "layers.");
        let positive = |name: &str, default: f32| -> Result<f32> {
            let value = number(checkpoint.metadata(), name)?.unwrap_or(default);
            if value > 0.0 && value.is_finite() {
                return Ok(value);
            }
            Err(mismatch(checkpoint, name, "a number above 0".into(), value.to_string()))
        };
        let (norm_eps, rope_base) = (positive("norm_eps", NORM_EPS)?, positive("rope_base", ROPE_BASE)?);
        // The list of tensors does not depend on the heads, so a wrong tensor is told before them.
        let mut config = Self { dim, n_layer, n_head: 1, hidden_dim, vocab_size, condition, norm_eps, rope_base };
        check(checkpoint, kind, &config.tensors(), |_| false)?;
        let (n_head, note) = heads(checkpoint, n_head, dim, n_layer)?;
        config.n_head = n_head;
        Ok((config, note))
    }

    /// Every tensor that the model needs, in the order of the model.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let Self { dim, hidden_dim, vocab_size, .. } = *self;
        let mut tensors = Vec::new();
        let mut put = |name: &str, shape: &[usize]| tensors.push(TensorSpec::new(name, shape));
        match self.condition {
            Condition::Class { num_classes } => put(TABLE, &[num_classes + 1, dim]),
            Condition::Text { cls_token_num, caption_dim } => {
                put(FC1, &[dim, caption_dim]);
                put(FC2, &[dim, dim]);
                put(UNCOND, &[cls_token_num, caption_dim]);
            }
        }
        put("tok_embeddings.weight", &[vocab_size, dim]);
        for l in 0..self.n_layer {
            let mut put = |name: &str, shape: &[usize]| put(&format!("layers.{l}.{name}.weight"), shape);
            put("attention_norm", &[dim]);
            put("attention.wqkv", &[3 * dim, dim]);
            put("attention.wo", &[dim, dim]);
            put("ffn_norm", &[dim]);
            put("feed_forward.w1", &[hidden_dim, dim]);
            put("feed_forward.w3", &[hidden_dim, dim]);
            put("feed_forward.w2", &[dim, hidden_dim]);
        }
        put("norm.weight", &[dim]);
        put("output.weight", &[vocab_size, dim]);
        tensors
    }
}

/// Why a number of heads does not fit a width; `None` when it does.
///
/// The rotation turns pairs, half of them by the row and half by the column, hence the 4.
fn misfit(n_head: usize, dim: usize) -> Option<String> {
    let fits = n_head > 0 && dim.is_multiple_of(n_head) && (dim / n_head).is_multiple_of(4);
    (!fits).then(|| format!("a divisor of dim {dim} that leaves a multiple of 4 channels per head"))
}

/// The number of heads, and what to tell the user about it.
fn heads(checkpoint: &Checkpoint, flag: Option<usize>, dim: usize, n_layer: usize) -> Result<(usize, Option<String>)> {
    if let Some(n_head) = flag {
        return match misfit(n_head, dim) {
            None => Ok((n_head, None)),
            Some(expected) => {
                Err(Error::Option { option: "n-head", value: n_head.to_string(), expected, hint: String::new() })
            }
        };
    }
    if let Some(n_head) = number(checkpoint.metadata(), "n_head")? {
        return match misfit(n_head, dim) {
            None => Ok((n_head, None)),
            Some(expected) => Err(mismatch(checkpoint, "n_head", expected, n_head.to_string())),
        };
    }
    if let Some(preset) = Preset::of(dim, n_layer) {
        return Ok((preset.n_head, None));
    }
    if dim.is_multiple_of(64) {
        let n_head = dim / 64;
        let note = format!(
            "{}: n_head {n_head} is a guess (dim {dim} / 64); set --n-head if the model has another",
            checkpoint.path().display()
        );
        return Ok((n_head, Some(note)));
    }
    let expected = format!("the number of heads of a model with dim {dim} and n_layer {n_layer}");
    Err(mismatch(checkpoint, "n_head", expected, "none in the file".into()))
}

fn mismatch(checkpoint: &Checkpoint, name: &str, expected: String, found: String) -> Error {
    Error::Mismatch {
        what: format!("{}: {name}", checkpoint.path().display()),
        expected,
        found,
        hint: match name {
            "n_head" => "set --n-head; it is in the model's training settings".into(),
            _ => String::new(),
        },
    }
}
