//! Matches `graph::ops::conv2d`.
//!
//! All kernels sum in the same order, so the choice among them may follow the device and the number of images.

use half::bf16;

use super::device::{Capacity, Kernel as Launchable, Launch, Ptr};
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{BYTES_PER_CLOCK, FMAS_PER_CLOCK, SHARED_BYTES_PER_CLOCK, WARP};
use super::{fragments, kernels};
use crate::graph::ops::{Conv2d, GROUPS, Kernel, Store};
use crate::graph::{Elem, Graph, WeightId};

/// Channels that a block has in shared memory at a time, and bytes of a pixel there.
const CHUNK: usize = 32;
const PIXEL_BYTES: usize = 2 * CHUNK;

/// Pixels across a tile.
const TILE_WIDTH: usize = 16;

/// Channels of a normalized input whose scales and shifts still fit in shared memory beside two stages, 48 KiB in all.
const MAX_NORMALIZED: usize = 2048;

/// Tensor cores of a multiprocessor.
const TENSOR_CORES: usize = 4;

/// What a block of a kernel computes: the `Tile` of the kernel's source.
#[derive(Clone, Copy)]
struct Tile {
    kernel: Launchable,
    height: usize,
    channels: usize,
    /// Warps that multiply, below and beside each other; those below share the weights.
    warps: (usize, usize),
    /// Warps that copy and normalize for them.
    helpers: usize,
    /// Blocks for which a multiprocessor has registers.
    together: usize,
}

impl Tile {
    const fn large(kernel: Launchable) -> Self {
        Self { kernel, height: 8, channels: 128, warps: (1, 4), helpers: 0, together: 2 }
    }

    const fn medium(kernel: Launchable) -> Self {
        Self { kernel, height: 8, channels: 32, warps: (2, 2), helpers: 4, together: 2 }
    }

    const fn flat(kernel: Launchable) -> Self {
        Self { kernel, height: 4, channels: 64, warps: (1, 2), helpers: 0, together: 5 }
    }

    const fn small(kernel: Launchable) -> Self {
        Self { kernel, height: 2, channels: 32, warps: (1, 2), helpers: 0, together: 8 }
    }

    const fn wide(kernel: Launchable) -> Self {
        Self { kernel, height: 2, channels: 128, warps: (1, 4), helpers: 0, together: 4 }
    }

    const fn thin(kernel: Launchable) -> Self {
        Self { kernel, height: 8, channels: 16, warps: (4, 1), helpers: 0, together: 5 }
    }

    fn threads(&self) -> usize {
        (self.warps.0 * self.warps.1 + self.helpers) * WARP
    }

    /// Parts of the input in shared memory.
    fn stages(&self) -> usize {
        if self.helpers > 0 { 3 } else { 2 }
    }

    /// The tiles of a map of (height, width) pixels and of its channels.
    fn grid(&self, (height, width): (usize, usize), channels: usize) -> [usize; 2] {
        [height.div_ceil(self.height) * width.div_ceil(TILE_WIDTH), channels.div_ceil(self.channels)]
    }
}

impl Conv2d {
    /// Whether a stage is copied 16 bytes at a time; else it is read value by value.
    fn copies(&self, graph: &Graph) -> bool {
        graph.at(self.x).elem == Elem::Bf16 && self.channels_in.is_multiple_of(8)
    }

    /// The tile that takes the fewest clocks; of equals, the largest.
    fn tile(&self, graph: &Graph, images: usize, capacity: Capacity) -> Tile {
        let small = match (self.kernel, self.copies(graph)) {
            (Kernel::Point, true) => Tile::small(kernels::CONV2D_POINT_SMALL),
            (Kernel::Point, false) => return Tile::small(kernels::CONV2D_POINT_GATHER),
            (Kernel::Square, false) => return Tile::small(kernels::CONV2D_SQUARE_GATHER),
            (Kernel::Square, true) if self.channels_out <= 16 => return Tile::thin(kernels::CONV2D_SQUARE_THIN),
            (Kernel::Square, true) => Tile::small(kernels::CONV2D_SQUARE_SMALL),
            (Kernel::Downsample, _) => Tile::small(kernels::CONV2D_DOWNSAMPLE_SMALL),
            (Kernel::Upsample, _) => Tile::small(kernels::CONV2D_UPSAMPLE_SMALL),
        };
        // The others store bf16 by twos.
        if graph.at(self.out).elem != Elem::Bf16 || !self.channels_out.is_multiple_of(2) {
            return small;
        }
        let larger: &[Tile] = match self.kernel {
            Kernel::Point => &[Tile::flat(kernels::CONV2D_POINT_FLAT)],
            Kernel::Square => &[Tile::large(kernels::CONV2D_SQUARE_LARGE), Tile::medium(kernels::CONV2D_SQUARE_MEDIUM)],
            Kernel::Downsample => &[Tile::wide(kernels::CONV2D_DOWNSAMPLE_WIDE)],
            Kernel::Upsample => {
                &[Tile::large(kernels::CONV2D_UPSAMPLE_LARGE), Tile::medium(kernels::CONV2D_UPSAMPLE_MEDIUM)]
            }
        };
        let fit = |tile: &&Tile| self.shared_bytes(tile) <= capacity.shared_bytes;
        let fewest = larger.iter().filter(fit).chain([&small]).min_by_key(|tile| self.clocks(tile, images, capacity));
        *fewest.expect("there is the small one")
    }

