//! Decoding pictures with a released VQ model's shapes.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::Result;
use crate::backend::Executor;
use crate::checkpoint::{self, DType, Entry};
use crate::config::VqConfig;
use crate::generate::{Canvas, Painter};
use crate::graph::{Elem, Extent, Load};

/// A VQ decoder of random weights.
pub struct VqBench {
    painter: Painter,
    /// Of each picture.
    codes: Vec<Vec<u32>>,
}

/// What a run of decodes measured; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct VqReport {
    /// Of all pictures.
    pub decode: Spread,
    pub images: usize,
    /// Pictures that the device decodes at once.
    pub together: usize,
    /// Floating-point operations of the plain convolutions; an algorithm that needs fewer looks faster.
    pub flops: u64,
}

impl VqBench {
    /// For `images` pictures of `image_size` pixels a side; convolutions multiply in `precision`, which the executor
    /// has.
    pub fn new(
        executor: &dyn Executor,
        config: &VqConfig,
        (images, image_size): (usize, usize),
        precision: Elem,
    ) -> Result<Self> {
        let side = image_size / config.downsample_size();
        let entries = Entry::all(config.tensors(), DType::F32);
        let weights = checkpoint::random("vq", &entries, BTreeMap::new(), 0);
        let canvas = Canvas { latent: (side, side), pictures: images };
        let painter = Painter::of_precision(executor, &weights, config, canvas, precision)?;
        let code = |i: usize| (i * 7919 % config.codebook_size) as u32;
        let codes = (0..images).map(|image| (image..image + side * side).map(code).collect()).collect();
        Ok(Self { painter, codes })
    }

    /// Seconds of decoding all pictures.
    pub fn run(&mut self) -> Result<f64> {
        let started = Instant::now();
        std::hint::black_box(self.painter.paint_all(&self.codes)?);
        Ok(started.elapsed().as_secs_f64())
    }

    /// `rounds` decodes after one that does not count.
    pub fn report(&mut self, rounds: usize) -> Result<VqReport> {
        self.run()?;
        let times = (0..rounds.max(1)).map(|_| self.run()).collect::<Result<_>>()?;
        let images = self.codes.len();
        let load = Load { extent: Extent { rows: images, draws: 0 }, keys: 0 };
        let (together, flops) = (self.painter.together(), self.painter.cost(&load).flops);
        Ok(VqReport { decode: Spread::of(times), images, together, flops })
    }
}
