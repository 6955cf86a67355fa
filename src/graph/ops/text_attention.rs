//! out[r, h, :] = Σ_j softmax_j(q[r, h] · k[j, h] + bias[bucket[j - r], h]) v[j, h, :], j over r's sequence.
//!
//! T5's attention: both ways, scores not scaled, a learnt bias per head and distance. The rows of a sequence
//! follow one another, from position 0 on; padding has no rows.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, Row, WeightId};

/// Attention of every row over all rows of its own sequence.
#[derive(Clone, Debug)]
pub struct TextAttention {
    /// (R, H * D) out, f32 or bf16
    pub out: BufferId,
    /// (R, H * D) f32
    pub q: BufferId,
    /// (R, H * D) f32
    pub k: BufferId,
    /// (R, H * D) f32
    pub v: BufferId,
    /// (R)
    pub rows: BufferId,
    /// (buckets, H)
    pub bias: WeightId,
    /// (2 T - 1) the bucket of a key that lies j - (T - 1) behind the query, at index j
    pub buckets: WeightId,
    /// T: the longest sequence
    pub tokens: usize,
    /// H
    pub n_head: usize,
    /// D
    pub head_dim: usize,
}

impl TextAttention {
    /// H * D
    pub fn dim(&self) -> usize {
        self.n_head * self.head_dim
    }

    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, keys, dim) = (load.extent.rows as u64, load.keys as u64, self.dim() as u64);
        Cost {
            weight_bytes: graph.weight_at(self.bias).bytes() as u64,
            // Each sequence's k and v are read once and stay in cache for its other rows.
            activation_bytes: rows * dim * (3 * 4 + graph.at(self.out).elem.size() as u64),
            flops: rows * keys * 4 * dim,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let (d, dim) = (self.head_dim, self.dim());
        for r in 0..extent.rows {
            let keys = Row::sequence(&twin.rows[..extent.rows], r);
            for head in 0..self.n_head {
                let part = head * d..(head + 1) * d;
                let q = &twin.row(self.q, r, dim)[part.clone()];
                let score = |j: usize| {
                    let k = &twin.row(self.k, j, dim)[part.clone()];
                    let bucket = twin.weights[self.buckets.index()][self.tokens - 1 + j - r] as usize;
                    let bias = twin.weights[self.bias.index()][bucket * self.n_head + head];
                    q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() + bias
                };
                let scores: Vec<f64> = keys.clone().map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let mix = |c: usize| {
                    let v = |j: usize| twin.row(self.v, j, dim)[head * d + c];
                    keys.clone().zip(&weights).map(|(j, w)| w * v(j)).sum::<f64>() / sum
                };
                let out: Vec<f64> = (0..d).map(mix).collect();
                twin.row_mut(self.out, r, dim)[part].copy_from_slice(&out);
            }
        }
    }
}
