//! The transformer: a plain Llama over image codes, conditioned on a class or a text.
//!
//! ```text
//! embed; for each layer { norm_qkv_rope; attention; linear_residual(wo); norm_swiglu; linear_residual(w2) };
//! norm_logits; sample
//! ```
//!
//! A row at position 0 is the condition, at position 1 + t the image token t; its logits say token t + 1
//! (or, from the condition, token 0). So a class prefill is a step like any other; a text's is a phase of its
//! own, [`GptText`], and so is a step of several rows per sequence, [`GptLookahead`].

use crate::config::{Condition, GptConfig};
use crate::graph::ops::{Attention, CacheShape, Embed, LinearResidual, NormLogits, NormQkvRope, NormSwiglu, Sample};
use crate::graph::{BufferId, Elem, Extent, Graph, Per, PhaseId, Role, Source};

use super::gpt_lookahead::GptLookahead;
use super::gpt_text::{Buffers, GptText};

/// How much a plan of the transformer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GptShape {
    /// P: codes per side; the picture has P * P.
    pub latent_size: usize,
    /// B: sequences in the cache.
    pub slots: usize,
    /// The most rows of a step: two for each picture, or more for windows; a text model's plan holds at least a
    /// whole text's.
    pub rows: usize,
    /// Pictures whose codes are kept.
    pub pictures: usize,
    /// What matrices and cache are held as: [`Elem::F32`] or [`Elem::Bf16`]. Norms and the residual stream are f32.
    pub precision: Elem,
    /// What the inputs of `wo`, `w2` and a text's projector are held as; each executor has its own.
    pub activations: Elem,
}

impl GptShape {
    /// N: tokens of a picture.
    pub fn tokens(&self) -> usize {
        self.latent_size * self.latent_size
    }

    /// The widest windows that all places can have at once, pictures being guided; 1 is one-by-one decoding.
    pub fn window(&self) -> usize {
        (self.rows / (2 * self.pictures)).clamp(1, self.tokens())
    }

    /// The widest window that one picture can have, when it has all rows.
    pub fn widest_window(&self) -> usize {
        self.rows.clamp(1, self.tokens())
    }
}

/// The transformer's graph and the buffers that a session drives it by.
#[derive(Clone, Debug)]
pub struct GptGraph {
    pub graph: Graph,
    /// Embeds, runs all layers, draws.
    pub step: PhaseId,
    /// (R) in; the drawn rows move on by themselves
    pub rows: BufferId,
    /// (draws) in; they move on by themselves
    pub draws: BufferId,
    /// (B) log of the number of condition tokens, 0 for a class
    pub prefix_log_n: BufferId,
    /// (R, C) the residual stream
    pub x: BufferId,
    /// (R, V)
    pub logits: BufferId,
    /// (pictures, N) out
    pub codes: BufferId,
    /// (L, B, H, S, D)
    pub k_cache: BufferId,
    /// (L, B, H, S, D)
    pub v_cache: BufferId,
    /// A text model's prefill.
    pub text: Option<GptText>,
    /// Where there are rows for windows.
    pub lookahead: Option<GptLookahead>,
}

impl GptGraph {
    /// Ops per layer; the first layer starts behind the embedding.
    pub const NODES_PER_LAYER: usize = 5;

    /// Lays the transformer out.
    pub fn new(config: &GptConfig, shape: &GptShape) -> Self {
        assert!(config.head_dim().is_multiple_of(4), "the rotation turns pairs of two halves: {config:?}");
        let GptConfig { dim, hidden_dim, vocab_size, norm_eps: eps, .. } = *config;
        let tokens = shape.tokens();
        let positions = 1 + tokens;
        let cache = CacheShape {
            slots: shape.slots,
            n_head: config.n_head,
            positions,
            head_dim: config.head_dim(),
            elem: shape.precision,
        };
        let rows = match config.condition {
            Condition::Class { .. } => shape.rows,
            Condition::Text { cls_token_num, .. } => shape.rows.max(cls_token_num),
        };
        let draws = if shape.window() > 1 { shape.rows } else { shape.pictures };
        let extent = Extent { rows, draws };
        let mut graph = Graph::new("gpt", extent);
        let g = &mut graph;

        let rows = g.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
        let draws = g.buffer("draws", Elem::Draw, Per::Draw, &[], Role::Input);
        let prefix_log_n = g.buffer("prefix_log_n", Elem::F32, Per::Plan, &[shape.slots], Role::Input);
        let x = g.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch);
        let q = g.buffer("q", Elem::F32, Per::Row, &[dim], Role::Scratch);
        let heads = g.buffer("heads", shape.activations, Per::Row, &[dim], Role::Scratch);
        let hidden = g.buffer("hidden", shape.activations, Per::Row, &[hidden_dim], Role::Scratch);
        let logits = g.buffer("logits", Elem::F32, Per::Row, &[vocab_size], Role::Scratch);
        let all = [config.n_layer, shape.slots, config.n_head, positions, config.head_dim()];
        let k_cache = g.buffer("k_cache", cache.elem, Per::Plan, &all, Role::State);
        let v_cache = g.buffer("v_cache", cache.elem, Per::Plan, &all, Role::State);
        let codes = g.buffer("codes", Elem::U32, Per::Plan, &[shape.pictures, tokens], Role::Output);

