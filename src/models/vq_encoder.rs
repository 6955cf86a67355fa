//! The VQ encoder: from pixels to codes.
//!
//! ```text
//! conv_in; for each level, highest first { residual blocks; downsample }; mid; conv_out; quant_conv; nearest_code
//! ```
//!
//! The lowest level has an attention block behind each residual block.

use super::vq_blocks::{Blocks, Held, Map, Pixels, check_widths, latent_size};
use crate::config::VqConfig;
use crate::graph::ops::{Kernel, NearestCode, PixelsToInput, Store};
use crate::graph::{BufferId, Elem, Graph, Per, PhaseId, Role};
use crate::{Error, Result};

/// The encoder's graph and the buffers that it is driven by. A row of its runs is an image.
#[derive(Clone, Debug)]
pub struct VqEncoder {
    pub graph: Graph,
    /// Pixels to codes.
    pub encode: PhaseId,
    /// (R, H, W, 3) in
    pub image: BufferId,
    /// (R, codes, E) the vectors before the codebook, not normalized
    pub z: BufferId,
    /// (R, codes) out, u32, row by row
    pub codes: BufferId,
    /// Codes down and across.
    pub latent: (usize, usize),
}

impl VqEncoder {
    /// For images of `image_size` (height, width), at most `max_images` per run. The vectors before the codebook
    /// are f32.
    ///
    /// Errors when the down-sampling does not divide the size, or when the checkpoint has no encoder.
    pub fn build(
        config: &VqConfig,
        image_size: (usize, usize),
        max_images: usize,
        input: Pixels,
        held: impl Into<Held>,
    ) -> Result<Self> {
        let VqConfig { ch, z_channels, num_res_blocks, codebook_embed_dim, .. } = *config;
        let ch_mult = config.encoder_ch_mult.as_ref().ok_or_else(|| Error::Mismatch {
            what: "VQ checkpoint".into(),
            expected: "an encoder (tensors `encoder.*`)".into(),
            found: "a decoder only".into(),
            hint: "use the VQ checkpoint as LlamaGen released it".into(),
        })?;
        check_widths(config, ch_mult)?;
        let latent = latent_size(config, image_size)?;
        let pixels = latent.0 * latent.1;

        let mut blocks = Blocks::new("vq_encoder", "encode", max_images, held.into());
        let image_shape = [image_size.0, image_size.1, 3];
        let image = blocks.graph.buffer("image", input.elem(), Per::Row, &image_shape, Role::Input);
        let z = blocks.graph.buffer("z", Elem::F32, Per::Row, &[pixels, codebook_embed_dim], Role::Output);
        let codes = blocks.graph.buffer("codes", Elem::U32, Per::Row, &[pixels], Role::Output);

        let rgb = input_map(&mut blocks, image, image_size, input);
        let mut x = blocks.conv("encoder.conv_in", rgb, ch, Kernel::Square);
        blocks.free(rgb);
        for (i, mult) in ch_mult.iter().enumerate() {
            let level = format!("encoder.conv_blocks.{i}");
            let lowest = i + 1 == ch_mult.len();
            for j in 0..num_res_blocks {
                x = blocks.resnet_block(&format!("{level}.res.{j}"), x, ch * mult);
                if lowest {
                    x = blocks.attn_block(&format!("{level}.attn.{j}"), x);
                }
            }
            if !lowest {
                x = blocks.resample(&format!("{level}.downsample.conv"), x, Kernel::Downsample);
            }
        }
        x = blocks.mid("encoder", x);
        let h = blocks.map(latent, z_channels);
        blocks.conv_out("encoder", x, h, Store::Plain);
        blocks.conv_to("quant_conv", h, Map { buffer: z, size: latent, channels: codebook_embed_dim }, Kernel::Point);
        let nearest = NearestCode {
            codes,
            z,
            codebook: blocks.codebook(config),
            pixels,
            codebook_size: config.codebook_size,
            codebook_embed_dim,
        };
        blocks.push("quantize", nearest);
        Ok(Self { graph: blocks.graph, encode: blocks.phase, image, z, codes, latent })
    }
}

/// The image as f32: itself, or made of its bytes.
fn input_map(blocks: &mut Blocks, image: BufferId, size: (usize, usize), input: Pixels) -> Map {
    match input {
        Pixels::F32 => Map { buffer: image, size, channels: 3 },
        Pixels::U8 => {
            let x = blocks.map(size, 3);
            blocks.push("pixels", PixelsToInput { x: x.buffer, pixels: image, len: 3 * x.pixels() });
            x
        }
    }
}
