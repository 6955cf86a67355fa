//! The VQ decoder: from codes to pixels.
//!
//! ```text
//! codebook_lookup; conv_in; mid; for each level, lowest first { residual blocks; upsample }; conv_out
//! ```
//!
//! The lowest level has an attention block behind each residual block.

use super::vq_blocks::{Blocks, Map, Pixels, check_widths};
use crate::Result;
use crate::config::VqConfig;
use crate::graph::ops::{CodebookLookup, Kernel};
use crate::graph::{BufferId, Elem, Graph, Per, PhaseId, Role};

/// The decoder's graph and the buffers that it is driven by. A row of its runs is an image.
#[derive(Clone, Debug)]
pub struct VqDecoder {
    pub graph: Graph,
    /// Codes to pixels.
    pub decode: PhaseId,
    /// (R, codes down * codes across) in, u32, all below the codebook's size
    pub codes: BufferId,
    /// (R, H, W, 3) out
    pub image: BufferId,
    /// (H, W)
    pub image_size: (usize, usize),
}

impl VqDecoder {
    /// For images of `latent` (down, across) codes, at most `max_images` per run.
    ///
    /// Errors when the configuration's widths do not fit GroupNorm's groups.
    pub fn build(config: &VqConfig, latent: (usize, usize), max_images: usize, output: Pixels) -> Result<Self> {
        let VqConfig { ch, z_channels, num_res_blocks, .. } = *config;
        let ch_mult = &config.decoder_ch_mult;
        check_widths(config, ch_mult)?;
        let image_size = (latent.0 * config.downsample_size(), latent.1 * config.downsample_size());

        let mut blocks = Blocks::new("vq_decoder", "decode", max_images);
        let codes = blocks.graph.buffer("codes", Elem::U32, Per::Row, &[latent.0 * latent.1], Role::Input);
        let image_shape = [image_size.0, image_size.1, 3];
        let image = blocks.graph.buffer("image", output.elem(), Per::Row, &image_shape, Role::Output);

        let z = blocks.map(latent, z_channels);
        lookup(&mut blocks, config, codes, z);
        let levels = ch_mult.len();
        let mut x = blocks.conv("decoder.conv_in", z, ch * ch_mult[levels - 1], Kernel::Square);
        blocks.free(z);
        x = blocks.mid("decoder", x);
        for (i, mult) in ch_mult.iter().rev().enumerate() {
            let level = format!("decoder.conv_blocks.{i}");
            for j in 0..num_res_blocks + 1 {
                x = blocks.resnet_block(&format!("{level}.res.{j}"), x, ch * mult);
                if i == 0 {
                    x = blocks.attn_block(&format!("{level}.attn.{j}"), x);
                }
            }
            if i + 1 < levels {
                x = blocks.resample(&format!("{level}.upsample.conv"), x, Kernel::Upsample);
            }
        }
        let pixels = Map { buffer: image, size: image_size, channels: 3 };
        blocks.conv_out("decoder", x, pixels, output.store());
        Ok(Self { graph: blocks.graph, decode: blocks.phase, codes, image, image_size })
    }
}

fn lookup(blocks: &mut Blocks, config: &VqConfig, codes: BufferId, z: Map) {
    let op = CodebookLookup {
        x: z.buffer,
        codes,
        codebook: blocks.codebook(config),
        weight: blocks.weight("post_quant_conv.weight".into(), &[z.channels, config.codebook_embed_dim, 1, 1]),
        bias: blocks.weight("post_quant_conv.bias".into(), &[z.channels]),
        pixels: z.pixels(),
        codebook_size: config.codebook_size,
        codebook_embed_dim: config.codebook_embed_dim,
        z_channels: z.channels,
    };
    blocks.push("post_quant_conv", op);
}
