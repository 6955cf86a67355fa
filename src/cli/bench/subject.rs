//! What whole generations are measured on: a model, how it is laid out, and where.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;

use super::{check_range, latent_size, preset};
use crate::Result;
use crate::backend::Executor;
use crate::bench::{About, Meter, PeakMemory, random_model};
use crate::cli::device::{DeviceArgs, PainterArgs, Precision};
use crate::cli::model::open;
use crate::cli::progress::Display;
use crate::cli::{check_image_size, parse_lookahead, wrong_option};
use crate::config::{Condition, GenerationOptions, Preset, Sampling, default_image_size};
use crate::demo::{self, Half};
use crate::engine::ModelFiles;
use crate::generate::{Conditioning, Layout, Lookahead, Model, TextFeatures};
use crate::graph::Elem;

#[derive(ClapArgs, Debug)]
pub struct SubjectArgs {
    /// Random weights of a released size, made in memory: B, L, XL, XXL, XXXL, 1B, 3B or 7B, with VQ-16
    #[arg(long, default_value = "B", value_name = "SIZE", conflicts_with_all = ["gpt_ckpt", "demo"])]
    size: String,
    /// The half of the demo model that takes classes, or the one that takes prompts; alone, classes
    #[arg(
        long,
        value_enum,
        value_name = "HALF",
        num_args = 0..=1,
        default_missing_value = "classes",
        conflicts_with = "gpt_ckpt"
    )]
    demo: Option<Half>,
    /// A GPT checkpoint instead; a text model's texts are 20 tokens of no meaning
    #[arg(long, value_name = "FILE", requires = "vq_ckpt")]
    gpt_ckpt: Option<PathBuf>,
    /// The VQ checkpoint that goes with it
    #[arg(long, value_name = "FILE", requires = "gpt_ckpt")]
    vq_ckpt: Option<PathBuf>,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N", requires = "gpt_ckpt", allow_negative_numbers = true)]
    n_head: Option<usize>,
    /// Side of the pictures in pixels: by default what the checkpoint tells, or 256 of random weights
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// Pictures at once; several numbers with commas are measured in turn
    #[arg(long, default_value = "1", value_delimiter = ',', value_name = "N,...", allow_negative_numbers = true)]
    pub batch_size: Vec<usize>,
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    painter: PainterArgs,
    /// Rows of a pass per sequence, auto or 1 and more; guesses at random weights say nothing of a trained model's
    #[arg(long, default_value = "1", value_name = "W", allow_negative_numbers = true)]
    lookahead: String,
    #[command(flatten)]
    options: GenerationOptions,
    #[command(flatten)]
    device: DeviceArgs,
    /// One line of JSON per batch size, with vLLM's key names, instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A model on a device.
pub struct Subject {
    pub executor: Box<dyn Executor>,
    pub model: Model,
    pub sampling: Sampling,
    /// What pictures are drawn of, in turn.
    pub conditions: Vec<Conditioning>,
    name: String,
    image_size: usize,
    precision: Elem,
    vq_precision: Elem,
    lookahead: Lookahead,
    threads: usize,
}

/// Side of the pictures of random weights.
const RANDOM_IMAGE_SIZE: usize = 256;

/// Tokens of the texts that stand for prompts.
const TEXT_TOKENS: usize = 20;

/// All classes of a class model. Of a text model one text of no meaning, or the demo's prompts.
fn conditions(executor: &dyn Executor, model: &Model, demo: bool, precision: Elem) -> Result<Vec<Conditioning>> {
    Ok(match model.gpt_config.condition {
        Condition::Class { num_classes } => (0..num_classes as u32).map(Conditioning::Class).collect(),
        Condition::Text { cls_token_num, caption_dim } if demo => {
            let mut prompter = demo::prompter(executor, (cls_token_num, caption_dim), precision)?;
            let prompts = prompter.encode(&demo::PROMPTS)?;
            prompts.into_iter().map(|prompt| Conditioning::Text(prompt.features)).collect()
        }
        Condition::Text { cls_token_num, caption_dim } => {
            let values = vec![0.1; TEXT_TOKENS.min(cls_token_num) * caption_dim];
            vec![Conditioning::Text(Arc::new(TextFeatures::new(caption_dim, values)))]
        }
    })
}

fn told_image_size(model: &Model) -> usize {
    default_image_size(&model.gpt, &model.gpt_config.condition, model.vq_config.downsample_size())
}

