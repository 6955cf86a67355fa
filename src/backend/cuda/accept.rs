//! Matches `graph::ops::accept`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use super::product;
use crate::graph::{Elem, Graph, ops};

const THREADS: usize = 32;

impl Lower for ops::Accept {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        [self.codes, self.sure, self.runs, self.drawn]
            .into_iter()
            .try_for_each(|id| product::check_buffer(graph, id, Elem::U32))
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        if cx.extent.draws == 0 {
            return Vec::new();
        }
        vec![
            Launch::new(kernels::ACCEPT, [cx.extent.draws, 1, 1], THREADS)
                .arg(cx.buffer(self.codes))
                .arg(cx.buffer(self.sure))
                .arg(cx.buffer(self.runs))
                .arg(cx.buffer(self.rows))
                .arg(cx.buffer(self.draws))
                .arg(cx.buffer(self.drawn))
                .size(self.latent_size)
                .size(self.tokens)
                .size(self.window),
        ]
    }
}
