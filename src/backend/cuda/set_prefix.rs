//! Matches `graph::ops::set_prefix`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use super::product;
use crate::graph::{Elem, Graph, ops};

const THREADS: usize = 128;

impl Lower for ops::SetPrefix {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_buffer(graph, self.k_cache, Elem::Bf16)?;
        product::check_buffer(graph, self.v_cache, Elem::Bf16)?;
        product::check_buffer(graph, self.prefixes, Elem::F32)?;
        match self.cache.head_dim.is_multiple_of(2) {
            true => Ok(()),
            false => Err(format!("needs heads of an even width, found {}", self.cache.head_dim)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        vec![
            Launch::new(kernels::SET_PREFIX, [cx.extent.rows, self.n_layer, 1], THREADS)
                .arg(cx.buffer(self.k_cache))
                .arg(cx.buffer(self.v_cache))
                .arg(cx.buffer(self.prefixes))
                .arg(cx.buffer(self.rows))
                .size(self.cache.slots)
                .size(self.cache.n_head)
                .size(self.cache.positions)
                .size(self.cache.head_dim),
        ]
    }
}
