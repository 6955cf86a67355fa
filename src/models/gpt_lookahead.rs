//! The transformer's step for windows of several rows per sequence.
//!
//! ```text
//! the step's ops up to norm_logits; sample into `drawn`; accept
//! ```

use crate::graph::ops::{Accept, Sample};
use crate::graph::{BufferId, Elem, Graph, Per, PhaseId, Role};

use super::GptShape;

/// What a session drives windows by.
#[derive(Clone, Copy, Debug)]
pub struct GptLookahead {
    /// Embeds, runs all layers, draws, and accepts what is sure.
    pub pass: PhaseId,
    /// (pictures) u32, in and out: how many codes each picture has for good
    pub sure: BufferId,
    /// (pictures, largest W) u32, in and out: how often 1, 2, … draws of a window were accepted
    pub runs: BufferId,
}

impl GptLookahead {
    /// Adds windows' buffers and phase to a transformer's graph, whose one-by-one `step` ends with `sample`.
    pub(super) fn add(g: &mut Graph, step: PhaseId, sample: Sample, shape: &GptShape) -> Self {
        let Sample { codes, rows, draws, tokens, pictures, .. } = sample;
        let (latent_size, window) = (shape.latent_size, shape.widest_window());
        let drawn = g.buffer("drawn", Elem::U32, Per::Draw, &[], Role::Scratch);
        let sure = g.buffer("sure", Elem::U32, Per::Plan, &[pictures], Role::Output);
        let runs = g.buffer("runs", Elem::U32, Per::Plan, &[pictures, window], Role::State);

        let pass = g.phase("lookahead");
        let nodes = g.nodes(step).to_vec();
        for node in &nodes[..nodes.len() - 1] {
            g.push(pass, node.name.clone(), node.op.clone());
        }
        g.push(pass, "sample", Sample { drawn: Some(drawn), ..sample });
        let accept = Accept { codes, sure, runs, rows, draws, drawn, latent_size, tokens, window, pictures };
        g.push(pass, "accept", accept);
        Self { pass, sure, runs }
    }
}
