//! The transformer's text part: from a text's features to the one cache row that stands for it.
//!
//! ```text
//! linear(cap_proj.fc1), gelu; linear(cap_proj.fc2);
//! for each layer { norm_linear(v of wqkv); prefix_mean; linear_residual(wo); norm_swiglu; linear_residual(w2) };
//! norm_logits
//! ```
//!
//! Condition tokens have q = k = 0: attention among them is the running mean of their V, and to an image token
//! all n of them are one row with k = 0, the mean V, and log n on its score. LlamaGen pads on the left, so the
//! last valid token stands before the first image token and its logits say it; padding has no rows.

use crate::config::GptConfig;
use crate::graph::ops::{
    Activation, CacheShape, Linear, LinearResidual, NormLinear, NormLogits, NormSwiglu, PrefixMean, Sample, SetPrefix,
};
use crate::graph::{BufferId, Elem, Graph, Per, PhaseId, Role, Source, WeightId};

use super::GptShape;

/// What a session drives the text part by.
#[derive(Clone, Copy, Debug)]
pub struct GptText {
    /// Takes `caption` through the projector and all layers; leaves each text's means in `prefixes`, and in
    /// `logits` at its last row what says token 0. A row's slot is its text's place in `prefixes`.
    pub prefill: PhaseId,
    /// Puts the `prefixes` of the rows' slots into the cache.
    pub set_prefix: PhaseId,
    /// Draws from `logits` alone.
    pub draw: PhaseId,
    /// (R, caption_dim) in, held as the shape's activations
    pub caption: BufferId,
    /// (B, L, C) the mean V of a text's tokens in every layer, f32
    pub prefixes: BufferId,
}

/// The step's buffers that the text part works in too.
pub(super) struct Buffers {
    pub rows: BufferId,
    pub draws: BufferId,
    pub x: BufferId,
    pub q: BufferId,
    pub heads: BufferId,
    pub hidden: BufferId,
    pub logits: BufferId,
    pub codes: BufferId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
}

impl GptText {
    /// Nodes before the first layer.
    pub const PROJECTOR: usize = 2;

    /// Adds the text part's buffers and phases to a transformer's graph.
    pub(super) fn add(
        g: &mut Graph,
        config: &GptConfig,
        caption_dim: usize,
        shape: &GptShape,
        cache: CacheShape,
        buffers: &Buffers,
    ) -> Self {
        let GptConfig { dim, n_layer, hidden_dim, vocab_size, norm_eps: eps, .. } = *config;
        let Buffers { rows, draws, x, q, heads, hidden, logits, codes, k_cache, v_cache } = *buffers;
        let caption = g.buffer("caption", shape.activations, Per::Row, &[caption_dim], Role::Input);
        let prefixes = g.buffer("prefixes", Elem::F32, Per::Plan, &[shape.slots, n_layer, dim], Role::State);

        let matrix = |g: &mut Graph, name: &str, shape_: &[usize]| -> WeightId {
            g.weight(format!("{name}.weight"), shape.precision, shape_, Source::Tensor)
        };
        let norm = |g: &mut Graph, name: &str| g.weight(format!("{name}.weight"), Elem::F32, &[dim], Source::Tensor);

        let prefill = g.phase("prefill");
        let name = "cls_embedding.cap_proj.fc1";
        let weight = matrix(g, name, &[dim, caption_dim]);
        let activation = Activation::GeluTanh;
        g.push(
            prefill,
            name,
            Linear { out: heads, input: caption, weight, width: dim, depth: caption_dim, activation },
        );
        let name = "cls_embedding.cap_proj.fc2";
        let weight = matrix(g, name, &[dim, dim]);
        let activation = Activation::Identity;
        g.push(prefill, name, Linear { out: x, input: heads, weight, width: dim, depth: dim, activation });
        for layer in 0..n_layer {
            let at = format!("layers.{layer}");
            let attention_norm = norm(g, &format!("{at}.attention_norm"));
            let name = format!("{at}.attention.wqkv");
            let weight = matrix(g, &name, &[3 * dim, dim]);
            // q's place is free: nothing asks for it.
            let v = q;
            let product =
                NormLinear { out: v, x, norm: attention_norm, weight, first: 2 * dim, width: dim, depth: dim, eps };
            g.push(prefill, name, product);
            let mean = PrefixMean { out: heads, prefixes, v, rows, layer, n_layer, dim };
            g.push(prefill, format!("{at}.attention"), mean);
            let name = format!("{at}.attention.wo");
            let weight = matrix(g, &name, &[dim, dim]);
            g.push(prefill, name, LinearResidual { x, input: heads, weight, width: dim, depth: dim });
            let ffn_norm = norm(g, &format!("{at}.ffn_norm"));
            let name = format!("{at}.feed_forward.w1");
            let w1 = matrix(g, &name, &[hidden_dim, dim]);
            let w3 = matrix(g, &format!("{at}.feed_forward.w3"), &[hidden_dim, dim]);
            g.push(prefill, name, NormSwiglu { out: hidden, x, norm: ffn_norm, w1, w3, hidden_dim, dim, eps });
            let name = format!("{at}.feed_forward.w2");
            let weight = matrix(g, &name, &[dim, hidden_dim]);
            g.push(prefill, name, LinearResidual { x, input: hidden, weight, width: dim, depth: hidden_dim });
        }
        let last_norm = norm(g, "norm");
        let output = matrix(g, "output", &[vocab_size, dim]);
        g.push(prefill, "output", NormLogits { logits, x, norm: last_norm, output, vocab_size, dim, eps });

        let set_prefix = g.phase("set_prefix");
        g.push(set_prefix, "prefixes", SetPrefix { k_cache, v_cache, prefixes, rows, n_layer, cache });

        let draw = g.phase("draw");
        let (tokens, pictures) = (shape.tokens(), shape.pictures);
        g.push(draw, "sample", Sample { codes, drawn: None, rows, draws, logits, vocab_size, tokens, pictures });
        Self { prefill, set_prefix, draw, caption, prefixes }
    }
}
