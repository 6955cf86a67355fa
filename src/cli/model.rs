//! The checkpoints that pictures are drawn with; the demo model where none are named.

use std::path::PathBuf;

use clap::Args;

use super::progress::Display;
use crate::Result;
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::{GptConfig, VqConfig};
use crate::demo::{self, Half};
use crate::engine::ModelFiles;
use crate::generate::Model;

/// Flags for the transformer and the tokenizer.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// GPT checkpoint: .pt, .safetensors, or a folder with model.safetensors and config.json; by default the demo
    /// model that is built in
    #[arg(long, value_name = "FILE", env = "SMALTI_GPT_CKPT", requires = "vq_ckpt")]
    gpt_ckpt: Option<PathBuf>,
    /// VQ checkpoint: .pt, .safetensors, or a folder with model.safetensors
    #[arg(long, value_name = "FILE", env = "SMALTI_VQ_CKPT", requires = "gpt_ckpt")]
    vq_ckpt: Option<PathBuf>,
    /// Which weights of a GPT checkpoint that has two sets
    #[arg(long, value_enum, default_value_t, requires = "gpt_ckpt")]
    weights: WeightsChoice,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N", requires = "gpt_ckpt", allow_negative_numbers = true)]
    n_head: Option<usize>,
}

impl ModelArgs {
    /// Whether no checkpoints are named.
    pub fn is_demo(&self) -> bool {
        self.gpt_ckpt.is_none()
    }

    /// What is named, if anything is.
    pub fn files(&self) -> Option<ModelFiles> {
        let (gpt, vq) = (self.gpt_ckpt.clone()?, self.vq_ckpt.clone()?);
        Some(ModelFiles { weights: self.weights, n_head: self.n_head, ..ModelFiles::new(gpt, vq) })
    }

    /// Opens what is named, or a half of the demo model.
    pub fn open(&self, half: Half, display: &Display) -> Result<Model> {
        match self.files() {
            Some(files) => open(&files, display),
            None => demo::model(half),
        }
    }
}

/// Opens the transformer and the VQ model, and tells what had to be guessed.
pub fn open(files: &ModelFiles, display: &Display) -> Result<Model> {
    let gpt = Checkpoint::open(&files.gpt, files.weights)?;
    let (gpt_config, guess) = GptConfig::detect(&gpt, files.n_head)?;
    if let Some(guess) = guess {
        display.note(&guess);
    }
    let vq = Checkpoint::open(&files.vq, WeightsChoice::Model)?;
    let vq_config = VqConfig::detect(&vq)?;
    Model::new((gpt, gpt_config), (vq, vq_config))
}
