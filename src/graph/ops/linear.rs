//! out[r, n] = activation(Σ_k weight[n, k] * input[r, k]): `cap_proj.fc1` with GELU, `cap_proj.fc2` without.

use crate::graph::twin::{self, Twin};
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// A product, and perhaps a function of it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (R, N) out, f32 or bf16
    pub out: BufferId,
    /// (R, K) f32 or bf16
    pub input: BufferId,
    /// (N, K)
    pub weight: WeightId,
    /// N
    pub width: usize,
    /// K
    pub depth: usize,
    pub activation: Activation,
}

/// What becomes of each element of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Identity,
    /// GELU by its tanh form
    GeluTanh,
}

impl Linear {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let size = |buffer: BufferId| graph.at(buffer).elem.size() as u64;
        let (rows, n, k) = (load.extent.rows as u64, self.width as u64, self.depth as u64);
        Cost {
            weight_bytes: graph.weight_at(self.weight).bytes() as u64,
            activation_bytes: rows * (n * size(self.out) + k * size(self.input)),
            flops: rows * 2 * n * k,
            ..Cost::default()
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let mut y = twin.product(self.weight, twin.row(self.input, r, self.depth));
            if self.activation == Activation::GeluTanh {
                y.iter_mut().for_each(|y| *y = twin::gelu_tanh(*y));
            }
            twin.row_mut(self.out, r, self.width).copy_from_slice(&y);
        }
    }
}
