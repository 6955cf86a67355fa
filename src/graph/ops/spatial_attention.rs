//! out[i, p, :] = Σ_j softmax_j(q[i, p] · k[i, j] / sqrt(C)) v[i, j, :] over all pixels j of the same image.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// The VQ model's attention: one head, every pixel sees every pixel.
#[derive(Clone, Debug)]
pub struct SpatialAttention {
    /// (R, pixels, C) out, f32 or bf16
    pub out: BufferId,
    /// (R, pixels, 3 C) of the type of `out`: a pixel's q, k and v
    pub qkv: BufferId,
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
            let qkv = twin.row(self.qkv, r, pixels * 3 * c).to_vec();
            for (p, of) in qkv.chunks_exact(3 * c).enumerate() {
                let score = |of_j: &[f64]| of[..c].iter().zip(&of_j[c..]).map(|(q, k)| q * k).sum::<f64>();
                let scores: Vec<f64> = qkv.chunks_exact(3 * c).map(|of_j| score(of_j) / (c as f64).sqrt()).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let v_at = |c_at: usize| qkv.iter().skip(2 * c + c_at).step_by(3 * c);
                let mix = |c_at| weights.iter().zip(v_at(c_at)).map(|(w, v)| w * v).sum::<f64>() / sum;
                let out: Vec<f64> = (0..c).map(mix).collect();
                twin.row_mut(self.out, r * pixels + p, c).copy_from_slice(&out);
            }
        }
    }
}
