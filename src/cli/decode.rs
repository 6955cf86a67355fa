//! `smalti decode`: codes to pictures.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;

use super::device::{DeviceArgs, PainterArgs, VqArgs};
use super::output::{COLUMNS, Gallery, Output};
use super::parameters::Parameters;
use super::plural;
use super::progress::Display;
use crate::generate::{Canvas, Codes, Painter};
use crate::{Error, Result};

/// Turn codes into pictures
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti decode codes.safetensors --vq-ckpt vq_ds16_c2i.pt -o picture.png
  smalti decode codes.safetensors --vq-ckpt vq_ds16_c2i.pt -o pictures/")]
pub struct Args {
    /// Codes as `encode` and `generate --codes` write them
    #[arg(value_name = "CODES")]
    codes: PathBuf,
    #[command(flatten)]
    vq: VqArgs,
    #[command(flatten)]
    painter: PainterArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// A PNG with all pictures in a grid, or a folder for one PNG each (a slash at the end makes it)
    #[arg(short, long, default_value = "decoded.png", value_name = "PATH")]
    output: PathBuf,
    /// Print nothing but the files that were written, and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let display = Display::new(args.quiet);
    let output = Output::check(&args.output)?;
    let codes = Codes::read(&args.codes)?;
    let parameters = Parameters::of_codes(&codes.metadata, codes.pictures.len());
    let (checkpoint, config) = args.vq.open()?;
    check(args, &codes, &parameters, config.codebook_size)?;
    let executor = args.device.executor(None, &display)?;
    let precision = args.painter.elem(executor.as_ref())?;
    let canvas = Canvas { latent: codes.latent, pictures: codes.pictures.len() };
    let mut painter = Painter::of_precision(executor.as_ref(), &checkpoint, &config, canvas, precision)?;

    let started = Instant::now();
    let mut gallery = Gallery::new(output, COLUMNS, false);
    let mut index = 0;
    for some in codes.pictures.chunks(painter.together()) {
        for picture in painter.paint_all(some)? {
            gallery.put(index, parameters.number(index), picture, || parameters.of_one(index))?;
            index += 1;
        }
    }
    gallery.finish(|| parameters.of_all())?;
    let images = plural(codes.pictures.len(), "image");
    display.say(&format!("{images} in {:.2} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Errors when a code is not in the codebook.
fn check(args: &Args, codes: &Codes, parameters: &Parameters, codebook_size: usize) -> Result<()> {
    let all =
        codes.pictures.iter().enumerate().flat_map(|(index, picture)| picture.iter().map(move |code| (index, code)));
    let Some((index, code)) = all.into_iter().find(|&(_, &code)| code as usize >= codebook_size) else {
        return Ok(());
    };
    Err(Error::Mismatch {
        what: format!("{}: codes of picture {index}", args.codes.display()),
        expected: format!("0 to {}, the codebook of {}", codebook_size - 1, args.vq.vq_ckpt.display()),
        found: code.to_string(),
        hint: match parameters.setting("vq_ckpt") {
            Some(name) => format!("the codes were made with {name}"),
            None => "use the VQ checkpoint that the codes were made with".into(),
        },
    })
}
