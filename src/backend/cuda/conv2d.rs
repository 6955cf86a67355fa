//! Matches `graph::ops::conv2d`.
//!
//! All kernels sum in the same order, so the choice among them may follow the device and the number of images.

use half::bf16;

use super::device::{Kernel as Launchable, Launch, Ptr};
use super::lower::{Arrangement, Lower, Lowering};
use super::{fragments, kernels};
use crate::graph::ops::{Conv2d, Kernel, Store};
use crate::graph::{Elem, Graph, WeightId};

/// Channels that a block has in shared memory at a time, and bytes from pixel to pixel there.
const CHUNK: usize = 32;
const PIXEL_BYTES: usize = 2 * CHUNK + 16;

/// Pixels across a tile.
const TILE_WIDTH: usize = 16;

/// Channels of a normalized input whose scales and shifts still fit in shared memory, 48 KiB in all.
const MAX_NORMALIZED: usize = 2048;

/// What a block of a kernel computes: the `Tile` of the kernel's source.
#[derive(Clone, Copy)]
struct Tile {
    kernel: Launchable,
    height: usize,
    channels: usize,
    threads: usize,
}

impl Tile {
    const fn large(kernel: Launchable) -> Self {
        Self { kernel, height: 8, channels: 128, threads: 128 }
    }

    const fn medium(kernel: Launchable) -> Self {
        Self { kernel, height: 4, channels: 64, threads: 64 }
    }

    const fn small(kernel: Launchable) -> Self {
        Self { kernel, height: 2, channels: 32, threads: 64 }
    }

    /// The tiles of an output of (height, width) pixels and of its channels.
    fn grid(&self, (height, width): (usize, usize), channels: usize) -> [usize; 2] {
        [height.div_ceil(self.height) * width.div_ceil(TILE_WIDTH), channels.div_ceil(self.channels)]
    }
}

impl Conv2d {
    /// Whether a stage is copied 16 bytes at a time; else it is read value by value.
    fn copies(&self, graph: &Graph) -> bool {
        graph.at(self.x).elem == Elem::Bf16 && self.channels_in.is_multiple_of(8)
    }

    /// The largest tile that still gives every multiprocessor of the device something to do.
    fn tile(&self, graph: &Graph, images: usize, multiprocessors: usize) -> Tile {
        let small = match (self.kernel, self.copies(graph)) {
            (Kernel::Point, true) => Tile::small(kernels::CONV2D_POINT_SMALL),
            (Kernel::Point, false) => return Tile::small(kernels::CONV2D_POINT_GATHER),
            (Kernel::Square, false) => return Tile::small(kernels::CONV2D_SQUARE_GATHER),
            (Kernel::Square, true) if self.channels_out <= 16 => {
                return Tile { kernel: kernels::CONV2D_SQUARE_THIN, height: 8, channels: 16, threads: 128 };
            }
            (Kernel::Square, true) => Tile::small(kernels::CONV2D_SQUARE_SMALL),
            (Kernel::Downsample, _) => Tile::small(kernels::CONV2D_DOWNSAMPLE_SMALL),
            (Kernel::Upsample, _) => Tile::small(kernels::CONV2D_UPSAMPLE_SMALL),
        };
        // The others store bf16 by twos.
        if graph.at(self.out).elem != Elem::Bf16 || !self.channels_out.is_multiple_of(2) {
            return small;
        }
        let wide = Tile { kernel: kernels::CONV2D_DOWNSAMPLE_WIDE, height: 2, channels: 128, threads: 128 };
        // With how many blocks to a multiprocessor, in quarters, each is worth its size: of the large ones two run
        // at a time, and 7/4 leave little idle.
        let larger: &[(Tile, usize)] = match self.kernel {
            Kernel::Point => &[(Tile::medium(kernels::CONV2D_POINT_MEDIUM), 4)],
            Kernel::Square => {
                &[(Tile::large(kernels::CONV2D_SQUARE_LARGE), 7), (Tile::medium(kernels::CONV2D_SQUARE_MEDIUM), 4)]
            }
            Kernel::Downsample => &[(wide, 4)],
            Kernel::Upsample => {
                &[(Tile::large(kernels::CONV2D_UPSAMPLE_LARGE), 7), (Tile::medium(kernels::CONV2D_UPSAMPLE_MEDIUM), 4)]
            }
        };
        let fits = |&&(tile, quarters): &&(Tile, usize)| {
            let blocks = images * tile.grid(self.kernel.output(self.size), self.channels_out).iter().product::<usize>();
            self.channels_out * 2 > tile.channels && blocks * 4 >= multiprocessors * quarters
        };
        larger.iter().find(fits).map_or(small, |&(tile, _)| tile)
    }

