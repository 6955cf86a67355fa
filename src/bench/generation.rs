//! Whole generations: a batch of pictures from its first row to its last pixel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{About, Floor, Latency, LatencyRecord, Meter, PeakMemory, Rates, Spread};
use crate::Result;
use crate::backend::Executor;
use crate::checkpoint::{self, DType, Entry};
use crate::config::{Condition, GptConfig, Preset, Sampling, VqConfig};
use crate::generate::{Conditioning, Generator, Layout, Lookahead, Model, Painter, Passes, Request, Session, requests};
use crate::graph::{Cost, Elem, Extent, Load};
use crate::models::{GptGraph, GptShape};

/// Tokens of each picture between two looks at what is done.
const STEPS: usize = 64;

/// How long the first token is looked out for before the device is asked what became of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A class-conditional transformer of a released size and VQ-16, both of random weights.
pub fn random_model(preset: &Preset, precision: Elem) -> Result<Model> {
    let gpt_config = GptConfig::of_preset(preset, Condition::Class { num_classes: 1000 });
    let vq_config = VqConfig::released(&[1, 1, 2, 2, 4]);
    let dtype = if precision == Elem::Bf16 { DType::BF16 } else { DType::F32 };
    let random = |name, entries: &[Entry]| checkpoint::random(name, entries, BTreeMap::new(), 0);
    Model::new(
        (random(preset.name, &Entry::all(gpt_config.tensors(), dtype)), gpt_config),
        (random("vq", &Entry::all(vq_config.tensors(), DType::F32)), vq_config),
    )
}

/// A generator and the batch of pictures that it draws again and again.
pub struct GenerationBench {
    generator: Generator,
    requests: Vec<Request>,
    /// Bytes and FLOPs of a pass with one row per sequence, the average over the picture.
    step: Cost,
    /// What the weights are held as.
    precision: Elem,
    tokens: usize,
    lookahead: Lookahead,
}

/// What one batch took, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Until every picture had its first token.
    pub first_token: f64,
    /// Until every picture had all.
    pub codes: f64,
    /// Until every picture was painted.
    pub pictures: f64,
    /// What the passes of the transformer brought.
    pub passes: Passes,
}

impl GenerationBench {
    /// Lays out what draws `layout.images` pictures at once, of these conditions in turn.
    pub fn new(
        executor: &dyn Executor,
        model: &Model,
        layout: &Layout,
        conditions: &[Conditioning],
        sampling: Sampling,
    ) -> Result<Self> {
        let images = layout.images;
        let layout = Layout { batch_size: Some(images), ..*layout };
        let mut generator = Generator::new(executor, model, &layout)?;
        let conditions: Vec<_> = conditions.iter().cycle().take(images).cloned().collect();
        let tokens = generator.parts().0.tokens();
        let step = step_cost(executor, &model.gpt_config, &layout, &sampling, tokens);
        Ok(Self {
            generator,
            requests: requests(&conditions, 1, 0, sampling),
            step,
            precision: layout.precision,
            tokens,
            lookahead: layout.lookahead,
        })
    }

    /// Tokens of a picture.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What draws, and what paints.
    pub(super) fn parts(&mut self) -> (&mut Session, &mut Painter) {
        self.generator.parts()
    }

    /// Draws and paints the batch once.
    pub fn run(&mut self) -> Result<Run> {
        let (session, painter) = self.generator.parts();
        session.clear();
        session.take_passes()?;
        let started = Instant::now();
        for (ticket, request) in self.requests.iter().enumerate() {
            assert!(session.start(ticket as u64, request)?, "the session has a place for each picture");
        }
        session.advance(1)?;
        // A device that runs ahead has drawn when the last picture's token can be seen. Where logits are no numbers
        // there is none, and of a fault tells who waits for it.
        let last = self.requests.len() as u64 - 1;
        while session.runs_ahead() && session.peek(last)?.is_empty() {
            std::hint::spin_loop();
            if started.elapsed() > PATIENCE {
                session.wait()?;
                break;
            }
        }
        let first_token = started.elapsed().as_secs_f64();
        let mut codes = Vec::with_capacity(self.requests.len());
        while codes.len() < self.requests.len() {
            session.advance(STEPS)?;
            session.finish(|finished| codes.push(finished.codes))?;
        }
        let drawn = started.elapsed().as_secs_f64();
        std::hint::black_box(painter.paint_all(&codes)?);
        let pictures = started.elapsed().as_secs_f64();
        Ok(Run { first_token, codes: drawn, pictures, passes: session.take_passes()? })
    }