    /// What a tile takes of a multiprocessor for each [`CHUNK`] of channels, by a model of what it must multiply, fetch from
    /// L2 and read from where it then lies, as products have one: from the machine code for Hopper, not from measurements.
    /// The multiprocessor is one of those that have most, and takes its blocks in whole turns.
    fn clocks(&self, tile: &Tile, images: usize, capacity: Capacity) -> usize {
        let (warps, side) = (tile.warps.0 * tile.warps.1, self.kernel.merged_side());
        let taps = side * side;
        // A warp, on the tensor core that it has to itself.
        let warp = tile.height * TILE_WIDTH * tile.channels / warps * CHUNK * taps / (FMAS_PER_CLOCK / TENSOR_CORES);
        // As if no neighbour had the same weights: those of a small map do not.
        let fetched = (tile.channels * taps + self.pixels(tile)) * CHUNK * Elem::Bf16.size() / BYTES_PER_CLOCK;
        // Each warp its weights, and for each tap column the rows that its own see, of every second pixel at half the rate;
        // what is copied is normalized in place.
        let rows = tile.height / tile.warps.0;
        let seen = (rows - 1) * self.kernel.stride() + side;
        let weights = tile.warps.0 * tile.channels * taps;
        let read = weights + warps * seen * side * TILE_WIDTH * self.kernel.stride() + 3 * self.pixels(tile);
        let read = read * CHUNK * Elem::Bf16.size() / SHARED_BYTES_PER_CLOCK;
        // A tensor core that has one warp waits two fifths of the time: for memory, and while the warp normalizes; a sixth
        // where helpers do that. What is not the bound stands in its way for an eighth of its own time.
        let alone = if tile.helpers > 0 { 6 * warp / 5 } else { 5 * warp / 3 };
        let turn = |blocks: usize| match blocks {
            0 => 0,
            _ => {
                let bounds = [(blocks * warps * warp / TENSOR_CORES).max(alone), blocks * fetched, blocks * read];
                let most = bounds[0].max(bounds[1]).max(bounds[2]);
                most + (bounds.iter().sum::<usize>() - most) / 8
            }
        };
        let together = capacity.room_of_vq(self.shared_bytes(tile)).clamp(1, tile.together);
        let [map, channels] = tile.grid(self.kernel.grid(self.size), self.channels_out);
        let each = (images * self.phases() * map * channels).div_ceil(capacity.multiprocessors);
        each / together * turn(together) + turn(each % together)
    }

    /// Outputs over each pixel of the map that tiles lie on, [`Kernel::grid`].
    fn phases(&self) -> usize {
        self.kernel.repeat() * self.kernel.repeat()
    }

    /// Pixels of the input that as many of the map see, one way.
    fn span(&self, pixels: usize) -> usize {
        (pixels - 1) * self.kernel.stride() + self.kernel.merged_side()
    }

    /// Pixels of the input under a tile, border included.
    fn pixels(&self, tile: &Tile) -> usize {
        self.span(tile.height) * self.span(TILE_WIDTH)
    }

