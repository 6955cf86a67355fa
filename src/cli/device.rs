//! Where to run, and the checkpoints that several commands open.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::progress::Display;
use super::wrong_option;
use crate::Result;
use crate::backend::{Device, Executor};
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::VqConfig;
use crate::graph::Elem;

/// Flags for where to run.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// Where to run: auto (the first GPU that can be used, else the CPU), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", env = "SMALTI_DEVICE")]
    pub device: Device,
    /// CPU threads; one per core by default
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "N",
        env = "SMALTI_THREADS",
        allow_negative_numbers = true
    )]
    pub threads: usize,
}

impl DeviceArgs {
    /// The executor that the flags ask for. `precision` is what the weights are to be held as, where the command
    /// has a choice; `display` tells why the CPU stands in for a GPU.
    pub fn executor(&self, precision: Option<Precision>, display: &Display) -> Result<Box<dyn Executor>> {
        self.device.open(self.threads, precision.map(Precision::elem), |why| display.note(why))
    }
}

/// What the transformer's weights are held as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Half the memory and, where memory is the limit, half the time
    Bf16,
    /// As exact as the checkpoint
    F32,
}

impl Precision {
    pub fn elem(self) -> Elem {
        match self {
            Self::Bf16 => Elem::Bf16,
            Self::F32 => Elem::F32,
        }
    }

    pub fn name(self) -> &'static str {
        self.elem().name()
    }
}

/// How the VQ decoder computes.
#[derive(Args, Clone, Copy, Debug)]
pub struct PainterArgs {
    /// What the VQ decoder's convolutions multiply: f32, the default on a CPU, or bf16, which a GPU always takes
    #[arg(long, value_enum)]
    pub vq_precision: Option<Precision>,
}

impl PainterArgs {
    /// The precision on an executor. Errors when it has not the one that was asked for.
    pub fn elem(self, executor: &dyn Executor) -> Result<Elem> {
        match (self.vq_precision, executor.activations()) {
            (Some(Precision::F32), Elem::Bf16) => {
                Err(wrong_option("vq-precision", "f32", "bf16, the CUDA kernels' type", "--device cpu computes in f32"))
            }
            (Some(precision), _) => Ok(precision.elem()),
            (None, own) => Ok(own),
        }
    }
}

/// The tokenizer's checkpoint.
#[derive(Args, Clone, Debug)]
pub struct VqArgs {
    /// VQ checkpoint: .pt, .safetensors, or a folder with model.safetensors
    #[arg(long, value_name = "FILE", env = "SMALTI_VQ_CKPT")]
    pub vq_ckpt: PathBuf,
}

impl VqArgs {
    /// Opens the checkpoint and reads its configuration.
    pub fn open(&self) -> Result<(Checkpoint, VqConfig)> {
        let checkpoint = Checkpoint::open(&self.vq_ckpt, WeightsChoice::Model)?;
        let config = VqConfig::detect(&checkpoint)?;
        Ok((checkpoint, config))
    }
}
