//! Matches `graph::ops::codebook_lookup`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::ops::CodebookLookup;
use crate::graph::{Elem, Graph};

const THREADS: usize = 128;

impl Lower for CodebookLookup {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        for id in [self.codebook, self.weight, self.bias] {
            let weight = graph.weight_at(id);
            if weight.elem != Elem::F32 {
                return Err(format!("needs `{}` in f32, found {}", weight.name, weight.elem.name()));
            }
        }
        Ok(())
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let kernel = match cx.elem(self.x) {
            Elem::F32 => kernels::CODEBOOK_LOOKUP_F32,
            _ => kernels::CODEBOOK_LOOKUP_BF16,
        };
        let grid = [cx.extent.rows * self.pixels, self.z_channels.div_ceil(THREADS), 1];
        vec![
            Launch::new(kernel, grid, THREADS)
                .arg(cx.buffer(self.x))
                .arg(cx.buffer(self.codes))
                .arg(cx.weight(self.codebook))
                .arg(cx.weight(self.weight))
                .arg(cx.weight(self.bias))
                .size(self.codebook_size)
                .size(self.codebook_embed_dim)
                .size(self.z_channels),
        ]
    }
}
