//! codes[i, p] = argmax_v of z[i, p] · codebook[v] / |z[i, p]|; ties go to the lowest code.
//!
//! Between vectors of length one the largest cosine is the smallest distance, and the length of z does
//! not change which code wins, so nothing is divided.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// From the encoder's output to codes.
#[derive(Clone, Debug)]
pub struct NearestCode {
    /// (R, pixels) out, u32
    pub codes: BufferId,
    /// (R, pixels, E) f32
    pub z: BufferId,
    /// (V, E), rows of length one
    pub codebook: WeightId,
    pub pixels: usize,
    /// V
    pub codebook_size: usize,
    /// E
    pub codebook_embed_dim: usize,
}

impl NearestCode {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let pixels = (load.extent.rows * self.pixels) as u64;
        let (v, e) = (self.codebook_size as u64, self.codebook_embed_dim as u64);
        Cost {
            weight_bytes: graph.weight_at(self.codebook).bytes() as u64,
            activation_bytes: pixels * (e * 4 + 4),
            flops: pixels * 2 * v * e,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for p in 0..extent.rows * self.pixels {
            let cosines = twin.product(self.codebook, twin.row(self.z, p, self.codebook_embed_dim));
            let mut best = 0;
            for (code, cosine) in cosines.iter().enumerate() {
                if *cosine > cosines[best] {
                    best = code;
                }
            }
            twin.buffers[self.codes.index()][p] = best as f64;
        }
    }
}
