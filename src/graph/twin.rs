//! The slow, plain twin of every executor: each op in f64, 10 to 20 lines, never optimised.
//!
//! Tests run the same graph here and on a backend and compare every buffer by name.

use super::{BufferId, Draw, Elem, Extent, Graph, PhaseId, Row, WeightId};

/// A graph's buffers and weights in f64.
pub struct Twin<'g> {
    pub graph: &'g Graph,
    /// By [`BufferId`]; empty for the two tables.
    pub buffers: Vec<Vec<f64>>,
    /// By [`WeightId`].
    pub weights: Vec<Vec<f64>>,
    pub rows: Vec<Row>,
    pub draws: Vec<Draw>,
}

impl<'g> Twin<'g> {
    /// All buffers zero; `weights` by [`WeightId`], in the graph's shapes.
    pub fn new(graph: &'g Graph, weights: Vec<Vec<f64>>) -> Self {
        for (weight, values) in graph.weights().iter().zip(&weights) {
            assert_eq!(weight.shape.iter().product::<usize>(), values.len(), "weight `{}`", weight.name);
        }
        let buffers = graph
            .buffer_ids()
            .map(|id| match graph.at(id).elem {
                Elem::Row | Elem::Draw => Vec::new(),
                _ => vec![0.0; graph.len_of(id)],
            })
            .collect();
        let rows = vec![Row::default(); graph.max().rows];
        let draws = vec![Draw::default(); graph.max().draws];
        Self { graph, buffers, weights, rows, draws }
    }

    /// Runs a phase.
    pub fn run(&mut self, phase: PhaseId, extent: Extent) {
        for node in self.graph.nodes(phase) {
            node.op.twin(self, extent);
        }
    }

    /// Row `r` of a buffer whose rows are `width` wide.
    pub fn row(&self, id: BufferId, r: usize, width: usize) -> &[f64] {
        &self.buffers[id.index()][r * width..(r + 1) * width]
    }

    /// Row `r` of a buffer whose rows are `width` wide, to write.
    pub fn row_mut(&mut self, id: BufferId, r: usize, width: usize) -> &mut [f64] {
        &mut self.buffers[id.index()][r * width..(r + 1) * width]
    }

    /// `y[n] = Σ_k weight[n, k] * x[k]`.
    pub fn product(&self, weight: WeightId, x: &[f64]) -> Vec<f64> {
        self.weights[weight.index()]
            .chunks_exact(x.len())
            .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    }

    /// `y[c] = x[c] / sqrt(mean of x^2 + eps) * weight[c]`.
    pub fn rms_norm(&self, weight: WeightId, x: &[f64], eps: f32) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let rstd = 1.0 / (mean + f64::from(eps)).sqrt();
        x.iter().zip(&self.weights[weight.index()]).map(|(x, w)| x * rstd * w).collect()
    }
}

/// GELU by its tanh form, of which T5's and LlamaGen's models are made.
pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}
