//! Matches `graph::ops::pixels_to_input`.

use super::device::Launch;
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::ops::PixelsToInput;
use crate::graph::{Elem, Graph};

const THREADS: usize = 256;

impl Lower for PixelsToInput {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        let count = graph.max().rows * self.len;
        match u32::try_from(count) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("needs fewer than 2^32 bytes of images, found {count}")),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let kernel = match cx.elem(self.x) {
            Elem::F32 => kernels::PIXELS_TO_INPUT_F32,
            _ => kernels::PIXELS_TO_INPUT_BF16,
        };
        let count = cx.extent.rows * self.len;
        vec![
            Launch::new(kernel, [count.div_ceil(THREADS), 1, 1], THREADS)
                .arg(cx.buffer(self.x))
                .arg(cx.buffer(self.pixels))
                .size(count),
        ]
    }
}
