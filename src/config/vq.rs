//! The VQ model's sizes.

use super::check::{check, count, shape, wrong};
use super::{ModelKind, TensorSpec};
use crate::Result;
use crate::checkpoint::Checkpoint;

/// The tokenizer's sizes, by the names of LlamaGen's VQ `ModelArgs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VqConfig {
    pub codebook_size: usize,
    pub codebook_embed_dim: usize,
    pub z_channels: usize,
    /// Channels of the widths' unit: level `i` has `ch * ch_mult[i]`.
    pub ch: usize,
    pub decoder_ch_mult: Vec<usize>,
    /// `None` when the file holds no encoder; it can then only decode.
    pub encoder_ch_mult: Option<Vec<usize>>,
    /// Residual blocks per level of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
}

/// GroupNorm's groups; every width is a multiple.
const GROUPS: usize = 32;

/// A picture of one code per 512 pixels is beyond any use; more levels are a broken file.
const MAX_LEVELS: usize = 10;

impl VqConfig {
    /// LlamaGen's VQ-16 (`&[1, 1, 2, 2, 4]`) or VQ-8 (`&[1, 2, 2, 4]`), as released.
    pub fn released(ch_mult: &[usize]) -> Self {
        Self {
            codebook_size: 16384,
            codebook_embed_dim: 8,
            z_channels: 256,
            ch: 128,
            decoder_ch_mult: ch_mult.to_vec(),
            encoder_ch_mult: Some(ch_mult.to_vec()),
            num_res_blocks: 2,
        }
    }

    /// Pixels per code along one side: 2^(levels - 1).
    pub fn downsample_size(&self) -> usize {
        1 << (self.decoder_ch_mult.len() - 1)
    }

    /// Reads the sizes off the tensors and checks every tensor against them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Tensor`] for a tensor that is missing, unknown or of the wrong shape or type.
    pub fn detect(checkpoint: &Checkpoint) -> Result<Self> {
        let kind = ModelKind::Vq;
        let [codebook_size, codebook_embed_dim] =
            shape(checkpoint, kind, "quantize.embedding.weight", "[codebook_size, codebook_embed_dim]")?;
        let [_, z_channels, _, _] = shape(checkpoint, kind, "decoder.conv_in.weight", "[width, z_channels, 3, 3]")?;
        let mut decoder = widths(checkpoint, "decoder")?;
        decoder.reverse();
        let blocks = count(checkpoint, "decoder.conv_blocks.0.res.");
        let has_encoder = count(checkpoint, "encoder.") > 0;
        let (ch, encoder) = if has_encoder {
            let [ch, ..] = shape::<4>(checkpoint, kind, "encoder.conv_in.weight", "[ch, 3, 3, 3]")?;
            (ch, Some(widths(checkpoint, "encoder")?))
        } else {
            // Without an encoder nothing but the ratios of the widths matters.
            (decoder.iter().map(|level| level.width).fold(0, gcd), None)
        };
        let ch_mult = |levels: Vec<Level>| levels.into_iter().map(|level| level.times(checkpoint, ch)).collect();
        let config = Self {
            codebook_size,
            codebook_embed_dim,
            z_channels,
            ch,
            decoder_ch_mult: ch_mult(decoder)?,
            encoder_ch_mult: encoder.map(ch_mult).transpose()?,
            num_res_blocks: blocks.saturating_sub(1),
        };
        // `quant_conv` belongs to the encoder, and may have stayed when that was cut away.
        check(checkpoint, kind, &config.tensors(), |name| !has_encoder && name.starts_with("quant_conv."))?;
        Ok(config)
    }

    /// Every tensor that the model needs, in the order of the model; the encoder's only where it has one.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List::default();
        let (z, e) = (self.z_channels, self.codebook_embed_dim);
        if let Some(ch_mult) = &self.encoder_ch_mult {
            let last = ch_mult.len() - 1;
            list.conv("encoder.conv_in", 3, self.ch, 3);
            let mut width = self.ch;
            for (i, mult) in ch_mult.iter().enumerate() {
                let block = format!("encoder.conv_blocks.{i}");
                list.level(&block, &mut width, self.ch * mult, self.num_res_blocks, i == last);
                if i != last {
                    list.conv(&format!("{block}.downsample.conv"), width, width, 3);
                }
            }
            list.middle_and_end("encoder", width, width, z);
            list.conv("quant_conv", z, e, 1);
        }
        list.0.push(TensorSpec::new("quantize.embedding.weight", &[self.codebook_size, e]));
        list.conv("post_quant_conv", e, z, 1);

