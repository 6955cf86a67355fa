//! A decoding step in the middle of its pictures, where attention reads half of the cache: the average of all steps.

use std::collections::BTreeMap;

use crate::backend::Executor;
use crate::checkpoint::{self, Checkpoint, DType, Entry};
use crate::config::{Condition, GptConfig, Preset};
use crate::graph::{Draw, Elem, Extent, Load, NO_ROW, Row};
use crate::models::{GptGraph, GptShape};

/// A transformer of random weights, and what a step of it is given.
pub(super) struct HalfwayStep {
    pub gpt: GptGraph,
    pub weights: Checkpoint,
    pub load: Load,
    pub rows: Vec<Row>,
    pub draws: Vec<Draw>,
}

/// What a step draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pictures {
    pub images: usize,
    /// Whether each sequence has one to be guided away from.
    pub guidance: bool,
    /// Codes along a side.
    pub latent_size: usize,
    /// W: rows of a pass per sequence; more than 1 for guided pictures alone.
    pub window: usize,
}

impl HalfwayStep {
    pub fn new(executor: &dyn Executor, preset: &Preset, pictures: Pictures, precision: Elem) -> Self {
        let Pictures { images, guidance, latent_size, window } = pictures;
        let config = GptConfig::of_preset(preset, Condition::Class { num_classes: 1000 });
        let per_image = if guidance { 2 } else { 1 };
        let (slots, draws) = (per_image * images, window * images);
        let rows = per_image * draws;
        let activations = executor.activations();
        let shape = GptShape { latent_size, slots, rows, pictures: images, precision, activations };
        let dtype = if precision == Elem::Bf16 { DType::BF16 } else { DType::F32 };
        let position = (latent_size * latent_size / 2) as u32;
        let draw = |i: usize| Draw {
            cond_row: (per_image * i) as u32,
            uncond_row: if guidance { (per_image * i + 1) as u32 } else { NO_ROW },
            image: (i / window) as u64,
            picture: (i / window) as u32,
            token: position + (i % window) as u32,
            window: if window > 1 && i.is_multiple_of(window) { window as u32 } else { 0 },
            cfg_scale: 4.0,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 2000,
            ..Draw::default()
        };
        let row = |r: usize| {
            let (i, half) = (r / per_image, r % per_image);
            let slot = (i / window * per_image + half) as u32;
            Row { slot, position: position + (i % window) as u32, token: 7, settled: position }
        };
        Self {
            gpt: GptGraph::new(&config, &shape),
            weights: checkpoint::random(preset.name, &Entry::all(config.tensors(), dtype), BTreeMap::new(), 0),
            load: Load { extent: Extent { rows, draws }, keys: position as usize + window.div_ceil(2) },
            rows: (0..rows).map(row).collect(),
            draws: (0..draws).map(draw).collect(),
        }
    }
}
