//! y[i, p, n] = residual[i, p, n] + bias[n] + Σ_tap Σ_c weight[n, c, tap] * f(x)[i, p at tap, c].
//!
//! f is GroupNorm and SiLU where the layer has them in front, the identity elsewhere; the padding around the
//! map is zero after f. Images are NHWC. The last convolution cuts its pixels to bytes: clamp(127.5 y + 128). Where a
//! GroupNorm comes next, y's mean and variance are left for each channel of each patch of [`Patches`].

use super::{GROUPS, Patches};
use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// A convolution with everything around it: normalization before, residual and pixels after.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// (R, H', W', N) out, f32 or bf16, or u8 for pixels; H' and W' by [`Kernel::output`]
    pub out: BufferId,
    /// (R, H, W, C) f32 or bf16
    pub x: BufferId,
    pub norm: Option<Norm>,
    /// (R, H', W', N) of the type of `out`; may be `out` itself
    pub residual: Option<BufferId>,
    /// (R, patches, N, 2) out, f32: mean and variance of what lies in `out`, patch by patch of [`Conv2d::patches`];
    /// N is a multiple of GROUPS then
    pub moments: Option<BufferId>,
    /// (N, C, side, side)
    pub weight: WeightId,
    /// (N)
    pub bias: WeightId,
    pub kernel: Kernel,
    /// (H, W) of the input
    pub size: (usize, usize),
    /// C
    pub channels_in: usize,
    /// N
    pub channels_out: usize,
    pub store: Store,
}

/// GroupNorm of the input, y = (x - mean) * rstd * weight + bias, and SiLU after it.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// (R, GROUPS, 2) f32, by `group_norm_stats`
    pub stats: BufferId,
    /// (C)
    pub weight: WeightId,
    /// (C)
    pub bias: WeightId,
    pub silu: bool,
}

/// The kernels of the VQ model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// One tap.
    Point,
    /// 3 x 3 with a border of one zero all around.
    Square,
    /// 3 x 3 at every second pixel, with a zero border right and below only.
    Downsample,
    /// Every pixel doubled in both directions, then [`Kernel::Square`].
    Upsample,
}

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// As it is, in the type of `out`.
    Plain,
    /// clamp(127.5 y + 128, 0, 255) cut to an integer
    Rgb8,
}

impl Kernel {
    /// Taps along one side.
    pub fn side(self) -> usize {
        if self == Self::Point { 1 } else { 3 }
    }

    /// Zeros above and left of the map.
    pub fn border(self) -> usize {
        if matches!(self, Self::Square | Self::Upsample) { 1 } else { 0 }
    }

    /// Pixels from one output to the next, on the map that the taps see.
    pub fn stride(self) -> usize {
        if self == Self::Downsample { 2 } else { 1 }
    }

    /// How often a pixel of the input stands on the map that the taps see, along one side.
    pub fn repeat(self) -> usize {
        if self == Self::Upsample { 2 } else { 1 }
    }

    /// Taps along one side of what an output sees of the input itself: of a doubled map several meet the same pixel.
    pub fn merged_side(self) -> usize {
        if self == Self::Upsample { 2 } else { self.side() }
    }

    /// The sum of those of an output's taps, numbered row by row, that meet the same pixel of the input as tap `merged`
    /// (row, column) of [`Kernel::merged_side`], for the outputs over a pixel that stand `phase` down and across, both
    /// below [`Kernel::repeat`]. Their first tap sees the pixel under row, or column, `phase` of the doubled map, counted
    /// from the one above row 0.
    pub fn merged_tap(self, phase: (usize, usize), merged: (usize, usize), tap: impl Fn(usize) -> f32) -> f32 {
        let met = |phase: usize, merged: usize| match self {
            // The first or both of the first two, both of the last two or the last.
            Self::Upsample if merged == 0 => 0..phase + 1,
            Self::Upsample => phase + 1..3,
            _ => merged..merged + 1,
        };
        let rows = met(phase.0, merged.0);
        rows.flat_map(|y| met(phase.1, merged.1).map(move |x| (y, x))).map(|(y, x)| tap(y * self.side() + x)).sum()
    }

    /// Rows and columns of the map over each of whose pixels stand [`Kernel::repeat`] by [`Kernel::repeat`] outputs.
    pub fn grid(self, (height, width): (usize, usize)) -> (usize, usize) {
        (height / self.stride(), width / self.stride())
    }

    /// The output's size.
    pub fn output(self, size: (usize, usize)) -> (usize, usize) {
        let (height, width) = self.grid(size);
        (height * self.repeat(), width * self.repeat())
    }
}

impl Conv2d {
    /// The patches of its result.
    pub fn patches(&self) -> Patches {
        Patches::of(self.kernel, self.size)
    }

    /// Elements of an image's moments.
    pub fn len_moments(&self) -> usize {
        self.patches().count() * self.channels_out * 2
    }