    /// Dynamic shared memory of a block: two stages, and the normalization's scales and shifts.
    fn shared_bytes(&self, tile: &Tile) -> usize {
        let span = |outputs: usize| match self.kernel {
            Kernel::Upsample => outputs / 2 + 2,
            _ => (outputs - 1) * self.kernel.stride() + self.kernel.side(),
        };
        let stage = span(tile.height) * span(TILE_WIDTH) * PIXEL_BYTES;
        2 * stage + self.norm.map_or(0, |_| self.channels_in * 2 * size_of::<f32>())
    }
}

impl Lower for Conv2d {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        let weight = graph.weight_at(self.weight);
        if weight.elem != Elem::Bf16 {
            return Err(format!("needs `{}` in bf16, found {}", weight.name, weight.elem.name()));
        }
        let (x, out) = (graph.at(self.x).elem, graph.at(self.out).elem);
        let residual = self.residual.map_or(out, |residual| graph.at(residual).elem);
        if residual != out {
            return Err(format!(
                "needs a residual of the type of the result, found {} and {}",
                residual.name(),
                out.name()
            ));
        }
        let resamples = matches!(self.kernel, Kernel::Downsample | Kernel::Upsample);
        if resamples && !self.copies(graph) {
            let (elem, channels) = (x.name(), self.channels_in);
            return Err(format!("needs bf16 of a multiple of 8 channels to resample, found {elem} of {channels}"));
        }
        match self.norm.is_some() && self.channels_in > MAX_NORMALIZED {
            true => Err(format!("needs at most {MAX_NORMALIZED} normalized channels, found {}", self.channels_in)),
            false => Ok(()),
        }
    }

    fn arrangements(&self, _: &Graph) -> Vec<(WeightId, Arrangement)> {
        let (n, c, side) = (self.channels_out, self.channels_in, self.kernel.side());
        vec![(self.weight, Arrangement::new("conv2d", move |values| pack(values, n, c, side)))]
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let images = cx.extent.rows;
        let tile = self.tile(cx.graph, images, cx.multiprocessors);
        let [map, channels] = tile.grid(self.kernel.output(self.size), self.channels_out);
        let norm = |id: fn(&crate::graph::ops::Norm) -> WeightId| {
            self.norm.as_ref().map_or(Ptr::NULL, |norm| cx.weight(id(norm)))
        };
        let store = match (self.store, cx.elem(self.out)) {
            (Store::Rgb8, _) => 2,
            (Store::Plain, Elem::F32) => 1,
            (Store::Plain, _) => 0,
        };
        let load = if cx.elem(self.x) == Elem::F32 { 4 } else { 0 };
        vec![
            Launch::new(tile.kernel, [map, channels, images], tile.threads)
                .shared(self.shared_bytes(&tile))
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.x))
                .arg(self.residual.map_or(Ptr::NULL, |residual| cx.buffer(residual)))
                .arg(cx.weight(self.weight))
                .arg(cx.weight(self.bias))
                .arg(self.norm.map_or(Ptr::NULL, |norm| cx.buffer(norm.stats)))
                .arg(norm(|norm| norm.weight))
                .arg(norm(|norm| norm.bias))
                .size(self.size.0)
                .size(self.size.1)
                .size(self.channels_in)
                .size(self.channels_out)
                .arg(u32::from(self.norm.is_some_and(|norm| norm.silu)))
                .arg(store | load),
        ]
    }
}

/// (N, C, side, side) as fragments of a matrix whose columns are ordered by blocks of 16 channels, tap columns,
/// tap rows, channels; C is filled up with zeros to whole stages.
fn pack(values: &[bf16], n: usize, c: usize, side: usize) -> Vec<bf16> {
    fragments::pack_with(n, c.next_multiple_of(CHUNK) * side * side, |row, column| {
        let (tap, channel) = (column / 16 % (side * side), column / 16 / (side * side) * 16 + column % 16);
        let (kx, ky) = (tap / side, tap % side);
        match channel < c {
            true => values[((row * c + channel) * side + ky) * side + kx],
            false => bf16::ZERO,
        }
    })
}
