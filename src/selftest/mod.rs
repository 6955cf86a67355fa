//! Every op of the models on a device against the CPU: are the kernels right on this card, and how fast?
//!
//! A [`Model`] is a graph of released widths, one layer of it where layers are alike. Each of its ops runs alone,
//! on both executors from the same values, and everything that it left is compared within a rounding model, in
//! `rules.rs`. So an op of a new model is tested as soon as the model is listed in [`models`]. The tests send
//! small models through the same checks with the kernels on the CPU.

mod compare;
mod models;
mod rules;
mod values;

use std::time::{Duration, Instant};

pub use self::compare::Comparison;
pub use self::models::{Model, Size, models};
pub use self::rules::Rule;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::graph::{Cost, Extent, Graph, Load, Node, Phase, PhaseId};
use crate::{Error, Result};

/// What became of one op of a model.
#[derive(Clone, Debug)]
pub struct Report {
    /// The op's name.
    pub op: &'static str,
    /// Where it stands in the model: `layers.0.attention.wo`.
    pub node: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// It ran; `comparison` says whether it was right.
    Ran { comparison: Comparison, seconds: f64, cost: Cost },
    /// The device has no kernel for it, and why.
    Missing(String),
    /// It did not run to its end.
    Failed(String),
}

impl Outcome {
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Ran { comparison, .. } => !comparison.is_right(),
            Self::Missing(_) => false,
            Self::Failed(_) => true,
        }
    }
}

/// Launches of an op that one replay makes for the clock: what a replay itself costs then hardly counts.
const LAUNCHES: usize = 16;

/// Replays that are timed, three times over. With the launches in each, no more than the smallest model's tokens.
const REPLAYS: usize = 8;

/// Seconds of one replay beside which those of recording do not count.
const LONG: f64 = 0.05;

/// Work before what is timed: clocks fall while a card waits.
const AT_WORK: Duration = Duration::from_millis(50);

/// Runs every op of the model that is not like one before it and whose name is `wanted`, and hands out what became of
/// each.
///
/// Errors when the model cannot be laid out, at first or again after a fault; what goes wrong with one op is in its
/// report.
pub fn check(
    model: &Model,
    wanted: impl Fn(&str) -> bool,
    reference: &dyn Executor,
    device: &dyn Executor,
    mut take: impl FnMut(Report) -> Result<()>,
) -> Result<()> {
    let expected = model.graph(reference.activations())?;
    let found = model.graph(device.activations())?;
    let weights = values::weights(&found);
    let checks: Vec<Check> = distinct(&found)
        .into_iter()
        .filter(|&node| wanted(nodes(&found)[node].op.name()))
        .map(|node| Check {
            missing: device.supports(&found, &nodes(&found)[node].op).err(),
            expected: nodes(&expected)[node].clone(),
            found: nodes(&found)[node].clone(),
        })
        .collect();
    if checks.is_empty() {
        return Ok(());
    }
    let lay_out = || Both::new(model, &checks, (reference, &expected), (device, &found), &weights);
    let mut both = lay_out()?;
    for (i, check) in checks.iter().enumerate() {
        let outcome = match &check.missing {
            Some(why) => Outcome::Missing(why.clone()),
            None => match both.run(i) {
                Ok(outcome) => outcome,
                Err(Error::Device { problem, .. }) => Outcome::Failed(problem),
                Err(other) => return Err(other),
            },
        };
        let (node, rest) = (&check.found, &checks[i + 1..]);
        let failed = matches!(outcome, Outcome::Failed(_));
        take(Report { op: node.op.name(), node: node.name.clone(), outcome })?;
        if failed && !rest.is_empty() {
            // The session went with it; the other ops get a new one.
            both = lay_out().map_err(|error| unreached(error, rest))?;
        }
    }
    Ok(())
}

/// What kept the device from going on after a fault, and which ops of the model are left.
fn unreached(error: Error, rest: &[Check]) -> Error {
    let Error::Device { device, problem, hint } = error else { return error };
    let mut names: Vec<&str> = rest.iter().map(|check| check.found.op.name()).collect();
    names.sort_unstable();
    names.dedup();
    Error::Device { device, problem: format!("{problem}; not checked: {}", names.join(", ")), hint }
}

