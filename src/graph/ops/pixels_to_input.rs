//! x[i, p, c] = pixels[i, p, c] / 127.5 - 1: bytes to the encoder's range.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// From bytes to [-1, 1].
#[derive(Clone, Debug)]
pub struct PixelsToInput {
    /// (R, len) out, f32 or bf16
    pub x: BufferId,
    /// (R, len) u8
    pub pixels: BufferId,
    /// Bytes of an image: H * W * 3.
    pub len: usize,
}

impl PixelsToInput {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.len) as u64;
        Cost {
            activation_bytes: elements * (1 + graph.at(self.x).elem.size() as u64),
            flops: elements * 2,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for i in 0..extent.rows * self.len {
            twin.buffers[self.x.index()][i] = twin.buffers[self.pixels.index()][i] / 127.5 - 1.0;
        }
    }
}
