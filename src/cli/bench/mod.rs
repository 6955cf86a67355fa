//! `smalti bench`: times beside their floors.

mod kernels;
mod latency;
mod parts;
mod plot;
mod serve;
mod subject;
mod throughput;

use clap::{Args as ClapArgs, Subcommand};

use super::wrong_option;
use crate::Result;
use crate::config::{PRESETS, Preset};

/// Measure this machine, or a server, beside what the hardware must take
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Latency(latency::Args),
    Throughput(throughput::Args),
    Kernels(kernels::Args),
    Serve(serve::Args),
    Plot(plot::Args),
    /// One decoding step, beside what its bytes and operations take at the rates measured in the same run
    #[command(after_help = "Example:\n  smalti bench step --size B --images 1")]
    Step(parts::StepArgs),
    /// The VQ-16 decode of pictures
    #[command(
        after_help = "Examples:\n  smalti bench vq --image-size 256\n  smalti bench vq --image-size 384 --images 8"
    )]
    Vq(parts::VqArgs),
    /// The encoding of one text by a T5-XL
    #[command(after_help = "Example:\n  smalti bench text --tokens 20")]
    Text(parts::TextArgs),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Latency(args) => latency::run(args),
        What::Throughput(args) => throughput::run(args),
        What::Kernels(args) => kernels::run(args),
        What::Serve(args) => serve::run(args),
        What::Plot(args) => plot::run(args),
        What::Step(args) => parts::step(args),
        What::Vq(args) => parts::vq(args),
        What::Text(args) => parts::text(args),
    }
}

/// More rounds take days.
const MOST_ROUNDS: usize = 1_000_000;

fn check_range(option: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong_option(option, value, format!("1 to {most}"), ""))
}

/// A released size by its name.
fn preset(option: &'static str, name: &str) -> Result<&'static Preset> {
    Preset::named(name).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        wrong_option(option, name, format!("one of {}", names.join(", ")), "")
    })
}

fn latent_size(image_size: usize) -> Result<usize> {
    const DOWNSAMPLE: usize = 16;
    if !(2 * DOWNSAMPLE..=4096).contains(&image_size) || !image_size.is_multiple_of(DOWNSAMPLE) {
        let expected = format!("a multiple of {DOWNSAMPLE} from {} to 4096", 2 * DOWNSAMPLE);
        return Err(wrong_option("image-size", image_size, expected, ""));
    }
    Ok(image_size / DOWNSAMPLE)
}
