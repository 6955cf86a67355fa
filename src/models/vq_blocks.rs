//! What the VQ decoder and encoder are made of: residual and attention blocks over a few shared buffers.
//!
//! Activations of all sizes take turns in a handful of flat buffers, each as long as the largest that
//! it ever holds; a block's last convolution adds to the residual where it lies.

use crate::config::VqConfig;
use crate::graph::ops::{
    CodebookLookup, Conv2d, GROUPS, GroupNormStats, Kernel, Norm, Patches, PixelsToInput, SpatialAttention, Store,
};
use crate::graph::{BufferId, Elem, Extent, Graph, Op, Per, PhaseId, Role, Source, WeightId};
use crate::{Error, Result};

/// GroupNorm's epsilon in LlamaGen's VQ model.
const EPS: f32 = 1e-6;

/// What pixels are on their way in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// f32, about [-1, 1], not clamped.
    F32,
    /// RGB bytes.
    U8,
}

impl Pixels {
    pub(super) fn elem(self) -> Elem {
        match self {
            Self::F32 => Elem::F32,
            Self::U8 => Elem::U8,
        }
    }

    pub(super) fn store(self) -> Store {
        match self {
            Self::F32 => Store::Plain,
            Self::U8 => Store::Rgb8,
        }
    }
}

/// What a VQ graph is held as; of one [`Elem`] both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Kernels of the convolutions, and what is multiplied with them: [`Elem::F32`] or [`Elem::Bf16`].
    pub weights: Elem,
    /// Maps from one op to the next: [`Elem::F32`] or [`Elem::Bf16`].
    pub activations: Elem,
}

impl From<Elem> for Held {
    fn from(elem: Elem) -> Self {
        Self { weights: elem, activations: elem }
    }
}

/// Codes down and across of an image of `image` (height, width) pixels.
///
/// Errors when the model's down-sampling does not divide the size.
pub fn latent_size(config: &VqConfig, image: (usize, usize)) -> Result<(usize, usize)> {
    let down = config.downsample_size();
    let divides = |side: usize| side > 0 && side.is_multiple_of(down);
    if divides(image.0) && divides(image.1) {
        return Ok((image.0 / down, image.1 / down));
    }
    let near = |side: usize| side.next_multiple_of(down).max(down);
    Err(Error::Mismatch {
        what: "image size".into(),
        expected: format!("height and width divisible by {down}, the VQ model's down-sampling"),
        found: format!("{} x {} (height x width)", image.0, image.1),
        hint: format!("the next larger size that fits is {} x {}", near(image.0), near(image.1)),
    })
}

/// Errors when a width of the model cannot be cut into GroupNorm's groups.
pub(super) fn check_widths(config: &VqConfig, ch_mult: &[usize]) -> Result<()> {
    match ch_mult.iter().map(|mult| config.ch * mult).find(|width| !width.is_multiple_of(GROUPS)) {
        None => Ok(()),
        Some(width) => Err(Error::Mismatch {
            what: "channels of the VQ model".into(),
            expected: format!("a multiple of {GROUPS}, the groups of its GroupNorm"),
            found: width.to_string(),
            hint: String::new(),
        }),
    }
}

/// An activation: (H, W, C) per image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub buffer: BufferId,
    pub size: (usize, usize),
    pub channels: usize,
}

impl Map {
    pub fn pixels(&self) -> usize {
        self.size.0 * self.size.1
    }
}

