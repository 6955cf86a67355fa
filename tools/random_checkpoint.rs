//! Writes a checkpoint of random weights with the true shapes of a released model, to measure and to test
//! with where the released weights are not at hand.
//!
//! ```text
//! cargo run --release --example random_checkpoint -- B --out gpt-b.safetensors
//! cargo run --release --example random_checkpoint -- vq-16 --dtype f32 --out vq-16.safetensors
//! cargo run --release --example random_checkpoint -- t5-xl --out t5-xl.safetensors
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use smalti::checkpoint::{DType, Entry, write_random};
use smalti::config::{Condition, GptConfig, ModelConfig, Preset, T5Config, VqConfig};

/// Writes a checkpoint of random weights with the true shapes of a released model.
#[derive(Parser)]
struct Arguments {
    /// B, L, XL, XXL, XXXL, 1B, 3B, 7B, vq-16, vq-8 or t5-xl.
    #[arg(value_parser = model)]
    model: Model,

    /// The file to write.
    #[arg(short, long)]
    out: PathBuf,

    /// The type of the weights.
    #[arg(long, value_enum, default_value = "bf16")]
    dtype: DType,

    /// A transformer for texts instead of one for 1000 classes.
    #[arg(long)]
    text: bool,

    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone)]
enum Model {
    Gpt(&'static Preset),
    Vq(VqConfig),
    T5(T5Config),
}

fn model(name: &str) -> Result<Model, String> {
    match name.to_ascii_lowercase().as_str() {
        "vq-16" => Ok(Model::Vq(VqConfig::released(&[1, 1, 2, 2, 4]))),
        "vq-8" => Ok(Model::Vq(VqConfig::released(&[1, 2, 2, 4]))),
        "t5-xl" => Ok(Model::T5(T5Config::xl())),
        _ => Preset::named(name).map(Model::Gpt).ok_or_else(|| "expected a released size".into()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match arguments.model {
        Model::Vq(config) => ModelConfig::Vq(config),
        Model::T5(config) => ModelConfig::T5(config),
        Model::Gpt(preset) => {
            let condition = if arguments.text {
                Condition::Text { cls_token_num: 120, caption_dim: 2048 }
            } else {
                Condition::Class { num_classes: 1000 }
            };
            ModelConfig::Gpt(GptConfig::of_preset(preset, condition))
        }
    };
    let entries = Entry::all(config.tensors(), arguments.dtype);
    match write_random(&arguments.out, &entries, &config.metadata(), arguments.seed) {
        Ok(bytes) => {
            println!("{}: {bytes} bytes", arguments.out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