    /// The same with a pass per token.
    fn run_one_by_one(&mut self) -> Result<Run> {
        self.generator.parts().0.set_lookahead(Lookahead::Window(1))?;
        let run = self.run()?;
        self.generator.parts().0.set_lookahead(self.lookahead)?;
        Ok(run)
    }

    /// `iterations` batches after `warmup` that do not count, each between two looks at the machine's rates. Where
    /// passes look ahead, each is followed by the same batch with a pass per token.
    pub fn report(
        &mut self,
        executor: &dyn Executor,
        meter: &Meter<'_>,
        peak: &PeakMemory,
        about: About,
        (warmup, iterations): (usize, usize),
    ) -> Result<LatencyRecord> {
        let looks_ahead = self.lookahead != Lookahead::Window(1);
        // At least one: it touches all memory for the first time.
        for _ in 0..warmup.max(1) {
            self.run()?;
            if looks_ahead {
                self.run_one_by_one()?;
            }
        }
        let (mut runs, mut floors): (Vec<Run>, Vec<Floor>) = (Vec::new(), Vec::new());
        let mut one_by_one = Vec::new();
        let (precision, bytes) = (self.precision, self.step.bytes());
        let rates = || -> Result<Rates> { meter.rates(precision, bytes) };
        for _ in 0..iterations.max(1) {
            let before = rates()?;
            runs.push(self.run()?);
            floors.push(before.mean(rates()?).floor(&self.step));
            if looks_ahead {
                one_by_one.push(1e3 * self.run_one_by_one()?.pictures / self.requests.len() as f64);
            }
        }
        let peak_bytes = peak.bytes(executor).map(|bytes| bytes.saturating_sub(meter.bytes()));
        let latency = Latency::of(runs.iter().map(|run| run.pictures).collect());
        let mut record = LatencyRecord::new(about, latency, self.tokens, &runs, &floors, peak_bytes);
        record.one_by_one_ms = looks_ahead.then(|| Spread::of(one_by_one));
        Ok(record)
    }
}

/// Bytes and FLOPs of a pass with one row per sequence, averaged over all of a batch: some with guidance, the others
/// without.
fn step_cost(executor: &dyn Executor, config: &GptConfig, layout: &Layout, sampling: &Sampling, tokens: usize) -> Cost {
    let images = layout.images;
    let latent_size = tokens.isqrt();
    let (slots, activations) = (2 * images, executor.activations());
    let shape =
        GptShape { latent_size, slots, rows: slots, pictures: images, precision: layout.precision, activations };
    let gpt = GptGraph::new(config, &shape);
    let guided = (0..tokens).filter(|&token| sampling.guides(token)).count();
    // Attention reads one row more at each step: on average half of the cache.
    let cost = |rows| gpt.graph.cost(gpt.step, &Load { extent: Extent { rows, draws: images }, keys: tokens / 2 + 1 });
    let (two, one) = (cost(2 * images), cost(images));
    let mix = |two: u64, one: u64| {
        ((two as u128 * guided as u128 + one as u128 * (tokens - guided) as u128) / tokens as u128) as u64
    };
    Cost {
        weight_bytes: mix(two.weight_bytes, one.weight_bytes),
        cache_bytes: mix(two.cache_bytes, one.cache_bytes),
        activation_bytes: mix(two.activation_bytes, one.activation_bytes),
        flops: mix(two.flops, one.flops),
    }
}