    /// Elements of an input image.
    pub fn len_in(&self) -> usize {
        self.size.0 * self.size.1 * self.channels_in
    }

    /// Elements of an output image.
    pub fn len_out(&self) -> usize {
        let (height, width) = self.kernel.output(self.size);
        height * width * self.channels_out
    }

    /// Operations are those of the convolution as it is defined: products of sums of taps, and Winograd's, are fewer.
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let rows = load.extent.rows as u64;
        let taps = (self.kernel.side() * self.kernel.side() * self.channels_in) as u64;
        let (len_in, len_out) = (self.len_in() as u64, self.len_out() as u64);
        let size = |buffer: BufferId| graph.at(buffer).elem.size() as u64;
        let residual = self.residual.map_or(0, |residual| len_out * size(residual));
        let moments = self.moments.map_or(0, |moments| self.len_moments() as u64 * size(moments));
        Cost {
            weight_bytes: (graph.weight_at(self.weight).bytes() + graph.weight_at(self.bias).bytes()) as u64,
            activation_bytes: rows * (len_in * size(self.x) + residual + len_out * size(self.out) + moments),
            flops: rows * 2 * len_out * taps,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let x = self.twin_input(twin, r);
            let (weight, bias) = (&twin.weights[self.weight.index()], &twin.weights[self.bias.index()]);
            let (side, c) = (self.kernel.side(), self.channels_in);
            let (height, width) = (self.size.0 * self.kernel.repeat(), self.size.1 * self.kernel.repeat());
            let mut out = Vec::with_capacity(self.len_out());
            for (oy, ox) in pairs(self.kernel.output(self.size)) {
                let mut sums = bias.clone();
                for (ky, kx) in pairs((side, side)) {
                    let y = (oy * self.kernel.stride() + ky).wrapping_sub(self.kernel.border());
                    let x_at = (ox * self.kernel.stride() + kx).wrapping_sub(self.kernel.border());
                    if y >= height || x_at >= width {
                        continue; // the zero border; left and above of the map wraps to huge
                    }
                    let at = (y / self.kernel.repeat() * self.size.1 + x_at / self.kernel.repeat()) * c;
                    for (n, sum) in sums.iter_mut().enumerate() {
                        let taps = weight[n * c * side * side..].iter().skip(ky * side + kx).step_by(side * side);
                        *sum += x[at..at + c].iter().zip(taps).map(|(x, w)| x * w).sum::<f64>();
                    }
                }
                out.extend(sums);
            }
            if let Some(residual) = self.residual {
                out.iter_mut().zip(twin.row(residual, r, self.len_out())).for_each(|(out, x)| *out += x);
            }
            if self.store == Store::Rgb8 {
                out.iter_mut().for_each(|y| *y = (127.5 * *y + 128.0).clamp(0.0, 255.0).floor());
            }
            twin.row_mut(self.out, r, self.len_out()).copy_from_slice(&out);
            if let Some(moments) = self.moments {
                twin.row_mut(moments, r, self.len_moments()).copy_from_slice(&self.moments_of(&out));
            }
        }
    }

    /// The moments of a result, patch by patch.
    pub fn moments_of(&self, out: &[f64]) -> Vec<f64> {
        let (patches, n) = (self.patches(), self.channels_out);
        let mut moments = Vec::with_capacity(self.len_moments());
        for patch in 0..patches.count() {
            let pixels: Vec<usize> = patches
                .rows(patch)
                .flat_map(|run| (0..run.count).map(move |i| run.first + i * patches.repeat))
                .collect();
            let mean_of = |value: &dyn Fn(usize) -> f64| {
                pixels.iter().map(|&pixel| value(pixel)).sum::<f64>() / pixels.len() as f64
            };
            for channel in 0..n {
                let mean = mean_of(&|pixel| out[pixel * n + channel]);
                moments.extend([mean, mean_of(&|pixel| (out[pixel * n + channel] - mean).powi(2))]);
            }
        }
        moments
    }

    /// The input behind normalization and SiLU.
    fn twin_input(&self, twin: &Twin<'_>, r: usize) -> Vec<f64> {
        let mut x = twin.row(self.x, r, self.len_in()).to_vec();
        if let Some(norm) = self.norm {
            let stats = twin.row(norm.stats, r, GROUPS * 2);
            for (i, x) in x.iter_mut().enumerate() {
                let c = i % self.channels_in;
                let group = c * GROUPS / self.channels_in;
                let (weight, bias) = (twin.weights[norm.weight.index()][c], twin.weights[norm.bias.index()][c]);
                let y = (*x - stats[2 * group]) * stats[2 * group + 1] * weight + bias;
                *x = if norm.silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
        x
    }
}

/// All (i, j) below (height, width), row by row.
fn pairs((height, width): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |i| (0..width).map(move |j| (i, j)))
}