/// A normalization in front of a convolution.
#[derive(Clone, Copy)]
enum Before<'a> {
    Nothing,
    Norm(&'a str),
    NormSilu(&'a str),
}

/// Builds one phase of ops over shared buffers.
pub(super) struct Blocks {
    pub graph: Graph,
    pub phase: PhaseId,
    /// (R, GROUPS, 2)
    stats: BufferId,
    /// (R, patches, C, 2), of the map that is normalized next
    moments: BufferId,
    held: Held,
    /// Activation buffers and whether something lies in them.
    slots: Vec<(BufferId, bool)>,
}

impl Blocks {
    /// `name` is the graph's, `phase` its only phase's; at most `images` per run.
    pub fn new(name: &str, phase: &str, images: usize, held: Held) -> Self {
        let mut graph = Graph::new(name, Extent { rows: images, draws: 0 });
        let phase = graph.phase(phase);
        let stats = graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch);
        let moments = graph.buffer("moments", Elem::F32, Per::Row, &[0], Role::Scratch);
        Self { graph, phase, stats, moments, held, slots: Vec::new() }
    }

    /// Room for an activation: the longest free buffer, so that few ever grow.
    pub fn map(&mut self, size: (usize, usize), channels: usize) -> Map {
        let len = size.0 * size.1 * channels;
        let free = (0..self.slots.len()).filter(|&slot| !self.slots[slot].1);
        let slot = match free.max_by_key(|&slot| (self.graph.len_of(self.slots[slot].0), slot)) {
            Some(slot) => slot,
            None => {
                let name = format!("activations.{}", self.slots.len());
                let buffer = self.graph.buffer(name, self.held.activations, Per::Row, &[0], Role::Scratch);
                self.slots.push((buffer, true));
                self.slots.len() - 1
            }
        };
        let buffer = self.slots[slot].0;
        self.slots[slot].1 = true;
        self.graph.grow(buffer, len);
        Map { buffer, size, channels }
    }

    /// Nobody reads the activation any more.
    pub fn free(&mut self, map: Map) {
        for slot in self.slots.iter_mut().filter(|slot| slot.0 == map.buffer) {
            slot.1 = false;
        }
    }

    pub fn push(&mut self, name: impl Into<String>, op: impl Into<Op>) {
        self.graph.push(self.phase, name, op);
    }

    /// An f32 weight of the checkpoint.
    pub fn weight(&mut self, name: String, shape: &[usize]) -> WeightId {
        self.graph.weight(name, Elem::F32, shape, Source::Tensor)
    }

    /// The codebook with its rows normalized.
    pub fn codebook(&mut self, config: &VqConfig) -> WeightId {
        let shape = [config.codebook_size, config.codebook_embed_dim];
        self.graph.weight("quantize.embedding.weight", Elem::F32, &shape, Source::NormalizedTensor)
    }

    /// A convolution without anything around it.
    pub fn conv(&mut self, name: &str, x: Map, channels: usize, kernel: Kernel) -> Map {
        let out = self.map(kernel.output(x.size), channels);
        self.conv_to(name, x, out, kernel);
        out
    }

    /// The same into a given place.
    pub fn conv_to(&mut self, name: &str, x: Map, out: Map, kernel: Kernel) {
        self.conv_into(name, x, out, kernel, Before::Nothing, None);
    }

    /// `norm_out`, SiLU and `conv_out` into `out`, as f32 or pixels.
    pub fn conv_out(&mut self, prefix: &str, x: Map, out: Map, store: Store) {
        let norm = self.norm(Before::NormSilu(&format!("{prefix}.norm_out")), x);
        let op = self.conv_op(&[format!("{prefix}.conv_out")], x, out, Kernel::Square, norm, None);
        self.push(format!("{prefix}.conv_out"), Conv2d { store, ..op });
    }

    /// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through `nin_shortcut` where the width changes.
    pub fn resnet_block(&mut self, name: &str, x: Map, channels: usize) -> Map {
        let h = self.map(x.size, channels);
        let (norm1, norm2) = (format!("{name}.norm1"), format!("{name}.norm2"));
        self.conv_into(&format!("{name}.conv1"), x, h, Kernel::Square, Before::NormSilu(&norm1), None);
        let x = if x.channels == channels {
            x
        } else {
            let shortcut = self.conv(&format!("{name}.nin_shortcut"), x, channels, Kernel::Point);
            self.free(x);
            shortcut
        };
        self.conv_into(&format!("{name}.conv2"), h, x, Kernel::Square, Before::NormSilu(&norm2), Some(x));
        self.free(h);
        x
    }

    /// x + proj_out(attention(q, k, v of norm(x))).
    pub fn attn_block(&mut self, name: &str, x: Map) -> Map {
        let norm = self.norm(Before::Norm(&format!("{name}.norm")), x);
        let parts = ["q", "k", "v"].map(|part| format!("{name}.{part}"));
        let qkv = self.map(x.size, 3 * x.channels);
        let op = self.conv_op(&parts, x, qkv, Kernel::Point, norm, None);
        self.push(format!("{name}.qkv"), op);
        let out = self.map(x.size, x.channels);
        let (pixels, channels) = (x.pixels(), x.channels);
        let attention = SpatialAttention { out: out.buffer, qkv: qkv.buffer, pixels, channels };
        self.push(format!("{name}.attention"), attention);
        self.conv_into(&format!("{name}.proj_out"), out, x, Kernel::Point, Before::Nothing, Some(x));
        self.free(qkv);
        self.free(out);
        x
    }

    /// `mid`: residual, attention, residual.
    pub fn mid(&mut self, prefix: &str, x: Map) -> Map {
        let x = self.resnet_block(&format!("{prefix}.mid.0"), x, x.channels);
        let x = self.attn_block(&format!("{prefix}.mid.1"), x);
        self.resnet_block(&format!("{prefix}.mid.2"), x, x.channels)
    }

    /// A convolution to another resolution.
    pub fn resample(&mut self, name: &str, x: Map, kernel: Kernel) -> Map {
        let out = self.conv(name, x, x.channels, kernel);
        self.free(x);
        out
    }

    fn conv_into(&mut self, name: &str, x: Map, out: Map, kernel: Kernel, before: Before<'_>, residual: Option<Map>) {
        let norm = self.norm(before, x);
        let op = self.conv_op(&[name.into()], x, out, kernel, norm, residual);
        self.push(name, op);
    }

    /// A convolution, or those of several names in one: the checkpoint has their kernels one by one.
    fn conv_op(
        &mut self,
        names: &[String],
        x: Map,
        out: Map,
        kernel: Kernel,
        norm: Option<Norm>,
        residual: Option<Map>,
    ) -> Conv2d {
        let shape = [out.channels, x.channels, kernel.side(), kernel.side()];
        let held = self.held.weights;
        let mut stacked = |tensor: &str, elem: Elem, shape: &[usize]| {
            let tensors: Vec<String> = names.iter().map(|name| format!("{name}.{tensor}")).collect();
            let name = tensors.join(" + ");
            let source = if tensors.len() == 1 { Source::Tensor } else { Source::Stacked(tensors) };
            self.graph.weight(name, elem, shape, source)
        };
        Conv2d {
            out: out.buffer,
            x: x.buffer,
            norm,
            residual: residual.map(|map| map.buffer),
            moments: None,
            weight: stacked("weight", held, &shape),
            bias: stacked("bias", Elem::F32, &[out.channels]),
            kernel,
            size: x.size,
            channels_in: x.channels,
            channels_out: out.channels,
            store: Store::Plain,
        }
    }

    /// Has the convolution that made `x` leave its moments, and says how they are cut.
    fn ask_for_moments(&mut self, x: Map) -> Patches {
        for node in self.graph.nodes_mut(self.phase).iter_mut().rev() {
            let op = match &mut node.op {
                Op::Conv2d(op) => op,
                Op::SpatialAttention(SpatialAttention { out, .. })
                | Op::CodebookLookup(CodebookLookup { x: out, .. })
                | Op::PixelsToInput(PixelsToInput { x: out, .. }) => {
                    assert!(*out != x.buffer, "`{}`, no convolution, made `{:?}`", node.name, x.buffer);
                    continue;
                }
                _ => continue,
            };
            if op.out == x.buffer {
                op.moments = Some(self.moments);
                let (patches, len) = (op.patches(), op.len_moments());
                self.graph.grow(self.moments, len);
                return patches;
            }
            assert!(op.moments.is_none(), "`{}` would overwrite the moments of `{:?}`", node.name, x.buffer);
        }
        panic!("no convolution made `{:?}`", x.buffer)
    }

    /// Takes the statistics that a normalization of `x` needs.
    fn norm(&mut self, before: Before<'_>, x: Map) -> Option<Norm> {
        let (name, silu) = match before {
            Before::Nothing => return None,
            Before::Norm(name) => (name, false),
            Before::NormSilu(name) => (name, true),
        };
        let (stats, moments, patches) = (self.stats, self.moments, self.ask_for_moments(x));
        self.push(name, GroupNormStats { stats, moments, patches, channels: x.channels, eps: EPS });
        Some(Norm {
            stats: self.stats,
            weight: self.weight(format!("{name}.weight"), &[x.channels]),
            bias: self.weight(format!("{name}.bias"), &[x.channels]),
            silu,
        })
    }
}
