//! x[r, c] = cls_embedding.embedding_table[token, c] at position 0, tok_embeddings[token, c] elsewhere.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, WeightId};

/// Looks up each row's vector: the label's at position 0, the code's at any other.
#[derive(Clone, Debug)]
pub struct Embed {
    /// (R, C) out, f32
    pub x: BufferId,
    /// (R) the step's rows
    pub rows: BufferId,
    /// (num_classes + 1, C)
    pub embedding_table: WeightId,
    /// (V, C)
    pub tok_embeddings: WeightId,
    /// C
    pub dim: usize,
}

impl Embed {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let elements = (load.extent.rows * self.dim) as u64;
        let elem = graph.weight_at(self.tok_embeddings).elem.size() as u64;
        Cost { activation_bytes: elements * (elem + 4), ..Cost::default() }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for r in 0..extent.rows {
            let row = twin.rows[r];
            let table = if row.position == 0 { self.embedding_table } else { self.tok_embeddings };
            let at = row.token as usize * self.dim;
            let vector = twin.weights[table.index()][at..at + self.dim].to_vec();
            twin.row_mut(self.x, r, self.dim).copy_from_slice(&vector);
        }
    }
}
