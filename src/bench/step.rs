//! One decoding step of a class-conditional transformer.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use super::halfway::{HalfwayStep, Pictures};
use crate::Result;
use crate::backend::{Executor, Plan};
use crate::config::Preset;
use crate::graph::{Cost, Draw, Elem, Extent, Row};
use crate::models::GptGraph;

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
        let pictures = Pictures { images, guidance, latent_size, window: 1 };
        let HalfwayStep { gpt, weights, load, rows, draws } = HalfwayStep::new(executor, preset, pictures, precision);
        let plan = executor.plan(Arc::new(gpt.graph.clone()), &weights)?;
        let cost = gpt.graph.cost(gpt.step, &load);
        Ok(Self { plan, gpt, extent: load.extent, rows, draws, cost })
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