    /// Dynamic shared memory of a block: its stages, where their pixels are, the normalization's scales and shifts.
    fn shared_bytes(&self, tile: &Tile) -> usize {
        // Columns in pairs.
        let pixels = self.span(tile.height) * self.span(TILE_WIDTH).next_multiple_of(2);
        let places = pixels.next_multiple_of(4) * size_of::<i32>();
        tile.stages() * pixels * PIXEL_BYTES
            + places
            + self.norm.map_or(0, |_| self.channels_in.next_multiple_of(CHUNK) * 2 * size_of::<f32>())
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
        if let Some(moments) = self.moments {
            let (elem, moments) = (graph.at(self.out).elem, graph.at(moments).elem);
            if (elem, moments) != (Elem::Bf16, Elem::F32) || !self.channels_out.is_multiple_of(GROUPS) {
                let (elem, channels, moments) = (elem.name(), self.channels_out, moments.name());
                let wanted = format!("bf16 of a multiple of {GROUPS} channels to leave moments in f32");
                return Err(format!("needs {wanted}, found {elem} of {channels} and {moments}"));
            }
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
        let (kernel, n, c) = (self.kernel, self.channels_out, self.channels_in);
        vec![(self.weight, Arrangement::new("conv2d", move |values| pack(kernel, values, n, c)))]
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let images = cx.extent.rows;
        let tile = self.tile(cx.graph, images, cx.capacity);
        let [map, channels] = tile.grid(self.kernel.grid(self.size), self.channels_out);
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
            Launch::new(tile.kernel, [map, channels, images * self.phases()], tile.threads())
                .shared(self.shared_bytes(&tile))
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.x))
                .arg(self.residual.map_or(Ptr::NULL, |residual| cx.buffer(residual)))
                .arg(cx.weight(self.weight))
                .arg(cx.weight(self.bias))
                .arg(self.norm.map_or(Ptr::NULL, |norm| cx.buffer(norm.stats)))
                .arg(norm(|norm| norm.weight))
                .arg(norm(|norm| norm.bias))
                .arg(self.moments.map_or(Ptr::NULL, |moments| cx.buffer(moments)))
                .size(self.size.0)
                .size(self.size.1)
                .size(self.channels_in)
                .size(self.channels_out)
                .arg(u32::from(self.norm.is_some_and(|norm| norm.silu)))
                .arg(store | load),
        ]
    }
}

