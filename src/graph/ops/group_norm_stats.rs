//! mean[i, g] and rstd[i, g] = 1 / sqrt(var + eps) over the pixels and channels of group g of image i.
//!
//! They are joined from the moments of patches that the convolution before has left. The normalization itself
//! happens where the next convolution reads its input, see `conv2d`.

use super::Patches;
use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load};

/// Groups of the VQ model's GroupNorm.
pub const GROUPS: usize = 32;

/// The statistics of a GroupNorm.
#[derive(Clone, Debug)]
pub struct GroupNormStats {
    /// (R, GROUPS, 2) out, f32: mean, 1 / standard deviation
    pub stats: BufferId,
    /// (R, patches, C, 2) f32: mean and variance, by `conv2d`
    pub moments: BufferId,
    pub patches: Patches,
    /// C, a multiple of GROUPS
    pub channels: usize,
    pub eps: f32,
}

impl GroupNormStats {
    /// Elements of an image's moments.
    pub fn len_moments(&self) -> usize {
        self.patches.count() * self.channels * 2
    }

    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.len_moments()) as u64;
        Cost {
            activation_bytes: elements * graph.at(self.moments).elem.size() as u64,
            flops: elements * 3,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let width = self.channels / GROUPS;
        let pixels = |patch| (self.patches.pixels_before(patch + 1) - self.patches.pixels_before(patch)) as f64;
        for r in 0..extent.rows {
            for group in 0..GROUPS {
                let moments = twin.row(self.moments, r, self.len_moments());
                // (pixels, mean, variance)
                let parts = || {
                    moments.chunks_exact(2 * self.channels).enumerate().flat_map(|(patch, channels)| {
                        let group = channels[group * width * 2..][..width * 2].chunks_exact(2);
                        group.map(move |pair| (pixels(patch), pair[0], pair[1]))
                    })
                };
                let count = (self.patches.pixels() * width) as f64;
                let mean = parts().map(|(n, mean, _)| n * mean).sum::<f64>() / count;
                let var = parts().map(|(n, at, var)| n * (var + (at - mean).powi(2))).sum::<f64>() / count;
                let stats = twin.row_mut(self.stats, r, GROUPS * 2);
                (stats[2 * group], stats[2 * group + 1]) = (mean, 1.0 / (var + f64::from(self.eps)).sqrt());
            }
        }
    }
}
