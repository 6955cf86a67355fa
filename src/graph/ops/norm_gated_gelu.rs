//! out[r, f] = gelu(wi_0 · n)[f] * (wi_1 · n)[f] with n = rms_norm(x[r]), GELU by its tanh form: T5's feed-forward.

use crate::graph::twin::{self, Twin};
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// RMSNorm and the two gated products of T5's feed-forward part.
#[derive(Clone, Debug)]
pub struct NormGatedGelu {
    /// (R, F) out, f32 or bf16
    pub out: BufferId,
    /// (R, C) f32
    pub x: BufferId,
    /// (C)
    pub norm: WeightId,
    /// (F, C)
    pub wi_0: WeightId,
    /// (F, C)
    pub wi_1: WeightId,
    /// F
    pub hidden_dim: usize,
    /// C
    pub dim: usize,
    pub eps: f32,
}

impl NormGatedGelu {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, f, c) = (load.extent.rows as u64, self.hidden_dim as u64, self.dim as u64);
        let weights = [self.norm, self.wi_0, self.wi_1];
        Cost {
            weight_bytes: weights.iter().map(|&weight| graph.weight_at(weight).bytes() as u64).sum(),
            activation_bytes: rows * (f * graph.at(self.out).elem.size() as u64 + c * 4),
            flops: rows * 2 * 2 * f * c,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let x = twin.rms_norm(self.norm, twin.row(self.x, r, self.dim), self.eps);
            let gate = twin.product(self.wi_0, &x);
            let up = twin.product(self.wi_1, &x);
            let out = twin.row_mut(self.out, r, self.hidden_dim);
            for (out, (gate, up)) in out.iter_mut().zip(gate.iter().zip(up)) {
                *out = twin::gelu_tanh(*gate) * up;
            }
        }
    }
}
