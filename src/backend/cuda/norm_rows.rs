//! Matches `graph::ops::norm_rows`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use super::product::{self, NORM_ROWS, THREADS};
use crate::graph::{Elem, Graph, ops};

impl Lower for ops::NormRows {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.norm, Elem::F32)?;
        product::check_buffer(graph, self.x, Elem::F32)?;
        product::check_buffer(graph, self.out, Elem::F32)?;
        product::check_depth(self.dim)
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        vec![
            Launch::new(kernels::NORM_ROWS_F32, [cx.extent.rows.div_ceil(NORM_ROWS), 1, 1], THREADS)
                .shared(product::norm_bytes(self.dim))
                .arg(cx.buffer(self.out))
                .arg(cx.buffer(self.x))
                .arg(cx.weight(self.norm))
                .arg(self.eps)
                .size(cx.extent.rows)
                .size(self.dim),
        ]
    }
}
