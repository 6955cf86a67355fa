//! `smalti convert`: any checkpoint to safetensors.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::output::check_file;
use super::progress::Display;
use super::tell;
use crate::Result;
use crate::checkpoint::{Checkpoint, ConvertOptions, DType, WeightsChoice, convert};
use crate::units::bytes;

/// Write a checkpoint as safetensors, with its configuration in the metadata
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti convert c2i_B_256.pt c2i_B_256.safetensors --dtype bf16
  smalti convert training.pt averaged.safetensors --weights ema

Training state is left out. The image size goes along when the checkpoint or its name tells it.")]
pub struct Args {
    /// GPT or VQ checkpoint: .pt, .safetensors, or a folder with model.safetensors and config.json
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The safetensors file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// The type of all tensors; by default each keeps its own
    #[arg(long, value_enum)]
    dtype: Option<DType>,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    n_head: Option<usize>,
    /// Which weights of a checkpoint that has two sets
    #[arg(long, value_enum, default_value_t)]
    weights: WeightsChoice,
    /// Print nothing but the file that was written, and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    check_file("OUT", &args.output)?;
    let checkpoint = Checkpoint::open(&args.input, args.weights)?;
    let converted = convert(&checkpoint, &args.output, &ConvertOptions { dtype: args.dtype, n_head: args.n_head })?;
    let display = Display::new(args.quiet);
    if let Some(guess) = &converted.note {
        display.note(guess);
    }
    display.say(converted.config.to_string().trim_end());
    display.say(&format!("{} written", bytes(converted.bytes)));
    tell(args.output.display())
}
