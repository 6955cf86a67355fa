//! The VQ model's sizes.

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

impl VqConfig {
    /// Pixels per code along one side: 2^(levels - 1).
    pub fn downsample_size(&self) -> usize {
        1 << (self.decoder_ch_mult.len() - 1)
    }
}