/// One op, as it stands in both graphs.
struct Check {
    expected: Node,
    found: Node,
    /// Why the device cannot run it.
    missing: Option<String>,
}

/// All nodes of the graph.
fn nodes(graph: &Graph) -> Vec<&Node> {
    graph.phases().iter().flat_map(|phase| &phase.nodes).collect()
}

/// Numbers of the nodes that differ from all before them in more than names and buffers.
fn distinct(graph: &Graph) -> Vec<usize> {
    let load = Load { extent: graph.max(), keys: 1 };
    let kind = |node: &Node| (node.op.name(), rules::variant(&node.op), node.op.cost(graph, &load));
    let mut seen = Vec::new();
    let all = nodes(graph);
    (0..all.len())
        .filter(|&i| {
            let new = !seen.contains(&kind(all[i]));
            seen.push(kind(all[i]));
            new
        })
        .collect()
}

/// A model on both executors.
struct Both<'a> {
    model: &'a Model,
    checks: &'a [Check],
    expected: Box<dyn Plan>,
    found: Box<dyn Plan>,
    extent: Extent,
}

impl<'a> Both<'a> {
    /// Two phases per node on the device: itself alone, and many of it for the clock; one on the reference.
    fn new(
        model: &'a Model,
        checks: &'a [Check],
        (reference, expected): (&dyn Executor, &Graph),
        (device, found): (&dyn Executor, &Graph),
        weights: &Checkpoint,
    ) -> Result<Self> {
        let phase = |node: &Node, times: usize| Phase { name: node.name.clone(), nodes: vec![node.clone(); times] };
        let alone = checks.iter().map(|check| phase(&check.expected, 1)).collect();
        let twice = checks.iter().flat_map(|check| {
            let times = if check.missing.is_none() { [1, LAUNCHES] } else { [0, 0] };
            times.map(|times| phase(&check.found, times))
        });
        Ok(Self {
            model,
            checks,
            extent: found.max(),
            expected: reference.plan(expected.with_phases(alone).into(), weights)?,
            found: device.plan(found.with_phases(twice.collect()).into(), weights)?,
        })
    }

    /// Runs one node on both from the same values, compares, and takes its time on the device.
    fn run(&mut self, i: usize) -> Result<Outcome> {
        let op = &self.checks[i].found.op;
        values::fill(self.model, i as u64, self.expected.as_mut(), self.found.as_mut())?;
        let before = values::read(self.expected.as_mut())?;
        let phase = self.expected.graph().phase_id(i);
        self.expected.run(phase, self.extent)?;
        let phases = [2 * i, 2 * i + 1].map(|phase| self.found.graph().phase_id(phase));
        self.found.run(phases[0], self.extent)?;
        let (expected, found) = (values::read(self.expected.as_mut())?, values::read(self.found.as_mut())?);
        let comparison = compare::compare(&Rule::of(op), &before, &expected, &found);

        let cost = op.cost(self.found.graph(), &self.model.load());
        let seconds = self.time(phases[1])?;
        Ok(Outcome::Ran { comparison, seconds, cost })
    }

    /// Seconds per launch of a phase of [`LAUNCHES`]: the median of three times, on a card that is at work again after the
    /// time that the comparison took.
    fn time(&mut self, phase: PhaseId) -> Result<f64> {
        // The first replay goes into recording. One that takes long is time enough.
        let first = self.replay(phase, 1)?;
        if first > LONG {
            return Ok(first / LAUNCHES as f64);
        }
        let began = Instant::now();
        while began.elapsed() < AT_WORK {
            self.replay(phase, REPLAYS)?;
        }
        let mut times = [0.0; 3];
        for time in &mut times {
            *time = self.replay(phase, REPLAYS)? / (REPLAYS * LAUNCHES) as f64;
        }
        times.sort_by(f64::total_cmp);
        Ok(times[1])
    }

    /// Seconds of some replays, what the ops move on at its beginning.
    fn replay(&mut self, phase: PhaseId, times: usize) -> Result<f64> {
        values::fill_tables(self.model, self.found.as_mut())?;
        self.found.wait()?;
        let started = Instant::now();
        self.found.replay(phase, self.extent, times)?;
        self.found.wait()?;
        Ok(started.elapsed().as_secs_f64())
    }
}
