//! The text encoder's sizes: Hugging Face's T5 in its v1.1 form, of which flan-t5 is one.

use std::collections::BTreeMap;

use super::check::{check, count, number, shape, wrong};
use super::{ModelKind, TensorSpec};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// The text encoder's sizes, by the names of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    pub d_model: usize,
    /// Channels per head; `d_kv * num_heads` need not be `d_model`.
    pub d_kv: usize,
    pub num_heads: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub vocab_size: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f32,
    /// The name under which the checkpoint has the tokens' vectors.
    pub embedding: &'static str,
}

/// The tokens' vectors: encoder and decoder share them, and a file may have either name, or both.
const SHARED: &str = "shared.weight";
const OWN: &str = "encoder.embed_tokens.weight";
const BIAS: &str = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

impl T5Config {
    /// The released XL: flan-t5-xl, t5-v1_1-xl.
    pub fn xl() -> Self {
        Self {
            d_model: 2048,
            d_kv: 64,
            num_heads: 32,
            d_ff: 5120,
            num_layers: 24,
            vocab_size: 32128,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            embedding: SHARED,
        }
    }

    /// Channels of all heads together.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// Reads the sizes off the tensors, takes from the metadata what no shape tells, and checks every tensor.
    /// A full T5's decoder and head may be there; they are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for a tensor that is missing, unknown or of the wrong shape or type;
    /// [`Error::Mismatch`] when the metadata does not fit the tensors, or tells of a T5 of another form.
    pub fn detect(checkpoint: &Checkpoint) -> Result<Self> {
        let kind = ModelKind::T5;
        check_form(checkpoint)?;
        let embedding = if checkpoint.get(SHARED).is_none() && checkpoint.get(OWN).is_some() { OWN } else { SHARED };
        let [vocab_size, d_model] = shape(checkpoint, kind, embedding, "[vocab_size, d_model]")?;
        let [buckets, num_heads] = shape(checkpoint, kind, BIAS, "[buckets, num_heads]")?;
        let q = "encoder.block.0.layer.0.SelfAttention.q.weight";
        let [inner_dim, _] = shape(checkpoint, kind, q, "[num_heads * d_kv, d_model]")?;
        let wi_0 = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight";
        let [d_ff, _] = shape(checkpoint, kind, wi_0, "[d_ff, d_model]")?;
        if !inner_dim.is_multiple_of(num_heads) {
            return Err(wrong(checkpoint, q, format!("a multiple of {num_heads} rows"), inner_dim.to_string()));
        }
        if buckets < 4 || !buckets.is_multiple_of(4) {
            return Err(wrong(checkpoint, BIAS, "a multiple of 4 rows".into(), buckets.to_string()));
        }
        let metadata = checkpoint.metadata();
        let config = Self {
            d_model,
            d_kv: inner_dim / num_heads,
            num_heads,
            d_ff,
            num_layers: count(checkpoint, "encoder.block."),
            vocab_size,
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: number(metadata, "relative_attention_max_distance")?.unwrap_or(128),
            layer_norm_epsilon: number(metadata, "layer_norm_epsilon")?.unwrap_or(1e-6),
            embedding,
        };
        config.check_metadata(checkpoint)?;
        let others =
            |name: &str| name.starts_with("decoder.") || name.starts_with("lm_head.") || [SHARED, OWN].contains(&name);
        check(checkpoint, kind, &config.tensors(), others)?;
        Ok(config)
    }

    /// Holds the sizes that the metadata tells against those of the tensors.
    fn check_metadata(&self, checkpoint: &Checkpoint) -> Result<()> {
        for (name, found) in self.sizes() {
            let told: Option<usize> = number(checkpoint.metadata(), name)?;
            if let Some(told) = told.filter(|&told| told != found) {
                return Err(mismatch(checkpoint, name, format!("{found}, as the tensors have it"), told.to_string()));
            }
        }
        let distance = self.relative_attention_max_distance;
        if distance <= self.relative_attention_num_buckets / 4 {
            let expected = format!("more than {}", self.relative_attention_num_buckets / 4);
            return Err(mismatch(checkpoint, "relative_attention_max_distance", expected, distance.to_string()));
        }
        let epsilon = self.layer_norm_epsilon;
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            let expected = "a number above 0".to_string();
            return Err(mismatch(checkpoint, "layer_norm_epsilon", expected, epsilon.to_string()));
        }
        Ok(())
    }

    /// The sizes that the tensors tell too.
    fn sizes(&self) -> [(&'static str, usize); 7] {
        [
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("num_heads", self.num_heads),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("vocab_size", self.vocab_size),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
        ]
    }

    /// The configuration as a file's metadata has it, by the names of `config.json`.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata: BTreeMap<String, String> =
            self.sizes().map(|(name, size)| (name.to_string(), size.to_string())).into();
        let distance = self.relative_attention_max_distance.to_string();
        metadata.insert("relative_attention_max_distance".into(), distance);
        metadata.insert("layer_norm_epsilon".into(), self.layer_norm_epsilon.to_string());
        metadata.insert("feed_forward_proj".into(), "gated-gelu".into());
        metadata
    }

    /// Every tensor that the encoder needs, in the order of the model.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let Self { d_model, d_ff, num_heads, .. } = *self;
        let inner_dim = self.inner_dim();
        let mut tensors = Vec::new();
        let mut put = |name: &str, shape: &[usize]| tensors.push(TensorSpec::new(name, shape));
        put(self.embedding, &[self.vocab_size, d_model]);
        put(BIAS, &[self.relative_attention_num_buckets, num_heads]);
        for l in 0..self.num_layers {
            let mut put = |name: &str, shape: &[usize]| put(&format!("encoder.block.{l}.{name}.weight"), shape);
            put("layer.0.layer_norm", &[d_model]);
            put("layer.0.SelfAttention.q", &[inner_dim, d_model]);
            put("layer.0.SelfAttention.k", &[inner_dim, d_model]);
            put("layer.0.SelfAttention.v", &[inner_dim, d_model]);
            put("layer.0.SelfAttention.o", &[d_model, inner_dim]);
            put("layer.1.layer_norm", &[d_model]);
            put("layer.1.DenseReluDense.wi_0", &[d_ff, d_model]);
            put("layer.1.DenseReluDense.wi_1", &[d_ff, d_model]);
            put("layer.1.DenseReluDense.wo", &[d_model, d_ff]);
        }
        put("encoder.final_layer_norm.weight", &[d_model]);
        tensors
    }
}

/// Refuses a T5 of the first form, whose feed-forward part is one product and a ReLU, and other models.
fn check_form(checkpoint: &Checkpoint) -> Result<()> {
    for (name, expected) in [("model_type", &["t5"][..]), ("feed_forward_proj", &["gated-gelu"])] {
        let told = checkpoint.metadata().get(name);
        if let Some(told) = told.filter(|told| !expected.contains(&told.as_str())) {
            let found = format!("`{}`", told.chars().take(40).collect::<String>());
            return Err(mismatch(checkpoint, name, format!("`{}`", expected[0]), found));
        }
    }
    Ok(())
}

fn mismatch(checkpoint: &Checkpoint, name: &str, expected: String, found: String) -> Error {
    Error::Mismatch {
        what: format!("{}: `{name}` in its config.json", checkpoint.path().display()),
        expected,
        found,
        hint: "use the folder of a T5 v1.1 encoder, flan-t5-xl for LlamaGen's models".into(),
    }
}
