//! For each row's slot and every layer, the cache's row 0: k = 0, v = prefixes[slot, layer].
//!
//! One cache row stands for a text's n tokens: their k are zero and their v weigh the same, so to an image
//! token they are their mean with a score of log n.

use super::CacheShape;
use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// Puts prefixes into the cache.
#[derive(Clone, Debug)]
pub struct SetPrefix {
    /// (L, B, H, S, D) the cache's keys; writes (:, slot, :, 0, :)
    pub k_cache: BufferId,
    /// (L, B, H, S, D) the cache's values
    pub v_cache: BufferId,
    /// (B, L, C) f32
    pub prefixes: BufferId,
    /// (R) the slots; nothing else of a row counts
    pub rows: BufferId,
    /// L
    pub n_layer: usize,
    pub cache: CacheShape,
}

impl SetPrefix {
    pub(super) fn cost(&self, _: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.n_layer * self.cache.dim()) as u64;
        Cost {
            cache_bytes: elements * 2 * self.cache.elem.size() as u64,
            activation_bytes: elements * 4,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let (dim, d) = (self.cache.dim(), self.cache.head_dim);
        for r in 0..extent.rows {
            let slot = twin.rows[r].slot as usize;
            for layer in 0..self.n_layer {
                let from = (slot * self.n_layer + layer) * dim;
                let v = twin.buffers[self.prefixes.index()][from..from + dim].to_vec();
                for (head, v) in v.chunks_exact(d).enumerate() {
                    let at = self.cache.at(layer, slot, head, 0);
                    twin.buffers[self.k_cache.index()][at..at + d].fill(0.0);
                    twin.buffers[self.v_cache.index()][at..at + d].copy_from_slice(v);
                }
            }
        }
    }
}
