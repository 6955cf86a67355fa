//! From classes and texts to pictures: the transformer's session and the painter, laid out together.

use crate::backend::Executor;
use crate::checkpoint::Checkpoint;
use crate::config::{GptConfig, Sampling, VqConfig};
use crate::graph::Elem;
use crate::image::Rgb8;
use crate::models::{GptGraph, GptShape, Pixels, VqDecoder, latent_size};
use crate::{Error, Result};

use super::{Canvas, Conditioning, Lookahead, Painter, Progress, Request, Session};

/// The two checkpoints of a generator, and what was read off them.
#[derive(Clone)]
pub struct Model {
    pub gpt: Checkpoint,
    pub gpt_config: GptConfig,
    pub vq: Checkpoint,
    pub vq_config: VqConfig,
}

impl Model {
    /// Pairs two checkpoints. Errors when their vocabularies differ.
    pub fn new(gpt: (Checkpoint, GptConfig), vq: (Checkpoint, VqConfig)) -> Result<Self> {
        let (vocab_size, codebook_size) = (gpt.1.vocab_size, vq.1.codebook_size);
        if vocab_size != codebook_size {
            return Err(Error::Mismatch {
                what: format!("vocabulary of {} and codebook of {}", gpt.0.path().display(), vq.0.path().display()),
                expected: "the same number of codes".into(),
                found: format!("{vocab_size} and {codebook_size}"),
                hint: "use the VQ checkpoint that the GPT was trained with".into(),
            });
        }
        Ok(Self { gpt: gpt.0, gpt_config: gpt.1, vq: vq.0, vq_config: vq.1 })
    }
}

/// How a generator is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Side of the pictures in pixels.
    pub image_size: usize,
    /// What the transformer's matrices and cache are held as: [`Elem::F32`] or [`Elem::Bf16`].
    pub precision: Elem,
    /// What the VQ decoder multiplies, which the executor has; `None` for the executor's own.
    pub vq_precision: Option<Elem>,
    /// Pictures at once; `None` for as many of `images` as memory allows.
    pub batch_size: Option<usize>,
    /// Pictures that will be asked for.
    pub images: usize,
    /// Rows of each sequence in a pass.
    pub lookahead: Lookahead,
}

/// Draws pictures of one size from one model on one device.
pub struct Generator {
    session: Session,
    painter: Painter,
}

impl Generator {
    /// Lays everything out. Errors when the size does not fit the model, or memory does not hold it.
    pub fn new(executor: &dyn Executor, model: &Model, layout: &Layout) -> Result<Self> {
        let side = layout.image_size;
        let latent = latent_size(&model.vq_config, (side, side))?;
        let batch_size = batch_size(executor, model, layout, latent)?;
        let shape = shape(executor, layout, latent, batch_size, layout.lookahead);
        let mut session = Session::new(executor, &model.gpt, &model.gpt_config, &shape)?;
        session.set_lookahead(layout.lookahead)?;
        let precision = layout.vq_precision.unwrap_or(executor.activations());
        let canvas = Canvas { latent, pictures: batch_size };
        let painter = Painter::of_precision(executor, &model.vq, &model.vq_config, canvas, precision)?;
        Ok(Self { session, painter })
    }

    /// Pictures that are drawn at once.
    pub fn batch_size(&self) -> usize {
        self.session.places()
    }

    /// The two halves, for callers that schedule pictures themselves.
    pub fn parts(&mut self) -> (&mut Session, &mut Painter) {
        (&mut self.session, &mut self.painter)
    }

    /// Draws the codes of all requests; see [`super::generate`].
    pub fn codes(&mut self, requests: &[Request], progress: impl FnMut(Progress) -> bool) -> Result<Vec<Vec<u32>>> {
        super::generate(&mut self.session, requests, progress)
    }

    /// Paints one picture.
    pub fn paint(&mut self, codes: &[u32]) -> Result<Rgb8> {
        self.painter.paint(codes)
    }
}

/// Requests for `count` pictures of each condition, numbered from `first_image` on, copies innermost.
pub fn requests(conditions: &[Conditioning], count: usize, first_image: u64, sampling: Sampling) -> Vec<Request> {
    let each = conditions.iter().flat_map(|condition| std::iter::repeat_n(condition.clone(), count));
    each.zip(first_image..).map(|(condition, image)| Request { condition, image, sampling }).collect()
}

