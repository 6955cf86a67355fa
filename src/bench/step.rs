//! One decoding step of a class-conditional transformer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::Result;
use crate::backend::{Executor, Plan};
use crate::checkpoint::{self, DType, Entry};
use crate::config::{Condition, GptConfig, Preset};
use crate::graph::{Cost, Draw, Elem, Extent, Load, NO_ROW, Row};
use crate::models::{GptGraph, GptShape};

/// A transformer of random weights, laid out and halfway through its pictures.
pub struct StepBench {
    plan: Box<dyn Plan>,
    gpt: GptGraph,
    extent: Extent,
    rows: Vec<Row>,
    draws: Vec<Draw>,
    cost: Cost,
}

/// What a run of rounds measured. Times in seconds, bandwidth in bytes per second.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    pub rows: usize,
    pub step: Spread,
    pub bandwidth: Spread,
    /// Bytes that a step moves: weights once, the cache rows it reads and writes, activations.
    pub bytes: u64,
    pub flops: u64,
    /// Per round: time of a step, divided by its bytes over that round's bandwidth.
    pub times_floor: Spread,
}

impl StepBench {
    /// `images` pictures of `latent_size` codes a side, two rows each with `guidance`.
    pub fn new(
        executor: &dyn Executor,
        preset: &Preset,
        latent_size: usize,
        images: usize,
        guidance: bool,
        precision: Elem,
    ) -> Result<Self> {
        let config = GptConfig::of_preset(preset, Condition::Class { num_classes: 1000 });
        let per_image = if guidance { 2 } else { 1 };
        let rows = per_image * images;
        let activations = executor.activations();
        let shape = GptShape { latent_size, slots: rows, rows, pictures: images, precision, activations };
        let gpt = GptGraph::new(&config, &shape);
        let dtype = if precision == Elem::Bf16 { DType::BF16 } else { DType::F32 };
        let weights = checkpoint::random(preset.name, &Entry::all(config.tensors(), dtype), BTreeMap::new(), 0);
        let plan = executor.plan(Arc::new(gpt.graph.clone()), &weights)?;
        // Halfway through the picture attention reads half of the cache: the average of all steps.
        let position = (latent_size * latent_size / 2) as u32;
        let row = |r| Row { slot: r as u32, position, token: 7, reserved: 0 };
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
        let extent = Extent { rows, draws: images };
        let cost = gpt.graph.cost(gpt.step, &Load { extent, keys: position as usize + 1 });
        let (rows, draws) = ((0..rows).map(row).collect(), (0..images).map(draw).collect());
        Ok(Self { plan, gpt, extent, rows, draws, cost })
    }

    /// Seconds per step, of `steps` steps from the middle of the picture on.
    pub fn run(&mut self, steps: usize) -> Result<f64> {
        self.plan.write(self.gpt.rows, 0, &self.rows)?;
        self.plan.write(self.gpt.draws, 0, &self.draws)?;
        let started = Instant::now();
        self.plan.replay(self.gpt.step, self.extent, steps)?;
        self.plan.wait()?;
        Ok(started.elapsed().as_secs_f64() / steps as f64)
    }

    /// Rounds of bandwidth, in bytes per second, and `steps` steps in turn, after one round that does not count.
    pub fn report(
        &mut self,
        mut bandwidth: impl FnMut() -> Result<f64>,
        rounds: usize,
        steps: usize,
    ) -> Result<StepReport> {
        self.run(steps)?;
        let (mut times, mut bandwidths, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            let before = bandwidth()?;
            let time = self.run(steps)?;
            let bytes_per_second = (before + bandwidth()?) / 2.0;
            ratios.push(time * bytes_per_second / self.cost.bytes() as f64);
            times.push(time);
            bandwidths.push(bytes_per_second);
        }
        Ok(StepReport {
            rows: self.extent.rows,
            step: Spread::of(times),
            bandwidth: Spread::of(bandwidths),
            bytes: self.cost.bytes(),
            flops: self.cost.flops,
            times_floor: Spread::of(ratios),
        })
    }
}
