//! `smalti reconstruct`: what the VQ model keeps of pictures.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::device::{DeviceArgs, PainterArgs, VqArgs};
use super::encode::describe;
use super::output::{Gallery, Output, PADDING};
use super::pictures::PictureArgs;
use super::progress::Display;
use super::tell;
use crate::Result;
use crate::generate::{Canvas, Painter, Tokenizer};
use crate::image::{Rgb8, psnr, side_by_side, ssim};

/// Encode pictures, decode them again, and show both side by side
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti reconstruct photo.png --vq-ckpt vq_ds16_c2i.pt -o both.png
  smalti reconstruct *.jpg --vq-ckpt vq_ds16_c2i.pt --image-size 256 -o pairs/")]
pub struct Args {
    #[command(flatten)]
    pictures: PictureArgs,
    #[command(flatten)]
    vq: VqArgs,
    #[command(flatten)]
    painter: PainterArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// A PNG with one pair (original, reconstruction) per row, or a folder for one PNG each (a slash at the end makes it)
    #[arg(short, long, default_value = "reconstructed.png", value_name = "PATH")]
    output: PathBuf,
    /// Print nothing but the files that were written, and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let output = Output::check(&args.output)?;
    let (checkpoint, config) = args.vq.open()?;
    let pictures = args.pictures.read(config.downsample_size())?;
    let executor = args.device.executor(None, &Display::new(args.quiet))?;
    let size = (pictures[0].height(), pictures[0].width());
    let mut tokenizer = Tokenizer::new(executor.as_ref(), &checkpoint, &config, size)?;
    let precision = args.painter.elem(executor.as_ref())?;
    let canvas = Canvas { latent: tokenizer.latent(), pictures: 1 };
    let mut painter = Painter::of_precision(executor.as_ref(), &checkpoint, &config, canvas, precision)?;

    let parameters = describe(&args.pictures.names(), &args.vq);
    let mut gallery = Gallery::new(output, 1, false);
    for (index, (original, path)) in pictures.iter().zip(&args.pictures.images).enumerate() {
        let codes = tokenizer.encode(original)?;
        let painted = painter.paint(&codes)?;
        if !args.quiet {
            let used = BTreeSet::from_iter(&codes).len();
            let likeness = likeness(original, &painted)?;
            tell(format!(
                "{}: {likeness}, {used} of {} codes used by {} tokens",
                path.display(),
                config.codebook_size,
                codes.len()
            ))?;
        }
        let pair = side_by_side(original, &painted, PADDING)?;
        gallery.put(index, index as u64, pair, || parameters.of_one(index))?;
    }
    gallery.finish(|| parameters.of_all())
}

/// PSNR, and SSIM where the pictures are large enough for its windows.
fn likeness(original: &Rgb8, painted: &Rgb8) -> Result<String> {
    let ssim = ssim(original, painted).map_or_else(|_| "undefined".into(), |value| format!("{value:.4}"));
    Ok(format!("PSNR {:.2} dB, SSIM {ssim}", psnr(original, painted)?))
}