        let levels = self.decoder_ch_mult.iter().rev().enumerate();
        let last = self.decoder_ch_mult.len() - 1;
        let lowest = self.ch * self.decoder_ch_mult[last];
        list.conv("decoder.conv_in", z, lowest, 3);
        let mut width = lowest;
        for (i, mult) in levels {
            let block = format!("decoder.conv_blocks.{i}");
            list.level(&block, &mut width, self.ch * mult, self.num_res_blocks + 1, i == 0);
            if i != last {
                list.conv(&format!("{block}.upsample.conv"), width, width, 3);
            }
        }
        list.middle_and_end("decoder", lowest, width, 3);
        list.0
    }
}

/// Tensors, module by module.
#[derive(Default)]
struct List(Vec<TensorSpec>);

impl List {
    fn conv(&mut self, name: &str, input: usize, output: usize, kernel: usize) {
        self.0.push(TensorSpec::new(format!("{name}.weight"), &[output, input, kernel, kernel]));
        self.0.push(TensorSpec::new(format!("{name}.bias"), &[output]));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.0.push(TensorSpec::new(format!("{name}.weight"), &[width]));
        self.0.push(TensorSpec::new(format!("{name}.bias"), &[width]));
    }

    fn res(&mut self, name: &str, input: usize, output: usize) {
        self.norm(&format!("{name}.norm1"), input);
        self.conv(&format!("{name}.conv1"), input, output, 3);
        self.norm(&format!("{name}.norm2"), output);
        self.conv(&format!("{name}.conv2"), output, output, 3);
        if input != output {
            self.conv(&format!("{name}.nin_shortcut"), input, output, 1);
        }
    }

    fn attention(&mut self, name: &str, width: usize) {
        self.norm(&format!("{name}.norm"), width);
        for part in ["q", "k", "v", "proj_out"] {
            self.conv(&format!("{name}.{part}"), width, width, 1);
        }
    }

    /// One level: `blocks` residual blocks that take `width` to `output`, each with attention or none has.
    fn level(&mut self, name: &str, width: &mut usize, output: usize, blocks: usize, attention: bool) {
        for i in 0..blocks {
            self.res(&format!("{name}.res.{i}"), *width, output);
            *width = output;
            if attention {
                self.attention(&format!("{name}.attn.{i}"), output);
            }
        }
    }

    /// `mid` at the lowest resolution, and what follows the last level.
    fn middle_and_end(&mut self, name: &str, mid: usize, width: usize, output: usize) {
        self.res(&format!("{name}.mid.0"), mid, mid);
        self.attention(&format!("{name}.mid.1"), mid);
        self.res(&format!("{name}.mid.2"), mid, mid);
        self.norm(&format!("{name}.norm_out"), width);
        self.conv(&format!("{name}.conv_out"), width, output, 3);
    }
}

/// A level's width and the tensor that tells it.
struct Level {
    tensor: String,
    width: usize,
}

impl Level {
    /// The width in units of `ch`.
    fn times(self, checkpoint: &Checkpoint, ch: usize) -> Result<usize> {
        if self.width.is_multiple_of(ch) {
            return Ok(self.width / ch);
        }
        Err(wrong(checkpoint, &self.tensor, format!("a multiple of ch {ch} output channels"), self.width.to_string()))
    }
}

/// The levels of the encoder or decoder, in the order of their `conv_blocks`.
fn widths(checkpoint: &Checkpoint, part: &str) -> Result<Vec<Level>> {
    let prefix = format!("{part}.conv_blocks.");
    let levels = count(checkpoint, &prefix);
    if levels > MAX_LEVELS {
        return Err(wrong(checkpoint, &prefix, format!("at most {MAX_LEVELS} levels"), levels.to_string()));
    }
    (0..levels.max(1))
        .map(|i| {
            let tensor = format!("{prefix}{i}.res.0.conv1.weight");
            let [width, ..] = shape::<4>(checkpoint, ModelKind::Vq, &tensor, "[width, width before it, 3, 3]")?;
            if !width.is_multiple_of(GROUPS) {
                return Err(wrong(
                    checkpoint,
                    &tensor,
                    format!("a multiple of {GROUPS} output channels, one GroupNorm group each"),
                    width.to_string(),
                ));
            }
            Ok(Level { tensor, width })
        })
        .collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