impl SubjectArgs {
    /// Checks everything and makes or opens the model.
    pub fn open(&self) -> Result<Subject> {
        for &batch_size in &self.batch_size {
            check_range("batch-size", batch_size, 4096)?;
        }
        let display = Display::new(false);
        let executor = self.device.executor(Some(self.precision), &display)?;
        let vq_precision = self.painter.elem(executor.as_ref())?;
        let precision = self.precision.elem();
        let (model, name, own_size) = match (&self.gpt_ckpt, &self.vq_ckpt, self.demo) {
            (Some(gpt), Some(vq), _) => {
                let name = gpt.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                let model = open(&ModelFiles { n_head: self.n_head, ..ModelFiles::new(gpt, vq) }, &display)?;
                let own_size = told_image_size(&model);
                (model, name, own_size)
            }
            (_, _, Some(half)) => {
                let (model, name) = match half {
                    Half::Classes => (demo::model(half)?, "demo-classes"),
                    Half::Prompts => (demo::model(half)?, "demo-prompts"),
                };
                let own_size = told_image_size(&model);
                (model, name.to_string(), own_size)
            }
            _ => {
                // What is wrong is told before weights are made.
                let latent_size = latent_size(self.image_size.unwrap_or(RANDOM_IMAGE_SIZE))?;
                parse_lookahead(&self.lookahead, latent_size.pow(2))?;
                let preset = preset("size", &self.size)?;
                (random_model(preset, precision)?, preset.name.to_string(), RANDOM_IMAGE_SIZE)
            }
        };
        let image_size = self.image_size.unwrap_or(own_size);
        let downsample_size = model.vq_config.downsample_size();
        check_image_size(image_size, downsample_size)?;
        let lookahead = parse_lookahead(&self.lookahead, (image_size / downsample_size).pow(2))?;
        let sampling =
            self.options.of_model(&model.gpt, &model.gpt_config.condition).validate(model.gpt_config.vocab_size)?;
        let threads = self.device.threads;
        let conditions = conditions(executor.as_ref(), &model, self.demo.is_some(), precision)?;
        Ok(Subject {
            executor,
            model,
            sampling,
            conditions,
            name,
            image_size,
            precision,
            vq_precision,
            lookahead,
            threads,
        })
    }
}

impl Subject {
    pub fn meter(&self) -> Result<Meter<'_>> {
        Meter::new(self.executor.as_ref(), self.threads)
    }

    pub fn peak(&self) -> Result<PeakMemory> {
        Ok(PeakMemory::start(self.executor.as_ref(), self.executor.copy_bandwidth()?.is_some()))
    }

    /// For `images` pictures, `batch_size` at once.
    pub fn layout(&self, batch_size: usize, images: usize) -> Layout {
        Layout {
            image_size: self.image_size,
            precision: self.precision,
            vq_precision: Some(self.vq_precision),
            batch_size: Some(batch_size),
            images,
            lookahead: self.lookahead,
        }
    }

    pub fn about(&self, batch_size: usize) -> About {
        let guided = self.sampling.guides(0);
        About {
            engine: format!("smalti {}", env!("CARGO_PKG_VERSION")),
            commit: env!("SMALTI_COMMIT").into(),
            model: self.name.clone(),
            device: self.executor.describe(),
            dtype: self.precision.name(),
            vq_dtype: self.vq_precision.name(),
            image_size: self.image_size,
            batch_size,
            cfg_scale: self.sampling.cfg_scale.unwrap_or(1.0),
            cfg_rows: if guided { 2 * batch_size } else { batch_size },
            top_k: self.sampling.top_k,
            lookahead: self.lookahead,
        }
    }

    /// A line for people.
    pub fn title(&self) -> String {
        let about = self.about(1);
        let model = Preset::named(&about.model).map_or(about.model, |preset| format!("GPT-{}", preset.name));
        let guidance = match self.sampling.cfg_scale {
            Some(scale) => format!("guidance {scale}"),
            None => "no guidance".into(),
        };
        format!(
            "{} {}, VQ in {}, {} px, {guidance}, lookahead {}, {}",
            model, about.dtype, about.vq_dtype, about.image_size, about.lookahead, about.device
        )
    }
}

/// Errors when more pictures than one batch were asked for at a smaller number.
pub fn check_images(images: usize, largest_batch: usize) -> Result<()> {
    if images >= largest_batch {
        return Ok(());
    }
    Err(wrong_option("num-images", images, format!("at least {largest_batch}, the largest batch"), ""))
}
