//! x[i, p, :] = weight · codebook[codes[i, p]] + bias: the codebook's vector and `post_quant_conv` behind it.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// From codes to the decoder's input.
#[derive(Clone, Debug)]
pub struct CodebookLookup {
    /// (R, pixels, Z) out, f32 or bf16
    pub x: BufferId,
    /// (R, pixels) u32, all below V
    pub codes: BufferId,
    /// (V, E), rows of length one
    pub codebook: WeightId,
    /// (Z, E, 1, 1)
    pub weight: WeightId,
    /// (Z)
    pub bias: WeightId,
    /// Codes of an image.
    pub pixels: usize,
    /// V
    pub codebook_size: usize,
    /// E
    pub codebook_embed_dim: usize,
    /// Z
    pub z_channels: usize,
}

impl CodebookLookup {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let pixels = (load.extent.rows * self.pixels) as u64;
        let (e, z) = (self.codebook_embed_dim as u64, self.z_channels as u64);
        Cost {
            weight_bytes: pixels * e * 4 + graph.weight_at(self.weight).bytes() as u64,
            activation_bytes: pixels * (4 + z * graph.at(self.x).elem.size() as u64),
            flops: pixels * 2 * e * z,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for p in 0..extent.rows * self.pixels {
            let code = twin.buffers[self.codes.index()][p] as usize;
            let e = self.codebook_embed_dim;
            let vector = &twin.weights[self.codebook.index()][code * e..(code + 1) * e];
            let y = twin.product(self.weight, vector);
            let bias = twin.weights[self.bias.index()].clone();
            for (x, (y, bias)) in twin.row_mut(self.x, p, self.z_channels).iter_mut().zip(y.iter().zip(bias)) {
                *x = y + bias;
            }
        }
    }
}
