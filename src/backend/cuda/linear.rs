//! Matches `graph::ops::linear`.

use super::device::Launch;
use super::kernels;
use super::lower::{Arrangement, Lower, Lowering};
use super::product::{self, Product, Shape};
use crate::graph::ops::{self, Activation};
use crate::graph::{Elem, Graph, WeightId};

/// What becomes of the sums: `kernels/linear.cu`.
const GELU_TANH: usize = 1;
const OUT_IS_BF16: usize = 2;

const SHAPES: [Shape; 8] = product::shapes(
    16,
    8,
    [
        kernels::LINEAR_THIN_8,
        kernels::LINEAR_THIN_16,
        kernels::LINEAR_THIN_32,
        kernels::LINEAR_WIDE_64X32,
        kernels::LINEAR_WIDE_64X64,
        kernels::LINEAR_WIDE_64X128,
        kernels::LINEAR_WIDE_128X128,
        kernels::LINEAR_WIDE_160X128,
    ],
);

impl Lower for ops::Linear {
    fn check(&self, graph: &Graph) -> Result<(), String> {
        product::check_weight(graph, self.weight, Elem::Bf16)?;
        product::check_buffer(graph, self.input, Elem::Bf16)?;
        match graph.at(self.out).elem {
            Elem::F32 | Elem::Bf16 => {}
            other => {
                let name = &graph.at(self.out).name;
                return Err(format!("needs `{name}` in f32 or bf16, found {}", other.name()));
            }
        }
        product::check_depth(self.depth)
    }

    fn arrangements(&self, _graph: &Graph) -> Vec<(WeightId, Arrangement)> {
        vec![product::fragments_of(self.weight, self.width, self.depth)]
    }

    fn launches(&self, cx: &Lowering<'_>) -> Vec<Launch> {
        let product =
            Product { rows: cx.extent.rows, width: self.width, depth: self.depth, matrices: 1, normed: false };
        let activation = match self.activation {
            Activation::Identity => 0,
            Activation::GeluTanh => GELU_TANH,
        };
        let elem = if cx.elem(self.out) == Elem::Bf16 { OUT_IS_BF16 } else { 0 };
        let launch = product
            .launch(product.choose(&SHAPES, cx.capacity), cx.capacity)
            .arg(cx.buffer(self.out))
            .arg(cx.buffer(self.input))
            .arg(cx.weight(self.weight))
            .size(cx.extent.rows)
            .size(self.width)
            .size(self.depth)
            .size(activation | elem);
        vec![launch]
    }
}
