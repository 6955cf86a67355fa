//! Matches `graph::ops::sample`.

use super::device::{Launch, Ptr};
use super::kernels;
use super::lower::{Lower, Lowering};
use crate::graph::{Elem, Graph, ops};

const THREADS: usize = 1024;
/// Of the histograms in `kernels/sample.cu`.
const BINS_BYTES: usize = 3 * 2048 * size_of::<u32>();
/// What a block may have of shared memory, less the kernel's static arrays.
const SHARED_BYTES: usize = 226 * 1024;

fn shared_bytes(vocab_size: usize) -> usize {
    vocab_size.next_multiple_of(4) * size_of::<u32>() + BINS_BYTES
}

impl Lower for ops::Sample {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        let codes = [Some(self.codes), self.drawn].into_iter().flatten().map(|id| (id, Elem::U32));
        for (id, elem) in codes.chain([(self.logits, Elem::F32)]) {
            let buffer = graph.at(id);
            if buffer.elem != elem {
                return Err(format!("needs `{}` in {}, found {}", buffer.name, elem.name(), buffer.elem.name()));
            }
        }
        let largest = (SHARED_BYTES - BINS_BYTES) / size_of::<u32>();
        match shared_bytes(self.vocab_size) <= SHARED_BYTES {
            true => Ok(()),
            false => Err(format!("needs at most {largest} codes, found {}", self.vocab_size)),
        }
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        if cx.extent.draws == 0 {
            return Vec::new();
        }
        vec![
            Launch::new(kernels::SAMPLE, [cx.extent.draws, 1, 1], THREADS)
                .shared(shared_bytes(self.vocab_size))
                .arg(cx.buffer(self.codes))
                .arg(self.drawn.map_or(Ptr::NULL, |drawn| cx.buffer(drawn)))
                .arg(cx.buffer(self.rows))
                .arg(cx.buffer(self.draws))
                .arg(cx.buffer(self.logits))
                .size(self.vocab_size)
                .size(self.tokens),
        ]
    }
}
