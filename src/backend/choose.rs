//! Which device to run on, as users name it.

use std::str::FromStr;

use super::Executor;
use super::cpu::CpuExecutor;
use super::cpu::simd::Isa;
use super::cuda::{CudaExecutor, driver};
use crate::graph::Elem;
use crate::{Error, Result};

/// A device as users name it: `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first GPU that can be used, else the CPU.
    #[default]
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

impl Device {
    /// Opens the device. `threads` are the CPU's, one per core for 0; `precision` is what weights are to be held
    /// as, where there is a choice; `note` is told why the CPU stands in for a GPU.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for a choice that this machine cannot follow, [`Error::Device`] for a GPU that cannot be
    /// used.
    pub fn open(
        self,
        threads: usize,
        precision: Option<Elem>,
        mut note: impl FnMut(&str),
    ) -> Result<Box<dyn Executor>> {
        /// More threads than any machine has is a slip of the finger.
        const MOST: usize = 4096;
        if threads > MOST {
            return Err(wrong("threads", threads.to_string(), format!("at most {MOST}"), ""));
        }
        check_instructions()?;
        let f32 = precision == Some(Elem::F32);
        let cpu = || Box::new(CpuExecutor::new(threads));
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Cuda(_) if f32 => {
                let expected = "bf16, the CUDA kernels' type".into();
                Err(wrong("precision", "f32".into(), expected, "--device cpu computes in f32"))
            }
            Self::Cuda(number) => Ok(Box::new(CudaExecutor::open(number)?)),
            // Whoever has no GPU knows it.
            Self::Auto if !driver::seems_present() => Ok(cpu()),
            Self::Auto if f32 => {
                note("running on the CPU: f32 is asked for, and the CUDA kernels are bf16");
                Ok(cpu())
            }
            Self::Auto => match CudaExecutor::open_any() {
                Ok(executor) => Ok(Box::new(executor)),
                Err(error) => {
                    note(&format!("running on the CPU: {error}"));
                    Ok(cpu())
                }
            },
        }
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
    Err(wrong(VARIABLE, wanted.display().to_string(), expected, "unset it for the best one"))
}

fn wrong(option: &'static str, value: String, expected: String, hint: &str) -> Error {
    Error::Option { option, value, expected, hint: hint.into() }
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
