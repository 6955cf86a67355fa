//! Matches `graph::ops::embed`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::{Elem, Graph, ops};

const THREADS: usize = 128;

impl Lower for ops::Embed {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        for table in [self.embedding_table, self.tok_embeddings] {
            let weight = graph.weight_at(table);
            if weight.elem != Elem::Bf16 {
                return Err(format!("needs `{}` in bf16, found {}", weight.name, weight.elem.name()));
            }
        }
        match self.dim.is_multiple_of(4) {
            true => Ok(()),
            false => Err(format!("needs a width divisible by 4, found {}", self.dim)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        vec![
            Launch::new(kernels::EMBED, [cx.extent.rows, 1, 1], THREADS)
                .arg(cx.buffer(self.x))
                .arg(cx.buffer(self.rows))
                .arg(cx.weight(self.embedding_table))
                .arg(cx.weight(self.tok_embeddings))
                .size(self.dim),
        ]
    }
}
