//! Decoding one picture with a released VQ model's shapes.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::Result;
use crate::backend::Executor;
use crate::checkpoint::{self, DType, Entry};
use crate::config::VqConfig;
use crate::generate::Painter;
use crate::graph::{Elem, Extent, Load};

/// A VQ decoder of random weights.
pub struct VqBench {
    painter: Painter,
    codes: Vec<u32>,
}

/// What a run of decodes measured; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct VqReport {
    pub decode: Spread,
    /// Floating-point operations of the plain convolutions; an algorithm that needs fewer looks faster.
    pub flops: u64,
}

impl VqBench {
    /// For pictures of `image_size` pixels a side; convolutions multiply in `precision`, which the executor has.
    pub fn new(executor: &dyn Executor, config: &VqConfig, image_size: usize, precision: Elem) -> Result<Self> {
        let side = image_size / config.downsample_size();
        let entries = Entry::all(config.tensors(), DType::F32);
        let weights = checkpoint::random("vq", &entries, BTreeMap::new(), 0);
        let painter = Painter::of_precision(executor, &weights, config, (side, side), precision)?;
        let codes = (0..side * side).map(|i| (i * 7919 % config.codebook_size) as u32).collect();
        Ok(Self { painter, codes })
    }

    /// Seconds of one decode.
    pub fn run(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.painter.paint(&self.codes)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// `rounds` decodes after one that does not count.
    pub fn report(&mut self, rounds: usize) -> Result<VqReport> {
        self.run()?;
        let times = (0..rounds.max(1)).map(|_| self.run()).collect::<Result<_>>()?;
        let load = Load { extent: Extent { rows: 1, draws: 0 }, keys: 0 };
        Ok(VqReport { decode: Spread::of(times), flops: self.painter.cost(&load).flops })
    }
}
