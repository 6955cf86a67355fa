//! Encoding a text with a T5.

use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::Result;
use crate::backend::Executor;
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::generate::TextEncoder;
use crate::graph::{Elem, Extent, Load};
use crate::models::T5Shape;

/// A T5 encoder and one text of given length.
pub struct TextBench {
    encoder: TextEncoder,
    text: Vec<u32>,
}

/// What a run of encodings measured; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct TextReport {
    pub tokens: usize,
    pub encode: Spread,
    /// Bytes that an encoding moves: every weight once, activations.
    pub bytes: u64,
    pub flops: u64,
}

impl TextBench {
    /// For a text of `tokens` tokens.
    pub fn new(
        executor: &dyn Executor,
        checkpoint: &Checkpoint,
        config: &T5Config,
        tokens: usize,
        precision: Elem,
    ) -> Result<Self> {
        let shape = T5Shape { rows: tokens, tokens, precision, activations: executor.activations() };
        let encoder = TextEncoder::new(executor, checkpoint, config, &shape)?;
        let text = (0..tokens).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
        Ok(Self { encoder, text })
    }

    /// Seconds of one encoding.
    pub fn run(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.encoder.encode(&[&self.text])?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// `rounds` encodings after one that does not count.
    pub fn report(&mut self, rounds: usize) -> Result<TextReport> {
        self.run()?;
        let times = (0..rounds.max(1)).map(|_| self.run()).collect::<Result<_>>()?;
        let tokens = self.text.len();
        let cost = self.encoder.cost(&Load { extent: Extent { rows: tokens, draws: 0 }, keys: tokens });
        Ok(TextReport { tokens, encode: Spread::of(times), bytes: cost.bytes(), flops: cost.flops })
    }
}
