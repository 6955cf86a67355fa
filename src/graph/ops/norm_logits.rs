//! logits[r, v] = output · rms_norm(x[r]), in f32 (the reference rounds them to bf16 first; we do not).

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// The last RMSNorm and the head.
#[derive(Clone, Debug)]
pub struct NormLogits {
    /// (R, V) out, f32
    pub logits: BufferId,
    /// (R, C) f32
    pub x: BufferId,
    /// (C)
    pub norm: WeightId,
    /// (V, C)
    pub output: WeightId,
    /// V
    pub vocab_size: usize,
    /// C
    pub dim: usize,
    pub eps: f32,
}

impl NormLogits {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, v, c) = (load.extent.rows as u64, self.vocab_size as u64, self.dim as u64);
        Cost {
            weight_bytes: (graph.weight_at(self.norm).bytes() + graph.weight_at(self.output).bytes()) as u64,
            activation_bytes: rows * (v + c) * 4,
            flops: rows * 2 * v * c,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let x = twin.rms_norm(self.norm, twin.row(self.x, r, self.dim), self.eps);
            let y = twin.product(self.output, &x);
            twin.row_mut(self.logits, r, self.vocab_size).copy_from_slice(&y);
        }
    }
}
