//! x[r, n] += Σ_k weight[n, k] * input[r, k]: `wo` behind attention, `w2` behind SwiGLU.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// A product added to the residual stream.
#[derive(Clone, Debug)]
pub struct LinearResidual {
    /// (R, N) in and out, f32
    pub x: BufferId,
    /// (R, K) f32 or bf16
    pub input: BufferId,
    /// (N, K)
    pub weight: WeightId,
    /// N
    pub width: usize,
    /// K
    pub depth: usize,
}

impl LinearResidual {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, n, k) = (load.extent.rows as u64, self.width as u64, self.depth as u64);
        Cost {
            weight_bytes: graph.weight_at(self.weight).bytes() as u64,
            activation_bytes: rows * (2 * n * 4 + k * graph.at(self.input).elem.size() as u64),
            flops: rows * 2 * n * k,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let y = twin.product(self.weight, twin.row(self.input, r, self.depth));
            for (x, y) in twin.row_mut(self.x, r, self.width).iter_mut().zip(y) {
                *x += y;
            }
        }
    }
}
