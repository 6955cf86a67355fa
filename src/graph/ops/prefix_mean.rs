//! out[r] = mean of v[j] over the rows j of r's prefix up to r; a prefix's last mean is kept for its cache row.
//!
//! Condition tokens have q = k = 0, so all scores among them are equal and attention is a running mean. The
//! rows of a prefix follow one another, from position 0 on; padding has no rows.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, Row};

/// Attention of a text's tokens over those before them.
#[derive(Clone, Debug)]
pub struct PrefixMean {
    /// (R, C) out, f32 or bf16
    pub out: BufferId,
    /// (B, L, C) out, f32: writes (slot, layer, :) of each prefix
    pub prefixes: BufferId,
    /// (R, C) f32
    pub v: BufferId,
    /// (R) slot and position within the prefix
    pub rows: BufferId,
    pub layer: usize,
    /// L
    pub n_layer: usize,
    /// C
    pub dim: usize,
}

impl PrefixMean {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.dim) as u64;
        Cost {
            activation_bytes: elements * (4 + graph.at(self.out).elem.size() as u64),
            flops: elements * 2,
            ..Cost::default()
        }
    }

    /// Elements from the beginning of `prefixes` to this layer of a slot.
    pub fn at(&self, slot: usize) -> usize {
        (slot * self.n_layer + self.layer) * self.dim
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let prefix = Row::sequence(&twin.rows[..extent.rows], r);
            let count = (r + 1 - prefix.start) as f64;
            let mean: Vec<f64> = (0..self.dim)
                .map(|c| (prefix.start..=r).map(|j| twin.row(self.v, j, self.dim)[c]).sum::<f64>() / count)
                .collect();
            twin.row_mut(self.out, r, self.dim).copy_from_slice(&mean);
            if r + 1 == prefix.end {
                let at = self.at(twin.rows[r].slot as usize);
                twin.buffers[self.prefixes.index()][at..at + self.dim].copy_from_slice(&mean);
            }
        }
    }
}
