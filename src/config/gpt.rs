//! The transformer's sizes.

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

impl GptConfig {
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
}
