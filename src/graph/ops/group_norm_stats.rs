//! mean[i, g] and rstd[i, g] = 1 / sqrt(var + eps) over the pixels and channels of group g of image i.
//!
//! The normalization itself happens where the next convolution reads its input, see `conv2d`.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// Groups of the VQ model's GroupNorm.
pub const GROUPS: usize = 32;

/// The statistics of a GroupNorm.
#[derive(Clone, Debug)]
pub struct GroupNormStats {
    /// (R, GROUPS, 2) out, f32: mean, 1 / standard deviation
    pub stats: BufferId,
    /// (R, pixels, C) f32 or bf16
    pub x: BufferId,
    pub pixels: usize,
    /// C, a multiple of GROUPS
    pub channels: usize,
    pub eps: f32,
}

impl GroupNormStats {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.pixels * self.channels) as u64;
        Cost {
            activation_bytes: elements * graph.at(self.x).elem.size() as u64,
            flops: elements * 3,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let width = self.channels / GROUPS;
        for r in 0..extent.rows {
            for group in 0..GROUPS {
                let image = twin.row(self.x, r, self.pixels * self.channels);
                let values = || image.chunks_exact(self.channels).flat_map(|pixel| &pixel[group * width..][..width]);
                let count = (self.pixels * width) as f64;
                let mean = values().sum::<f64>() / count;
                let var = values().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                let stats = twin.row_mut(self.stats, r, GROUPS * 2);
                (stats[2 * group], stats[2 * group + 1]) = (mean, 1.0 / (var + f64::from(self.eps)).sqrt());
            }
        }
    }
}
