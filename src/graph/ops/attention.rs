//! out[r, h, :] = Σ_j softmax_j(q[r, h] · k[j, h] / sqrt(D) + prefix_j) v[j, h, :], j over 0..=position.
//!
//! The condition is one cache row: k = 0, v the mean of its n tokens' V, and log n added to its score.
//! Rows of one slot see each other through the cache: all rows' k and v are there before any row reads.

use super::CacheShape;
use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, NO_SLOT};

/// Attention of every row over its slot's cache, up to and including the row's own position.
#[derive(Clone, Debug)]
pub struct Attention {
    /// (R, C) out, f32 or bf16
    pub out: BufferId,
    /// (R, C) f32
    pub q: BufferId,
    /// (L, B, H, S, D)
    pub k_cache: BufferId,
    /// (L, B, H, S, D)
    pub v_cache: BufferId,
    /// (R)
    pub rows: BufferId,
    /// (B) log n per slot, n the number of valid condition tokens; f32
    pub prefix_log_n: BufferId,
    pub layer: usize,
    pub cache: CacheShape,
}

impl Attention {
    /// What scores are multiplied by: 1 / sqrt(D).
    pub fn scale(&self) -> f32 {
        1.0 / (self.cache.head_dim as f32).sqrt()
    }

    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, keys, dim) = (load.extent.rows as u64, load.keys as u64, self.cache.dim() as u64);
        let elem = self.cache.elem.size() as u64;
        Cost {
            cache_bytes: rows * keys * 2 * dim * elem,
            activation_bytes: rows * dim * (4 + graph.at(self.out).elem.size() as u64),
            flops: rows * keys * 4 * dim,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let d = self.cache.head_dim;
        for r in 0..extent.rows {
            if twin.rows[r].slot == NO_SLOT {
                continue;
            }
            let (slot, position) = (twin.rows[r].slot as usize, twin.rows[r].position as usize);
            for head in 0..self.cache.n_head {
                let q = &twin.row(self.q, r, self.cache.dim())[head * d..(head + 1) * d];
                let at = |j| self.cache.at(self.layer, slot, head, j);
                let k = &twin.buffers[self.k_cache.index()];
                let mut scores: Vec<f64> = (0..=position)
                    .map(|j| q.iter().zip(&k[at(j)..]).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt())
                    .collect();
                scores[0] += twin.buffers[self.prefix_log_n.index()][slot];
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let v = &twin.buffers[self.v_cache.index()];
                let out: Vec<f64> = (0..d)
                    .map(|c| weights.iter().enumerate().map(|(j, w)| w * v[at(j) + c]).sum::<f64>() / sum)
                    .collect();
                let dim = self.cache.dim();
                twin.row_mut(self.out, r, dim)[head * d..(head + 1) * d].copy_from_slice(&out);
            }
        }
    }
}
