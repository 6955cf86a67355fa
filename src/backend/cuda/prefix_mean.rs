//! Matches `graph::ops::prefix_mean`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use super::product;
use crate::graph::{Elem, Graph, ops};

const THREADS: usize = 64;

/// A block has two per thread.
const CHANNELS: usize = 2 * THREADS;

impl Lower for ops::PrefixMean {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_buffer(graph, self.v, Elem::F32)?;
        product::check_buffer(graph, self.prefixes, Elem::F32)?;
        product::check_buffer(graph, self.out, Elem::Bf16)?;
        match self.dim.is_multiple_of(2) {
            true => Ok(()),
            false => Err(format!("needs an even width, found {}", self.dim)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let layer_bytes = self.at(0) * Elem::F32.size();
        vec![
            Launch::new(kernels::PREFIX_MEAN, [cx.extent.rows, self.dim.div_ceil(CHANNELS), 1], THREADS)
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.prefixes).offset(layer_bytes))
                .arg(cx.buffer(self.v))
                .arg(cx.buffer(self.rows))
                .size(cx.extent.rows)
                .size(self.dim)
                .size(self.n_layer * self.dim),
        ]
    }
}
