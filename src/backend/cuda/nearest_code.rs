//! Matches `graph::ops::nearest_code`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::ops::NearestCode;
use crate::graph::{Elem, Graph};

const THREADS: usize = 256;

/// Pixels of a block.
const PIXELS: usize = 8;

/// The longest vectors that a block has room for.
const MAX_EMBED_DIM: usize = 64;

impl Lower for NearestCode {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        let (z, codebook) = (graph.at(self.z).elem, graph.weight_at(self.codebook).elem);
        if z != Elem::F32 || codebook != Elem::F32 {
            return Err(format!("needs vectors and codebook in f32, found {} and {}", z.name(), codebook.name()));
        }
        match self.codebook_embed_dim <= MAX_EMBED_DIM {
            true => Ok(()),
            false => Err(format!("needs vectors of at most {MAX_EMBED_DIM}, found {}", self.codebook_embed_dim)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let pixels = cx.extent.rows * self.pixels;
        vec![
            Launch::new(kernels::NEAREST_CODE, [pixels.div_ceil(PIXELS), 1, 1], THREADS)
                .arg(cx.buffer(self.codes))
                .arg(cx.buffer(self.z))
                .arg(cx.weight(self.codebook))
                .size(pixels)
                .size(self.codebook_size)
                .size(self.codebook_embed_dim),
        ]
    }
}