        let matrix = |g: &mut Graph, name: &str, shape_: &[usize]| {
            g.weight(format!("{name}.weight"), shape.precision, shape_, Source::Tensor)
        };
        let norm = |g: &mut Graph, name: &str| g.weight(format!("{name}.weight"), Elem::F32, &[dim], Source::Tensor);
        let table = freqs_cis(shape.latent_size, config.head_dim(), config.rope_base);
        let freqs_cis =
            g.weight("freqs_cis", Elem::F32, &[positions, config.head_dim() / 2, 2], Source::Constant(table.into()));
        let tok_embeddings = matrix(g, "tok_embeddings", &[vocab_size, dim]);
        let embedding_table = match config.condition {
            Condition::Class { num_classes } => matrix(g, "cls_embedding.embedding_table", &[num_classes + 1, dim]),
            // No step of a text model has a row at position 0.
            Condition::Text { .. } => tok_embeddings,
        };

        let step = g.phase("step");
        g.push(step, "tok_embeddings", Embed { x, rows, embedding_table, tok_embeddings, dim });
        for layer in 0..config.n_layer {
            let at = format!("layers.{layer}");
            let attention_norm = norm(g, &format!("{at}.attention_norm"));
            let wqkv = matrix(g, &format!("{at}.attention.wqkv"), &[3 * dim, dim]);
            let wo = matrix(g, &format!("{at}.attention.wo"), &[dim, dim]);
            let ffn_norm = norm(g, &format!("{at}.ffn_norm"));
            let w1 = matrix(g, &format!("{at}.feed_forward.w1"), &[hidden_dim, dim]);
            let w3 = matrix(g, &format!("{at}.feed_forward.w3"), &[hidden_dim, dim]);
            let w2 = matrix(g, &format!("{at}.feed_forward.w2"), &[dim, hidden_dim]);

            let qkv =
                NormQkvRope { q, k_cache, v_cache, x, rows, norm: attention_norm, wqkv, freqs_cis, layer, cache, eps };
            g.push(step, format!("{at}.attention.wqkv"), qkv);
            g.push(
                step,
                format!("{at}.attention"),
                Attention { out: heads, q, k_cache, v_cache, rows, prefix_log_n, layer, cache },
            );
            g.push(
                step,
                format!("{at}.attention.wo"),
                LinearResidual { x, input: heads, weight: wo, width: dim, depth: dim },
            );
            g.push(
                step,
                format!("{at}.feed_forward.w1"),
                NormSwiglu { out: hidden, x, norm: ffn_norm, w1, w3, hidden_dim, dim, eps },
            );
            g.push(
                step,
                format!("{at}.feed_forward.w2"),
                LinearResidual { x, input: hidden, weight: w2, width: dim, depth: hidden_dim },
            );
        }
        let last_norm = norm(g, "norm");
        let output = matrix(g, "output", &[vocab_size, dim]);
        g.push(step, "output", NormLogits { logits, x, norm: last_norm, output, vocab_size, dim, eps });
        let sample = Sample { codes, drawn: None, rows, draws, logits, vocab_size, tokens, pictures: shape.pictures };
        g.push(step, "sample", sample.clone());
        let lookahead = (shape.window() > 1).then(|| GptLookahead::add(g, step, sample, shape));

        let text = match config.condition {
            Condition::Class { .. } => None,
            Condition::Text { caption_dim, .. } => {
                let buffers = Buffers { rows, draws, x, q, heads, hidden, logits, codes, k_cache, v_cache };
                Some(GptText::add(g, config, caption_dim, shape, cache, &buffers))
            }
        };

        Self { graph, step, rows, draws, prefix_log_n, x, logits, codes, k_cache, v_cache, text, lookahead }
    }

    /// Number of the node behind layer `layer` (0-based): running up to it leaves that layer's output in `x`.
    pub fn end_of_layer(&self, layer: usize) -> usize {
        1 + (layer + 1) * Self::NODES_PER_LAYER
    }

    /// Number of the node that draws: running up to it leaves the logits and draws nothing.
    pub fn sampling(&self) -> usize {
        self.graph.nodes(self.step).len() - 1
    }
}

/// LlamaGen's 2-D rotation table, (1 + P * P, head_dim / 2, 2): cosine and sine.
///
/// Row 0, the condition, is zero in both. The first half of the pairs turns by the code's row, the second
/// by its column; both with frequencies base^(-2i / (head_dim / 2)).
pub fn freqs_cis(latent_size: usize, head_dim: usize, rope_base: f32) -> Vec<f32> {
    let quarter = head_dim / 4;
    let frequency: Vec<f64> =
        (0..quarter).map(|i| f64::from(rope_base).powf(-((2 * i) as f64) / (head_dim / 2) as f64)).collect();
    let mut table = vec![0.0; head_dim];
    for row in 0..latent_size {
        for column in 0..latent_size {
            for turns in [row, column] {
                for frequency in &frequency {
                    let (sin, cos) = (turns as f64 * frequency).sin_cos();
                    table.extend([cos as f32, sin as f32]);
                }
            }
        }
    }
    table
}
