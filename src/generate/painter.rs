//! The VQ model at work: codes to pictures and pictures to codes.

use std::sync::Arc;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::VqConfig;
use crate::graph::{Cost, Elem, Extent, Graph, Load};
use crate::image::Rgb8;
use crate::models::{Held, Pixels, VqDecoder, VqEncoder};
use crate::{Error, Result};

/// Pictures that a GPU paints at once: the small maps of one do not fill it. One at a time on the CPU is as fast as
/// several and takes less memory.
const TOGETHER: usize = 8;

/// A painter's part of the memory that is free, beyond which it paints fewer pictures at once.
const SHARE: u64 = 4;

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

/// Which pictures a painter paints.
#[derive(Clone, Copy, Debug)]
pub struct Canvas {
    /// Codes down and across.
    pub latent: (usize, usize),
    /// As many as may be there to be painted; a device paints some of them at once.
    pub pictures: usize,
}

impl Painter {
    /// For pictures of a kind, in the executor's own precision. Errors when weights are missing or sizes do not fit.
    pub fn new(executor: &dyn Executor, checkpoint: &Checkpoint, config: &VqConfig, canvas: Canvas) -> Result<Self> {
        Self::of_precision(executor, checkpoint, config, canvas, executor.activations())
    }

    /// The same with convolutions that multiply in `precision`, which the executor has.
    pub fn of_precision(
        executor: &dyn Executor,
        checkpoint: &Checkpoint,
        config: &VqConfig,
        canvas: Canvas,
        precision: Elem,
    ) -> Result<Self> {
        let held = Held { weights: precision, activations: executor.activations() };
        let build = |pictures| VqDecoder::build(config, canvas.latent, pictures, Pixels::U8, held);
        let mut pictures = if executor.runs_ahead() { canvas.pictures.clamp(1, TOGETHER) } else { 1 };
        let mut decoder = build(pictures)?;
        while pictures > 1 && decoder.graph.bytes() as u64 > executor.free_memory() / SHARE {
            pictures /= 2;
            decoder = build(pictures)?;
        }
        check_memory(executor, &decoder.graph, SMALLER)?;
        let plan = executor.plan(Arc::new(decoder.graph.clone()), checkpoint)?;
        Ok(Self { plan, decoder, codebook_size: config.codebook_size })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.decoder.graph
    }

    /// Bytes and FLOPs of painting as many pictures as `load` has rows.
    pub fn cost(&self, load: &Load) -> Cost {
        self.decoder.graph.cost(self.decoder.decode, load)
    }

    /// Pictures that are painted at once.
    pub fn together(&self) -> usize {
        self.decoder.graph.max().rows
    }

    /// Paints one picture from its codes, in raster order. Errors when there are not as many as the picture
    /// has, or when one is not in the codebook.
    pub fn paint(&mut self, codes: &[u32]) -> Result<Rgb8> {
        Ok(self.paint_all(&[codes])?.remove(0))
    }

    /// Paints pictures as [`Painter::paint`] does, [`Painter::together`] at a time; none of them depends on the others.
    pub fn paint_all(&mut self, pictures: &[impl AsRef<[u32]>]) -> Result<Vec<Rgb8>> {
        for codes in pictures {
            self.check(codes.as_ref())?;
        }
        let (height, width) = self.decoder.image_size;
        let (tokens, bytes) = (self.tokens(), height * width * 3);
        let mut painted = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(self.together()) {
            for (i, codes) in some.iter().enumerate() {
                self.plan.write(self.decoder.codes, i * tokens, codes.as_ref())?;
            }
            self.plan.run(self.decoder.decode, Extent { rows: some.len(), draws: 0 })?;
            for i in 0..some.len() {
                let mut pixels = vec![0u8; bytes];
                self.plan.read(self.decoder.image, i * bytes, &mut pixels)?;
                painted.push(Rgb8::new(width, height, pixels)?);
            }
        }
        Ok(painted)
    }

    /// Codes of a picture.
    fn tokens(&self) -> usize {
        self.decoder.graph.len_of(self.decoder.codes) / self.together()
    }

    fn check(&self, codes: &[u32]) -> Result<()> {
        let expected = self.tokens();
        let wrong = |what: &str, expected: String, found: String| {
            Err(Error::Mismatch { what: what.into(), expected, found, hint: String::new() })
        };
        if codes.len() != expected {
            return wrong("codes of a picture", expected.to_string(), codes.len().to_string());
        }
        match codes.iter().find(|&&code| code as usize >= self.codebook_size) {
            Some(code) => wrong("code", format!("0 to {}", self.codebook_size - 1), code.to_string()),
            None => Ok(()),
        }
    }
}

/// A run of one picture.
const ONE: Extent = Extent { rows: 1, draws: 0 };

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
        let encoder = VqEncoder::build(config, image_size, ONE.rows, Pixels::U8, executor.activations())?;
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
        self.plan.run(self.encoder.encode, ONE)?;
        let mut codes = vec![0u32; self.encoder.latent.0 * self.encoder.latent.1];
        self.plan.read(self.encoder.codes, 0, &mut codes)?;
        Ok(codes)
    }
}
