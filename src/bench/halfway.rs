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

impl HalfwayStep {
    /// `images` pictures of `latent_size` codes a side, two rows each with `guidance`.
    pub fn new(
        executor: &dyn Executor,
        preset: &Preset,
        latent_size: usize,
        images: usize,
        guidance: bool,
        precision: Elem,
    ) -> Self {
        let config = GptConfig::of_preset(preset, Condition::Class { num_classes: 1000 });
        let per_image = if guidance { 2 } else { 1 };
        let rows = per_image * images;
        let activations = executor.activations();
        let shape = GptShape { latent_size, slots: rows, rows, pictures: images, precision, activations };
        let dtype = if precision == Elem::Bf16 { DType::BF16 } else { DType::F32 };
        let position = (latent_size * latent_size / 2) as u32;
        let draw = |image: usize| Draw {
            cond_row: (per_image * image) as u32,
            uncond_row: if guidance { (per_image * image + 1) as u32 } else { NO_ROW },
            image: image as u64,
            picture: image as u32,
            token: position,
            cfg_scale: 4.0,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 2000,
            ..Draw::default()
        };
        Self {
            gpt: GptGraph::new(&config, &shape),
            weights: checkpoint::random(preset.name, &Entry::all(config.tensors(), dtype), BTreeMap::new(), 0),
            load: Load { extent: Extent { rows, draws: images }, keys: position as usize + 1 },
            rows: (0..rows).map(|r| Row { slot: r as u32, position, token: 7, reserved: 0 }).collect(),
            draws: (0..images).map(draw).collect(),
        }
    }
}
