//! What is loaded once: checkpoints, what was read off them, and the words for classes.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::Executor;
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::{Condition, GenerationOptions, GptConfig, Labels, VqConfig, default_image_size, resolve_class};
use crate::generate::{self, Prompter};
use crate::graph::Elem;
use crate::image::MAX_SIDE;
use crate::{Error, Result, demo};

/// The files of a model, and what they do not tell.
#[derive(Clone, Debug, Default)]
pub struct ModelFiles {
    /// The transformer: .pt, .safetensors, or a folder with model.safetensors and config.json.
    pub gpt: PathBuf,
    /// The VQ model that it was trained with.
    pub vq: PathBuf,
    /// A text model's encoder: a Hugging Face T5 folder. Without one a text model takes features alone.
    pub t5: Option<PathBuf>,
    /// Which weights of a transformer that has two sets.
    pub weights: WeightsChoice,
    /// Attention heads, where the checkpoint does not tell.
    pub n_head: Option<usize>,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384, for text models 512.
    pub image_size: Option<usize>,
}

impl ModelFiles {
    /// A transformer and its VQ model, all else left to what they tell.
    pub fn new(gpt: impl Into<PathBuf>, vq: impl Into<PathBuf>) -> Self {
        Self { gpt: gpt.into(), vq: vq.into(), ..Self::default() }
    }
}

/// A model: its checkpoints, opened and checked, and no device yet.
///
/// Cheap to clone and to share between threads: weights are mapped, and go to a device with the first
/// [`Session`](super::Session).
///
/// ```
/// use smalti::{Model, ModelFiles};
///
/// let mut files = ModelFiles::new("tests/golden/c2i/gpt.pt", "tests/golden/vq16/vq.pt");
/// files.image_size = Some(64);
/// let model = Model::open(&files)?;
/// assert_eq!((model.image_size(), model.num_classes()), (64, Some(10)));
/// assert_eq!(model.class("7")?, 7);
/// # Ok::<(), smalti::Error>(())
/// ```
#[derive(Clone)]
pub struct Model(Arc<Parts>);

/// Where a text model's encoder is.
#[derive(Clone, Debug)]
enum Encoder {
    /// A Hugging Face T5 folder.
    Folder(PathBuf),
    /// In the program.
    Demo,
}

struct Parts {
    name: String,
    model: generate::Model,
    encoder: Option<Encoder>,
    labels: Option<Labels>,
    image_size: usize,
    notes: Vec<String>,
}

impl Model {
    /// Opens the files. Errors when one is missing or damaged, or when they do not belong together.
    pub fn open(files: &ModelFiles) -> Result<Self> {
        let gpt = Checkpoint::open(&files.gpt, files.weights)?;
        let vq = Checkpoint::open(&files.vq, WeightsChoice::Model)?;
        Self::from_checkpoints(gpt, vq, files)
    }

    /// The half of the demo model that takes prompts; see [`crate::demo`].
    ///
    /// ```
    /// # #[cfg(feature = "demo")] {
    /// let model = smalti::Model::demo()?;
    /// assert!(model.takes_prompts() && model.num_classes().is_none());
    /// # }
    /// # Ok::<(), smalti::Error>(())
    /// ```
    pub fn demo() -> Result<Self> {
        Self::built_in(demo::model(demo::Half::Prompts)?, Some(Encoder::Demo))
    }

    /// The half of the demo model that takes classes.
    pub fn demo_classes() -> Result<Self> {
        Self::built_in(demo::model(demo::Half::Classes)?, None)
    }

    fn built_in(model: generate::Model, encoder: Option<Encoder>) -> Result<Self> {
        Self::assemble(model.gpt, model.vq, &ModelFiles::default(), encoder)
    }

    /// From checkpoints that are open, or that are no files at all; `files` tells what they do not.
    pub fn from_checkpoints(gpt: Checkpoint, vq: Checkpoint, files: &ModelFiles) -> Result<Self> {
        Self::assemble(gpt, vq, files, files.t5.clone().map(Encoder::Folder))
    }

