//! The VQ model at work: codes to pictures and pictures to codes.

use std::sync::Arc;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::VqConfig;
use crate::graph::{Cost, Elem, Extent, Graph, Load};
use crate::image::Rgb8;
use crate::models::{Held, Pixels, VqDecoder, VqEncoder};
use crate::{Error, Result};

/// One image at a time on the CPU is as fast as several and takes less memory.
const IMAGES: Extent = Extent { rows: 1, draws: 0 };

/// What to do when a picture's plan does not fit.
const SMALLER: &str = "use smaller pictures";

/// Errors when the device does not hold a graph, before anything is allocated.
pub(super) fn check_memory(executor: &dyn Executor, graph: &Graph, hint: &str) -> Result<()> {
    let (needed_bytes, free_bytes) = (graph.bytes() as u64, executor.free_memory());
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    let what = format!("the plan {}", graph.name());
    Err(Error::OutOfMemory { what, needed_bytes, free_bytes, hint: hint.into() })
}

/// A VQ decoder laid out for pictures of one size.
pub struct Painter {
    plan: Box<dyn Plan>,
    decoder: VqDecoder,
    codebook_size: usize,
}

impl Painter {
    /// For pictures of `latent` (down, across) codes, in the executor's own precision. Errors when weights are
    /// missing or sizes do not fit.
    pub fn new(
        executor: &dyn Executor,
        checkpoint: &Checkpoint,
        config: &VqConfig,
        latent: (usize, usize),
    ) -> Result<Self> {
        Self::of_precision(executor, checkpoint, config, latent, executor.activations())
    }

    /// The same with convolutions that multiply in `precision`, which the executor has.
    pub fn of_precision(
        executor: &dyn Executor,
        checkpoint: &Checkpoint,
        config: &VqConfig,
        latent: (usize, usize),
        precision: Elem,
    ) -> Result<Self> {
        let held = Held { weights: precision, activations: executor.activations() };
        let decoder = VqDecoder::build(config, latent, IMAGES.rows, Pixels::U8, held)?;
        check_memory(executor, &decoder.graph, SMALLER)?;
        let plan = executor.plan(Arc::new(decoder.graph.clone()), checkpoint)?;
        Ok(Self { plan, decoder, codebook_size: config.codebook_size })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.decoder.graph
    }

    /// Bytes and FLOPs of painting one picture.
    pub fn cost(&self, load: &Load) -> Cost {
        self.decoder.graph.cost(self.decoder.decode, load)
    }

    /// Paints one picture from its codes, in raster order. Errors when there are not as many as the picture
    /// has, or when one is not in the codebook.
    pub fn paint(&mut self, codes: &[u32]) -> Result<Rgb8> {
        let (height, width) = self.decoder.image_size;
        let expected = self.decoder.graph.len_of(self.decoder.codes);
        let wrong = |what: &str, expected: String, found: String| {
            Err(Error::Mismatch { what: what.into(), expected, found, hint: String::new() })
        };
        if codes.len() != expected {
            return wrong("codes of a picture", expected.to_string(), codes.len().to_string());
        }
        if let Some(code) = codes.iter().find(|&&code| code as usize >= self.codebook_size) {
            return wrong("code", format!("0 to {}", self.codebook_size - 1), code.to_string());
        }
        self.plan.write(self.decoder.codes, 0, codes)?;
        self.plan.run(self.decoder.decode, IMAGES)?;
        let mut pixels = vec![0u8; height * width * 3];
        self.plan.read(self.decoder.image, 0, &mut pixels)?;
        Rgb8::new(width, height, pixels)
    }
}

/// A VQ encoder laid out for pictures of one size.
pub struct Tokenizer {
    plan: Box<dyn Plan>,
    encoder: VqEncoder,
    image_size: (usize, usize),
}

impl Tokenizer {
    /// For pictures of `image_size` (height, width). Errors when the checkpoint has no encoder or the
    /// down-sampling does not divide the size.
    pub fn new(
        executor: &dyn Executor,
        checkpoint: &Checkpoint,
        config: &VqConfig,
        image_size: (usize, usize),
    ) -> Result<Self> {
        let encoder = VqEncoder::build(config, image_size, IMAGES.rows, Pixels::U8, executor.activations())?;
        check_memory(executor, &encoder.graph, SMALLER)?;
        let plan = executor.plan(Arc::new(encoder.graph.clone()), checkpoint)?;
        Ok(Self { plan, encoder, image_size })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.encoder.graph
    }

    /// Codes down and across.
    pub fn latent(&self) -> (usize, usize) {
        self.encoder.latent
    }

    /// The codes of one picture, in raster order. Errors when it has another size than the encoder.
    pub fn encode(&mut self, picture: &Rgb8) -> Result<Vec<u32>> {
        let (height, width) = self.image_size;
        if (picture.height(), picture.width()) != (height, width) {
            return Err(Error::Mismatch {
                what: "picture".into(),
                expected: format!("{width}x{height} pixels"),
                found: format!("{}x{}", picture.width(), picture.height()),
                hint: String::new(),
            });
        }
        self.plan.write(self.encoder.image, 0, picture.pixels())?;
        self.plan.run(self.encoder.encode, IMAGES)?;
        let mut codes = vec![0u32; self.encoder.latent.0 * self.encoder.latent.1];
        self.plan.read(self.encoder.codes, 0, &mut codes)?;
        Ok(codes)
    }
}
