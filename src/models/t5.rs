//! The text encoder: T5 v1.1, of which LlamaGen's text models take the features of flan-t5-xl.
//!
//! ```text
//! embed; for each block { norm_linear(q); norm_linear(k); norm_linear(v); text_attention; linear_residual(o);
//!                         norm_gated_gelu(wi_0, wi_1); linear_residual(wo) }; norm_rows
//! ```
//!
//! A pass carries the tokens of several texts, one text's rows behind the other's; padding has no rows, as no
//! token ever looks at it.

use crate::config::T5Config;
use crate::graph::ops::{Embed, LinearResidual, NormGatedGelu, NormLinear, NormRows, TextAttention};
use crate::graph::{BufferId, Elem, Extent, Graph, Per, PhaseId, Role, Source};

/// How much a plan of the encoder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct T5Shape {
    /// The most rows of a pass, of all texts together.
    pub rows: usize,
    /// The most tokens of one text.
    pub tokens: usize,
    /// What matrices are held as: [`Elem::F32`] or [`Elem::Bf16`]. Norms are f32.
    pub precision: Elem,
    /// What goes from one product to the next is held as. The residual stream, q, k and v are f32.
    pub activations: Elem,
}

/// The encoder's graph and the buffers that it is driven by.
#[derive(Clone, Debug)]
pub struct T5Graph {
    pub graph: Graph,
    /// Embeds, runs all blocks and the last norm.
    pub encode: PhaseId,
    /// (R) in: which text, place within it, token
    pub rows: BufferId,
    /// (R, d_model) the residual stream
    pub x: BufferId,
    /// (R, d_model) out: `last_hidden_state`
    pub features: BufferId,
}

impl T5Graph {
    /// Lays the encoder out.
    pub fn new(config: &T5Config, shape: &T5Shape) -> Self {
        let T5Config { d_model, d_kv, num_heads, d_ff, layer_norm_epsilon: eps, .. } = *config;
        let inner_dim = config.inner_dim();
        let mut graph = Graph::new("t5", Extent { rows: shape.rows, draws: 0 });
        let g = &mut graph;

        let rows = g.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
        let scratch = |g: &mut Graph, name: &str, elem: Elem, width: usize| {
            g.buffer(name, elem, Per::Row, &[width], Role::Scratch)
        };
        let x = scratch(g, "x", Elem::F32, d_model);
        let q = scratch(g, "q", Elem::F32, inner_dim);
        let k = scratch(g, "k", Elem::F32, inner_dim);
        let v = scratch(g, "v", Elem::F32, inner_dim);
        let heads = scratch(g, "heads", shape.activations, inner_dim);
        let hidden = scratch(g, "hidden", shape.activations, d_ff);
        let features = g.buffer("features", Elem::F32, Per::Row, &[d_model], Role::Output);

        let matrix = |g: &mut Graph, name: &str, shape_: &[usize]| {
            g.weight(format!("{name}.weight"), shape.precision, shape_, Source::Tensor)
        };
        let norm =
            |g: &mut Graph, name: &str| g.weight(format!("{name}.weight"), Elem::F32, &[d_model], Source::Tensor);
        let embedding = config.embedding.trim_end_matches(".weight");
        let table = matrix(g, embedding, &[config.vocab_size, d_model]);
        let bias = g.weight(
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            Elem::F32,
            &[config.relative_attention_num_buckets, num_heads],
            Source::Tensor,
        );
        let buckets = relative_position_buckets(config, shape.tokens);
        let buckets = g.weight("buckets", Elem::F32, &[2 * shape.tokens - 1], Source::Constant(buckets.into()));

        let encode = g.phase("encode");
        // One table for every position.
        let embed = Embed { x, rows, embedding_table: table, tok_embeddings: table, dim: d_model };
        g.push(encode, embedding, embed);
        for block in 0..config.num_layers {
            let at = format!("encoder.block.{block}");
            let attention_norm = norm(g, &format!("{at}.layer.0.layer_norm"));
            for (out, part) in [(q, "q"), (k, "k"), (v, "v")] {
                let name = format!("{at}.layer.0.SelfAttention.{part}");
                let weight = matrix(g, &name, &[inner_dim, d_model]);
                let product = NormLinear {
                    out,
                    x,
                    norm: attention_norm,
                    weight,
                    first: 0,
                    width: inner_dim,
                    depth: d_model,
                    eps,
                };
                g.push(encode, name, product);
            }
            let tokens = shape.tokens;
            let attention =
                TextAttention { out: heads, q, k, v, rows, bias, buckets, tokens, n_head: num_heads, head_dim: d_kv };
            g.push(encode, format!("{at}.layer.0.SelfAttention"), attention);
            let name = format!("{at}.layer.0.SelfAttention.o");
            let weight = matrix(g, &name, &[d_model, inner_dim]);
            g.push(encode, name, LinearResidual { x, input: heads, weight, width: d_model, depth: inner_dim });

            let ffn_norm = norm(g, &format!("{at}.layer.1.layer_norm"));
            let name = format!("{at}.layer.1.DenseReluDense.wi_0");
            let wi_0 = matrix(g, &name, &[d_ff, d_model]);
            let wi_1 = matrix(g, &format!("{at}.layer.1.DenseReluDense.wi_1"), &[d_ff, d_model]);
            let gated =
                NormGatedGelu { out: hidden, x, norm: ffn_norm, wi_0, wi_1, hidden_dim: d_ff, dim: d_model, eps };
            g.push(encode, name, gated);
            let name = format!("{at}.layer.1.DenseReluDense.wo");
            let weight = matrix(g, &name, &[d_model, d_ff]);
            g.push(encode, name, LinearResidual { x, input: hidden, weight, width: d_model, depth: d_ff });
        }
        let last_norm = norm(g, "encoder.final_layer_norm");
        g.push(encode, "encoder.final_layer_norm", NormRows { out: features, x, norm: last_norm, dim: d_model, eps });

        Self { graph, encode, rows, x, features }
    }
}