fn shape(
    executor: &dyn Executor,
    layout: &Layout,
    latent: (usize, usize),
    pictures: usize,
    lookahead: Lookahead,
) -> GptShape {
    GptShape {
        latent_size: latent.0,
        slots: 2 * pictures,
        rows: 2 * pictures * lookahead.widest(pictures),
        pictures,
        precision: layout.precision,
        activations: executor.activations(),
    }
}

/// The batch size that was asked for, or the largest that memory holds; an error when it does not hold it.
fn batch_size(executor: &dyn Executor, model: &Model, layout: &Layout, latent: (usize, usize)) -> Result<usize> {
    let tokens = latent.0 * latent.1;
    if let Lookahead::Window(window) = layout.lookahead
        && !(1..=tokens).contains(&window)
    {
        return Err(Error::Option {
            option: "lookahead",
            value: window.to_string(),
            expected: format!("auto or 1 to {tokens}, the tokens of a picture"),
            hint: String::new(),
        });
    }
    // More at once no longer raise the throughput.
    let most = if executor.runs_ahead() { 128 } else { 64 };
    let painter =
        VqDecoder::build(&model.vq_config, latent, 1, Pixels::U8, executor.activations())?.graph.bytes() as u64;
    // Bytes of the first picture, and of each further one, where a text's rows no longer hide those of the steps.
    let bytes = |lookahead| {
        let shape = |pictures| shape(executor, layout, latent, pictures, lookahead);
        let gpt = |pictures| GptGraph::new(&model.gpt_config, &shape(pictures)).graph.bytes() as u64;
        (gpt(1) + painter, gpt(most + 1) - gpt(most))
    };
    let of = |(first, further): (u64, u64), pictures: usize| {
        further.saturating_mul(pictures as u64 - 1).saturating_add(first)
    };
    let free = executor.free_memory();
    let each = bytes(layout.lookahead);
    let would_fit = would_fit(free, each.0, each.1);
    let wanted = layout.batch_size.unwrap_or_else(|| layout.images.min(most).min(would_fit)).max(1);
    let needed = of(each, wanted);
    if needed > free {
        let narrow = of(bytes(Lookahead::Window(1)), wanted);
        let hint = match (layout.lookahead, would_fit) {
            (Lookahead::Window(window), _) if narrow <= free => {
                format!("--lookahead {} would fit", widest_fit(free, narrow, needed, window))
            }
            (_, 0) if layout.precision == Elem::Bf16 => "use a smaller --image-size or a smaller model".into(),
            (_, 0) => "use --precision bf16, a smaller --image-size or a smaller model".into(),
            (_, fits) => format!("--batch-size {fits} would fit"),
        };
        return Err(Error::OutOfMemory {
            what: match layout.lookahead {
                Lookahead::Window(window) if window > 1 => format!("a batch of {wanted} with a lookahead of {window}"),
                _ => format!("a batch of {wanted}"),
            },
            needed_bytes: needed,
            free_bytes: free,
            hint,
        });
    }
    Ok(wanted)
}

/// The widest window that fits, where one row takes `narrow` bytes, which fit, and `window` rows take `needed`.
fn widest_fit(free: u64, narrow: u64, needed: u64, window: usize) -> usize {
    let per_row = (needed - narrow) / (window as u64 - 1).max(1);
    1 + ((free - narrow) / per_row.max(1)) as usize
}

/// How many pictures fit where the first one takes `first` bytes and each further one `further`.
fn would_fit(free: u64, first: u64, further: u64) -> usize {
    free.checked_sub(first).map_or(0, |left| (left / further.max(1)) as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::{widest_fit, would_fit};

    #[test]
    fn the_first_picture_must_fit_before_others_count() {
        assert_eq!([would_fit(99, 100, 10), would_fit(100, 100, 10), would_fit(125, 100, 10)], [0, 1, 3]);
    }

    #[test]
    fn the_widest_window_that_fits_is_found_from_one_row_and_many() {
        // 10 bytes a row on 100.
        assert_eq!(widest_fit(165, 110, 200, 10), 6);
        assert_eq!(widest_fit(110, 110, 200, 10), 1);
    }
}