/// (N, C, side, side) as fragments of a matrix for each phase of outputs, whose columns are ordered by blocks of 16
/// channels, tap columns, tap rows, channels; C is filled up with zeros to whole stages. Taps that meet the same pixel are
/// added up, and rounded once.
///
/// Here weights are the mma's second operand, pixels its first: a lane holds b0 and b1 of channels 0 to 7, then those of
/// 8 to 15, each pair in two registers in a row. That is the first operand's order with the halves of the tile's rows
/// and columns in each other's place. The kernels load ahead: behind the last tap column there is one more of zeros.
fn pack(kernel: Kernel, values: &[bf16], n: usize, c: usize) -> Vec<bf16> {
    let (side, taps, phases) = (kernel.merged_side(), kernel.side() * kernel.side(), kernel.repeat());
    let padded = (n.next_multiple_of(fragments::TILE), c.next_multiple_of(CHUNK) * side * side);
    let of_phase = |phase: usize| {
        fragments::pack_with(padded.0, padded.1, |row, column| {
            let (row, column) = ((row & !8) | (column & 8), (column & !8) | (row & 8));
            let (tap, channel) = (column / 16 % (side * side), column / 16 / (side * side) * 16 + column % 16);
            if row >= n || channel >= c {
                return bf16::ZERO;
            }
            let kernel_of = &values[(row * c + channel) * taps..][..taps];
            let phase = (phase / phases, phase % phases);
            bf16::from_f32(kernel.merged_tap(phase, (tap % side, tap / side), |at| kernel_of[at].to_f32()))
        })
    };
    let mut tiles = of_phase(0);
    (1..phases * phases).for_each(|phase| tiles.extend(of_phase(phase)));
    tiles.resize(tiles.len() + side * fragments::TILE_LEN, bf16::ZERO);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Extent, Per, Role, Source};

    /// The kernel for a bf16 map on a device of so many multiprocessors.
    fn chosen(
        kernel: Kernel,
        size: (usize, usize),
        channels: (usize, usize),
        images: usize,
        capacity: Capacity,
    ) -> Launchable {
        let mut graph = Graph::new("conv2d", Extent { rows: images, draws: 0 });
        let mut map = |name: &str| graph.buffer(name, Elem::Bf16, Per::Row, &[1], Role::Scratch);
        let (out, x) = (map("out"), map("x"));
        let side = kernel.side();
        let op = Conv2d {
            out,
            x,
            norm: None,
            residual: None,
            moments: None,
            weight: graph.weight("weight", Elem::Bf16, &[channels.1, channels.0, side, side], Source::Tensor),
            bias: graph.weight("bias", Elem::F32, &[channels.1], Source::Tensor),
            kernel,
            size,
            channels_in: channels.0,
            channels_out: channels.1,
            store: Store::Plain,
        };
        assert_eq!(op.check(&graph), Ok(()));
        op.tile(&graph, images, capacity).kernel
    }

    fn hopper(multiprocessors: usize) -> Capacity {
        Capacity { multiprocessors, shared_bytes: 227 * 1024 }
    }

    #[test]
    fn tiles_take_the_fewest_clocks() {
        use Kernel::{Downsample, Point, Square, Upsample};
        for (kernel, side, channels, images, expected) in [
            // Large ones would be 288, on 264 places.
            (Square, 192, (128, 128), 1, kernels::CONV2D_SQUARE_MEDIUM),
            (Square, 192, (128, 128), 8, kernels::CONV2D_SQUARE_LARGE),
            (Square, 384, (128, 128), 1, kernels::CONV2D_SQUARE_LARGE),
            (Square, 16, (512, 512), 1, kernels::CONV2D_SQUARE_SMALL),
            (Square, 24, (512, 512), 1, kernels::CONV2D_SQUARE_MEDIUM),
            (Square, 16, (512, 512), 32, kernels::CONV2D_SQUARE_LARGE),
            (Square, 64, (256, 256), 1, kernels::CONV2D_SQUARE_MEDIUM),
            (Square, 96, (256, 256), 1, kernels::CONV2D_SQUARE_MEDIUM),
            (Square, 256, (128, 128), 1, kernels::CONV2D_SQUARE_LARGE),
            (Square, 256, (128, 3), 1, kernels::CONV2D_SQUARE_THIN),
            (Square, 256, (3, 128), 1, kernels::CONV2D_SQUARE_GATHER),
            (Upsample, 16, (512, 512), 1, kernels::CONV2D_UPSAMPLE_MEDIUM),
            (Upsample, 128, (128, 128), 1, kernels::CONV2D_UPSAMPLE_LARGE),
            (Downsample, 256, (128, 128), 1, kernels::CONV2D_DOWNSAMPLE_WIDE),
            (Downsample, 384, (128, 128), 1, kernels::CONV2D_DOWNSAMPLE_WIDE),
            (Downsample, 32, (256, 256), 1, kernels::CONV2D_DOWNSAMPLE_SMALL),
            (Point, 16, (512, 512), 1, kernels::CONV2D_POINT_SMALL),
            (Point, 128, (256, 128), 1, kernels::CONV2D_POINT_FLAT),
        ] {
            let found = chosen(kernel, (side, side), channels, images, hopper(132));
            assert_eq!(found, expected, "{kernel:?} {side} {channels:?}");
        }
    }

    #[test]
    fn the_cases_of_the_tests_take_every_tile() {
        // Of tests/ops/conv2d.rs: `every_tile_gives_the_same_bits_on_cuda`, and what its other tests' device, of four
        // multiprocessors, takes.
        for (kernel, size, tiles, on_four) in [
            (Kernel::Point, (9, 20), 2, kernels::CONV2D_POINT_FLAT),
            (Kernel::Square, (15, 18), 3, kernels::CONV2D_SQUARE_MEDIUM),
            (Kernel::Downsample, (9, 20), 2, kernels::CONV2D_DOWNSAMPLE_WIDE),
            (Kernel::Upsample, (7, 9), 3, kernels::CONV2D_UPSAMPLE_LARGE),
        ] {
            for channels in [(32, 128), (40, 120), (160, 128)] {
                let chosen = |n| chosen(kernel, size, channels, 3, hopper(n));
                let names: std::collections::BTreeSet<_> =
                    [1, 2, 4, 8, 16, 1 << 20].into_iter().map(|n| chosen(n).name).collect();
                assert_eq!(names.len(), tiles, "{kernel:?} {channels:?} takes {names:?} alone");
                assert_eq!(chosen(4), on_four, "{channels:?}");
            }
        }
    }

    #[test]
    fn a_tile_has_room_where_it_is_chosen() {
        // Three stages of 11,520 bytes.
        for (kib, expected) in [(35, kernels::CONV2D_SQUARE_MEDIUM), (34, kernels::CONV2D_SQUARE_SMALL)] {
            let capacity = Capacity { multiprocessors: 132, shared_bytes: kib * 1024 };
            assert_eq!(chosen(Kernel::Square, (24, 24), (512, 512), 1, capacity), expected, "{kib} KiB");
        }
    }
}
