//! out[i, p, :] = Σ_j softmax_j(q[i, p] · k[i, j] / sqrt(C)) v[i, j, :] over all pixels j of the same image.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// The VQ model's attention: one head, every pixel sees every pixel.
#[derive(Clone, Debug)]
pub struct SpatialAttention {
    /// (R, pixels, C) out, f32 or bf16; may be `q` itself
    pub out: BufferId,
    /// (R, pixels, C) of the type of `out`
    pub q: BufferId,
    /// (R, pixels, C) of the type of `out`
    pub k: BufferId,
    /// (R, pixels, C) of the type of `out`
    pub v: BufferId,
    pub pixels: usize,
    /// C
    pub channels: usize,
}

impl SpatialAttention {
    /// What scores are multiplied by: 1 / sqrt(C).
    pub fn scale(&self) -> f32 {
        1.0 / (self.channels as f32).sqrt()
    }

    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, pixels, c) = (load.extent.rows as u64, self.pixels as u64, self.channels as u64);
        let elem = graph.at(self.out).elem.size() as u64;
        Cost {
            activation_bytes: rows * pixels * 4 * c * elem,
            flops: rows * pixels * pixels * 4 * c,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let (pixels, c) = (self.pixels, self.channels);
        for r in 0..extent.rows {
            let (k, v) = (twin.row(self.k, r, pixels * c).to_vec(), twin.row(self.v, r, pixels * c).to_vec());
            for p in r * pixels..(r + 1) * pixels {
                let q = twin.row(self.q, p, c);
                let score = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (c as f64).sqrt();
                let scores: Vec<f64> = k.chunks_exact(c).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let mix =
                    |c_at| weights.iter().zip(v.iter().skip(c_at).step_by(c)).map(|(w, v)| w * v).sum::<f64>() / sum;
                let out: Vec<f64> = (0..c).map(mix).collect();
                twin.row_mut(self.out, p, c).copy_from_slice(&out);
            }
        }
    }
}
