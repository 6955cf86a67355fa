//! out[r, n] = Σ_k weight[first + n, k] * rms_norm(x[r])[k]: one of an attention's products by itself.
//!
//! T5 keeps q, k and v apart; a GPT's prefix needs the v rows of `wqkv` alone, as its q and k are zero.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// RMSNorm and a product with some rows of a weight.
#[derive(Clone, Debug)]
pub struct NormLinear {
    /// (R, N) out, f32
    pub out: BufferId,
    /// (R, K) f32
    pub x: BufferId,
    /// (K)
    pub norm: WeightId,
    /// (at least first + N, K)
    pub weight: WeightId,
    /// The first of the weight's rows.
    pub first: usize,
    /// N
    pub width: usize,
    /// K
    pub depth: usize,
    pub eps: f32,
}

impl NormLinear {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, n, k) = (load.extent.rows as u64, self.width as u64, self.depth as u64);
        let elem = graph.weight_at(self.weight).elem.size() as u64;
        Cost {
            weight_bytes: graph.weight_at(self.norm).bytes() as u64 + n * k * elem,
            activation_bytes: rows * (n + k) * 4,
            flops: rows * 2 * n * k,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let x = twin.rms_norm(self.norm, twin.row(self.x, r, self.depth), self.eps);
            let y = twin.product(self.weight, &x);
            twin.row_mut(self.out, r, self.width).copy_from_slice(&y[self.first..self.first + self.width]);
        }
    }
}