    fn assemble(gpt: Checkpoint, vq: Checkpoint, files: &ModelFiles, encoder: Option<Encoder>) -> Result<Self> {
        let (gpt_config, guess) = GptConfig::detect(&gpt, files.n_head)?;
        let (labels, note) = Labels::detect(&gpt, &gpt_config.condition);
        let vq_config = VqConfig::detect(&vq)?;
        let name = gpt.path().file_stem().map_or_else(|| "smalti".into(), |name| name.to_string_lossy().into_owned());
        let downsample_size = vq_config.downsample_size();
        let image_size =
            files.image_size.unwrap_or_else(|| default_image_size(&gpt, &gpt_config.condition, downsample_size));
        if !(1..=MAX_SIDE).contains(&image_size) || !image_size.is_multiple_of(downsample_size) {
            return Err(Error::Option {
                option: "image-size",
                value: image_size.to_string(),
                expected: format!("a multiple of {downsample_size}, the VQ model's down-sampling, up to {MAX_SIDE}"),
                hint: String::new(),
            });
        }
        let model = generate::Model::new((gpt, gpt_config), (vq, vq_config))?;
        let notes = guess.into_iter().chain(note).collect();
        Ok(Self(Arc::new(Parts { name, model, encoder, labels, image_size, notes })))
    }

    /// The transformer's file name without its ending.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The checkpoints and their configurations.
    pub fn parts(&self) -> &generate::Model {
        &self.0.model
    }

    /// Whether prompts can be encoded: a text model's encoder came with it.
    pub fn takes_prompts(&self) -> bool {
        self.num_classes().is_none() && self.0.encoder.is_some()
    }

    /// Lays the text encoder out, where there is one.
    pub(super) fn prompter(
        &self,
        executor: &dyn Executor,
        sizes: (usize, usize),
        precision: Elem,
    ) -> Result<Option<Prompter>> {
        match &self.0.encoder {
            None => Ok(None),
            Some(Encoder::Folder(folder)) => Prompter::open(executor, folder, sizes, precision).map(Some),
            Some(Encoder::Demo) => demo::prompter(executor, sizes, precision).map(Some),
        }
    }

    /// What a transformer is conditioned on.
    pub fn condition(&self) -> &Condition {
        &self.0.model.gpt_config.condition
    }

    /// Side of the pictures in pixels.
    pub fn image_size(&self) -> usize {
        self.0.image_size
    }

    /// P: codes along a side of a picture.
    pub fn latent_size(&self) -> usize {
        self.0.image_size / self.0.model.vq_config.downsample_size()
    }

    /// How many classes a class model has; `None` for a text model.
    pub fn num_classes(&self) -> Option<usize> {
        match self.condition() {
            Condition::Class { num_classes } => Some(*num_classes),
            Condition::Text { .. } => None,
        }
    }

    /// Names of the classes, where there are any.
    pub fn labels(&self) -> Option<&Labels> {
        self.0.labels.as_ref()
    }

    /// The class that a number or a name means; see [`resolve_class`]. Errors for a text model, too.
    pub fn class(&self, text: &str) -> Result<u32> {
        let num_classes = self.num_classes().ok_or_else(|| Error::Mismatch {
            what: "condition".into(),
            expected: "a prompt: the model is text-conditional (t2i)".into(),
            found: "a class".into(),
            hint: match self.0.encoder {
                Some(Encoder::Demo) => "of the demo model, the half of --demo-classes takes classes".into(),
                _ => String::new(),
            },
        })?;
        resolve_class(self.labels(), text, num_classes)
    }

    /// The options with the model's own defaults where nothing else was asked for.
    pub fn options(&self, options: &GenerationOptions) -> GenerationOptions {
        options.of_model(&self.0.model.gpt, self.condition())
    }

    /// Lines for the user about what had to be guessed.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }
}
