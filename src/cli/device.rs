//! Where to run, and the checkpoints that several commands open.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::progress::Display;
use super::wrong_option;
use crate::Result;
use crate::backend::Executor;
use crate::backend::cpu::CpuExecutor;
use crate::backend::cpu::simd::Isa;
use crate::backend::cuda::{CudaExecutor, driver};
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

/// A device as the user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| format!("`{number}` is no number")),
            _ => Err("expected auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl DeviceArgs {
    /// The executor that the flags ask for. `precision` is what the weights are to be held as, where the command
    /// has a choice; `display` tells why the CPU stands in for a GPU.
    pub fn executor(&self, precision: Option<Precision>, display: &Display) -> Result<Box<dyn Executor>> {
        /// More threads than any machine has is a slip of the finger.
        const MOST: usize = 4096;
        if self.threads > MOST {
            return Err(wrong_option("threads", self.threads, format!("at most {MOST}"), ""));
        }
        check_instructions()?;
        let f32 = precision == Some(Precision::F32);
        match self.device {
            Device::Cpu => Ok(self.cpu()),
            Device::Cuda(_) if f32 => {
                Err(wrong_option("precision", "f32", "bf16, the CUDA kernels' type", "--device cpu computes in f32"))
            }
            Device::Cuda(number) => Ok(Box::new(CudaExecutor::open(number)?)),
            // Whoever has no GPU knows it.
            Device::Auto if !driver::seems_present() => Ok(self.cpu()),
            Device::Auto if f32 => {
                display.note("running on the CPU: f32 is asked for, and the CUDA kernels are bf16");
                Ok(self.cpu())
            }
            Device::Auto => match CudaExecutor::open_any() {
                Ok(executor) => Ok(Box::new(executor)),
                Err(error) => {
                    display.note(&format!("running on the CPU: {error}"));
                    Ok(self.cpu())
                }
            },
        }
    }

    fn cpu(&self) -> Box<dyn Executor> {
        Box::new(CpuExecutor::new(self.threads))
    }
}

/// Checks that `SMALTI_CPU`, where it is set, names instructions that this processor has.
fn check_instructions() -> Result<()> {
    const VARIABLE: &str = "SMALTI_CPU";
    let Some(wanted) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    if names.iter().any(|name| wanted == *name) {
        return Ok(());
    }
    let expected = format!("what this processor has: {}", names.join(", "));
    Err(wrong_option(VARIABLE, wanted.display(), expected, "unset it for the best one"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse() {
        assert_eq!("auto".parse(), Ok(Device::Auto));
        assert_eq!("cuda:9".parse(), Ok(Device::Cuda(9)));
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }
}
