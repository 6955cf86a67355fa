//! The VQ decoder: from codes to pixels.
//!
//! ```text
//! codebook_lookup; conv_in; mid; for each level, lowest first { residual blocks; upsample }; conv_out
//! ```
//!
//! The lowest level has an attention block behind each residual block.

use super::vq_blocks::{Blocks, Held, Map, Pixels, check_widths};
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
    pub fn build(
        config: &VqConfig,
        latent: (usize, usize),
        max_images: usize,
        output: Pixels,
        held: impl Into<Held>,
    ) -> Result<Self> {
        let VqConfig { ch, z_channels, num_res_blocks, .. } = *config;
        let ch_mult = &config.decoder_ch_mult;
        check_widths(config, ch_mult)?;
        let image_size = (latent.0 * config.downsample_size(), latent.1 * config.downsample_size());

        let mut blocks = Blocks::new("vq_decoder", "decode", max_images, held.into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::graph::{Extent, Load};
    use crate::models::{VqEncoder, latent_size};

    fn vq_16() -> VqConfig {
        VqConfig {
            codebook_size: 16384,
            codebook_embed_dim: 8,
            z_channels: 256,
            ch: 128,
            decoder_ch_mult: vec![1, 1, 2, 2, 4],
            encoder_ch_mult: None,
            num_res_blocks: 2,
        }
    }

    #[test]
    fn vq_16_is_as_large_as_it_should_be() {
        let decoder = VqDecoder::build(&vq_16(), (16, 16), 1, Pixels::U8, Elem::F32).expect("it can be built");
        assert_eq!(decoder.image_size, (256, 256));
        let convolutions = decoder.graph.nodes(decoder.decode).iter().filter(|node| node.op.name() == "conv2d").count();
        // 59 convolutions, of which post_quant_conv is part of the lookup, and four times q, k and v are one.
        assert_eq!(convolutions, 50);
        let load = Load { extent: Extent { rows: 1, draws: 0 }, keys: 0 };
        let gflop = decoder.graph.cost(decoder.decode, &load).flops as f64 * 1e-9;
        assert_eq!(gflop.round(), 253.0);
        // Two maps of 256 x 256 x 128 and little else.
        let pair = 2 * 256 * 256 * 128 * 4;
        let scratch = decoder.graph.buffer_bytes(Role::Scratch);
        assert!(scratch < pair + pair / 5, "{scratch} bytes of activations");
    }

    #[test]
    fn sizes_that_do_not_fit_are_told() {
        let config = vq_16();
        assert_eq!(latent_size(&config, (256, 512)).expect("it fits"), (16, 32));
        for size in [(250, 256), (256, 8), (0, 256)] {
            let error = latent_size(&config, size).expect_err("it does not fit");
            assert!(matches!(error, Error::Mismatch { .. }), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
        let hint = latent_size(&config, (250, 8)).expect_err("it does not fit");
        assert_eq!(hint.hint(), Some("the next larger size that fits is 256 x 16"));
    }

    #[test]
    fn a_checkpoint_without_encoder_cannot_encode() {
        let error = VqEncoder::build(&vq_16(), (256, 256), 1, Pixels::U8, Elem::F32).expect_err("no encoder");
        assert!(error.to_string().contains("encoder"), "{error}");
    }

    #[test]
    fn widths_must_fit_the_groups() {
        let config = VqConfig { ch: 24, ..vq_16() };
        let error = VqDecoder::build(&config, (16, 16), 1, Pixels::U8, Elem::F32).expect_err("24 is no multiple of 32");
        assert!(error.to_string().contains("24"), "{error}");
    }
}
