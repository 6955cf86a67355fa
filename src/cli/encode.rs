//! `smalti encode`: pictures to codes.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use serde_json::json;

use super::device::{DeviceArgs, VqArgs};
use super::output::check_file;
use super::parameters::{Parameters, file_name};
use super::pictures::PictureArgs;
use super::progress::Display;
use super::{plural, tell};
use crate::Result;
use crate::generate::{Codes, Tokenizer};

/// Turn pictures into codes
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti encode photo.png --vq-ckpt vq_ds16_c2i.pt -o codes.safetensors
  smalti encode *.jpg --vq-ckpt vq_ds16_c2i.pt --image-size 256

The file holds one tensor `codes` (pictures, down, across) of int32.")]
pub struct Args {
    #[command(flatten)]
    pictures: PictureArgs,
    #[command(flatten)]
    vq: VqArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// The safetensors file to write
    #[arg(short, long, default_value = "codes.safetensors", value_name = "FILE")]
    output: PathBuf,
    /// Print nothing but the file that was written, and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let display = Display::new(args.quiet);
    check_file("output", &args.output)?;
    let (checkpoint, config) = args.vq.open()?;
    let pictures = args.pictures.read(config.downsample_size())?;
    let executor = args.device.executor(None, &display)?;
    let size = (pictures[0].height(), pictures[0].width());
    let mut tokenizer = Tokenizer::new(executor.as_ref(), &checkpoint, &config, size)?;

    let started = Instant::now();
    let codes: Vec<Vec<u32>> = pictures.iter().map(|picture| tokenizer.encode(picture)).collect::<Result<_>>()?;
    let latent = tokenizer.latent();
    display.say(&format!(
        "{} of {}x{} codes in {:.2} s",
        plural(codes.len(), "image"),
        latent.0,
        latent.1,
        started.elapsed().as_secs_f64()
    ));
    let parameters = describe(&args.pictures.names(), &args.vq);
    Codes { latent, pictures: codes, metadata: parameters.of_all().into_iter().collect() }.write(&args.output)?;
    tell(args.output.display())
}

/// What a file tells that was made from pictures.
pub fn describe(names: &[String], vq: &VqArgs) -> Parameters {
    let images = names.iter().enumerate().map(|(number, name)| json!({ "image": number, "file": name }));
    Parameters::new(&json!({ "vq_ckpt": file_name(&vq.vq_ckpt) }), images.collect())
}