/// The bucket of every distance from -(tokens - 1) to tokens - 1, the key's place minus the query's.
///
/// One half of the buckets is for keys before the query and itself, the other for keys after it. In each, half
/// are for one distance; the others widen with its logarithm up to `relative_attention_max_distance`.
fn relative_position_buckets(config: &T5Config, tokens: usize) -> Vec<f32> {
    let half = config.relative_attention_num_buckets / 2;
    let exact = half / 2;
    let widest = (config.relative_attention_max_distance as f32 / exact as f32).ln();
    let bucket = |distance: usize| {
        if distance < exact {
            return distance;
        }
        // In f32, as the reference does: where a bucket begins is a matter of the last bit.
        let share = (distance as f32 / exact as f32).ln() / widest;
        (exact + (share * (half - exact) as f32) as usize).min(half - 1)
    };
    let before = (1..tokens).rev().map(|distance| bucket(distance) as f32);
    let after = (1..tokens).map(|distance| (half + bucket(distance)) as f32);
    before.chain([0.0]).chain(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_released_models_buckets() {
        let buckets = relative_position_buckets(&T5Config::xl(), 300);
        let of = |distance: isize| buckets[(299 + distance) as usize];
        // Keys before the query: one bucket each up to 7, then eight that widen up to 128.
        for (distance, bucket) in [(0, 0.0), (1, 1.0), (7, 7.0), (8, 8.0), (11, 8.0), (12, 9.0), (16, 10.0)] {
            assert_eq!(of(-distance), bucket, "{distance} before");
        }
        for (distance, bucket) in [(31, 11.0), (32, 12.0), (63, 13.0), (64, 14.0), (90, 14.0), (91, 15.0), (299, 15.0)]
        {
            assert_eq!(of(-distance), bucket, "{distance} before");
            assert_eq!(of(distance), 16.0 + bucket, "{distance} after");
        }
    }
}
