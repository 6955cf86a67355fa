//! One decoding step of a class-conditional transformer.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::halfway::{HalfwayStep, Pictures};
use super::{Floor, Rates, Spread};
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

/// What a run of rounds measured. Times in seconds, bandwidth in bytes per second, arithmetic in operations per second.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    pub rows: usize,
    pub step: Spread,
    pub bandwidth: Spread,
    /// `None` where nothing measures it.
    pub arithmetic: Option<Spread>,
    /// Bytes that a step moves: weights once, the cache rows it reads and writes, activations.
    pub bytes: u64,
    pub flops: u64,
    /// The longer of what bytes and operations take, at each round's rates.
    pub floor: Spread,
    /// Per round: time of a step, divided by that round's floor.
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

    /// Rounds of both rates, for as many bytes as a step has, and `steps` steps in turn, after one round that does not count.
    pub fn report(
        &mut self,
        mut rates: impl FnMut(u64) -> Result<Rates>,
        rounds: usize,
        steps: usize,
    ) -> Result<StepReport> {
        self.run(steps)?;
        let mut measured = Vec::new();
        for _ in 0..rounds.max(1) {
            let before = rates(self.cost.bytes())?;
            let time = self.run(steps)?;
            measured.push((time, before.mean(rates(self.cost.bytes())?).floor(&self.cost)));
        }
        let spread = |of: fn(&(f64, Floor)) -> f64| Spread::of(measured.iter().map(of).collect());
        let arithmetic: Option<Vec<f64>> = measured.iter().map(|(_, floor)| floor.rates.arithmetic).collect();
        Ok(StepReport {
            rows: self.extent.rows,
            step: spread(|(time, _)| *time),
            bandwidth: spread(|(_, floor)| floor.rates.bandwidth),
            arithmetic: arithmetic.map(Spread::of),
            bytes: self.cost.bytes(),
            flops: self.cost.flops,
            floor: spread(|(_, floor)| floor.floor_seconds),
            times_floor: spread(|(time, floor)| time / floor.floor_seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuExecutor;

    #[test]
    fn operations_are_the_floor_where_they_take_longer() {
        let preset = Preset::named("B").expect("a preset");
        let mut bench = StepBench::new(&CpuExecutor::new(1), preset, 2, 1, true, Elem::Bf16).expect("it fits");
        let mut floor = |bandwidth, arithmetic| {
            let report = bench.report(|_| Ok(Rates { bandwidth, arithmetic }), 1, 1).expect("it runs");
            assert_eq!(report.times_floor.median, report.step.median / report.floor.median);
            (report.floor.median, report.bytes as f64, report.flops as f64)
        };
        let (found, _, flops) = floor(1e18, Some(1e9));
        assert_eq!(found, flops / 1e9);
        let (found, bytes, _) = floor(1e9, Some(1e18));
        assert_eq!(found, bytes / 1e9);
        let (found, bytes, _) = floor(1e9, None);
        assert_eq!(found, bytes / 1e9);
    }
}
