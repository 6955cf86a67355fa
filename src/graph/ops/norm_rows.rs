//! out[r] = rms_norm(x[r]): the last norm of a T5 encoder, which no product follows.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// RMSNorm of every row.
#[derive(Clone, Debug)]
pub struct NormRows {
    /// (R, C) out, f32
    pub out: BufferId,
    /// (R, C) f32
    pub x: BufferId,
    /// (C)
    pub norm: WeightId,
    /// C
    pub dim: usize,
    pub eps: f32,
}

impl NormRows {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.dim) as u64;
        Cost {
            weight_bytes: graph.weight_at(self.norm).bytes() as u64,
            activation_bytes: elements * 2 * 4,
            flops: elements * 4,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let y = twin.rms_norm(self.norm, twin.row(self.x, r, self.dim), self.eps);
            twin.row_mut(self.out, r, self.dim).copy_from_slice(&y);
        }
    }
}
