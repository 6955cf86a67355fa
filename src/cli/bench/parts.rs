//! One part alone: a decoding step, a VQ decode, the encoding of a text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{MOST_ROUNDS, check_range, latent_size, preset};
use crate::Result;
use crate::bench::{Meter, Spread, StepBench, TextBench, VqBench};
use crate::checkpoint::{Checkpoint, DType, Entry, WeightsChoice, random};
use crate::cli::device::{DeviceArgs, PainterArgs, Precision};
use crate::cli::progress::Display;
use crate::cli::{plural, tell};
use crate::config::{ModelConfig, T5Config, VqConfig};

#[derive(ClapArgs, Debug)]
pub struct StepArgs {
    /// B, L, XL, XXL, XXXL, 1B, 3B or 7B
    #[arg(long, alias = "model", default_value = "B", value_name = "SIZE")]
    size: String,
    /// Pictures at once
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    images: usize,
    /// One row per picture instead of two
    #[arg(long)]
    no_guidance: bool,
    /// Side of the pictures in pixels, 16 per code
    #[arg(long, default_value_t = 256, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: usize,
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    /// Rounds of bandwidth, arithmetic rate and steps in turn
    #[arg(long, default_value_t = 7, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
    /// Steps per round
    #[arg(long, default_value_t = 20, value_name = "N", allow_negative_numbers = true)]
    steps: usize,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(ClapArgs, Debug)]
pub struct VqArgs {
    /// Pictures; a GPU decodes some of them at once
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    images: usize,
    /// Side of the pictures in pixels
    #[arg(long, default_value_t = 256, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: usize,
    #[command(flatten)]
    painter: PainterArgs,
    /// Decodes that count
    #[arg(long, default_value_t = 5, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(ClapArgs, Debug)]
pub struct TextArgs {
    /// Tokens of the text
    #[arg(long, default_value_t = 20, value_name = "N", allow_negative_numbers = true)]
    tokens: usize,
    /// A T5 encoder to measure; by default random weights of T5-XL's shapes, made in memory
    #[arg(long, value_name = "PATH")]
    t5_path: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    /// Encodings that count
    #[arg(long, default_value_t = 5, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn step(args: &StepArgs) -> Result<()> {
    let preset = preset("size", &args.size)?;
    let latent_size = latent_size(args.image_size)?;
    let middle = latent_size * latent_size / 2;
    check_range("images", args.images, 4096)?;
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    check_range("steps", args.steps, middle)?;
    let executor = args.device.executor(Some(args.precision), &Display::new(false))?;
    let guidance = !args.no_guidance;
    let mut bench =
        StepBench::new(executor.as_ref(), preset, latent_size, args.images, guidance, args.precision.elem())?;
    let meter = Meter::new(executor.as_ref(), args.device.threads)?;
    let report = bench.report(|bytes| meter.rates(args.precision.elem(), bytes), args.rounds, args.steps)?;
    if args.json {
        return tell(serde_json::to_string(&report).expect("numbers"));
    }
    tell(format_args!("GPT-{} {}, {}", preset.name, args.precision.name(), executor.describe()))?;
    tell(format_args!(
        "rows          {} ({}{})",
        report.rows,
        plural(args.images, "image"),
        if guidance { ", guided" } else { "" }
    ))?;
    let flops = report.flops as f64;
    tell(format_args!("work          {:.1} MB and {:.2} GFLOP per step", report.bytes as f64 / 1e6, flops / 1e9))?;
    tell(format_args!("bandwidth     {:.1} GB/s {}", report.bandwidth.median / 1e9, meter.how()))?;
    let most = report.arithmetic.map_or_else(String::new, |rate| format!(" of {:.0}", rate.median / 1e9));
    tell(format_args!("arithmetic    {:.1}{most} GFLOP/s", flops / report.step.median / 1e9))?;
    let ms =
        |Spread { min, median, max }: Spread| format!("{:.2} ms ({:.2} to {:.2})", 1e3 * median, 1e3 * min, 1e3 * max);
    tell(format_args!("floor         {}", ms(report.floor)))?;
    tell(format_args!("step          {}", ms(report.step)))?;
    let times = report.times_floor;
    tell(format_args!("times floor   {:.2} ({:.2} to {:.2})", times.median, times.min, times.max))?;
    tell(format_args!("tokens/s      {:.1}", args.images as f64 / report.step.median))?;
    Ok(())
}

pub fn vq(args: &VqArgs) -> Result<()> {
    check_range("images", args.images, 4096)?;
    latent_size(args.image_size)?;
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    let executor = args.device.executor(None, &Display::new(false))?;
    let config = VqConfig::released(&[1, 1, 2, 2, 4]);
    let precision = args.painter.elem(executor.as_ref())?;
    let pictures = (args.images, args.image_size);
    let report = VqBench::new(executor.as_ref(), &config, pictures, precision)?.report(args.rounds)?;
    if args.json {
        return tell(serde_json::to_string(&report).expect("numbers"));
    }
    let (side, precision) = (args.image_size, precision.name());
    tell(format_args!("VQ-16 decode of {side}x{side} in {precision}, {}", executor.describe()))?;
    tell(format_args!("pictures      {}, {} at once", report.images, report.together))?;
    tell(format_args!(
        "decode        {:.3} s ({:.3} to {:.3})",
        report.decode.median, report.decode.min, report.decode.max
    ))?;
    tell(format_args!(
        "arithmetic    {:.0} GFLOP of plain convolutions, {:.0} GFLOP/s of them",
        report.flops as f64 / 1e9,
        report.flops as f64 / 1e9 / report.decode.median
    ))?;
    Ok(())
}

pub fn text(args: &TextArgs) -> Result<()> {
    check_range("tokens", args.tokens, 4096)?;
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    let executor = args.device.executor(Some(args.precision), &Display::new(false))?;
    let checkpoint = match &args.t5_path {
        Some(path) => Checkpoint::open(path, WeightsChoice::Model)?,
        None => {
            let dtype = if args.precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
            random("T5-XL", &Entry::all(T5Config::xl().tensors(), dtype), BTreeMap::new(), 0)
        }
    };
    let config = T5Config::detect(&checkpoint)?;
    let mut bench = TextBench::new(executor.as_ref(), &checkpoint, &config, args.tokens, args.precision.elem())?;
    let report = bench.report(args.rounds)?;
    if args.json {
        return tell(serde_json::to_string(&report).expect("numbers"));
    }
    let title = ModelConfig::T5(config).title();
    tell(format_args!("{title} {}, {}", args.precision.name(), executor.describe()))?;
    let Spread { min, median, max } = report.encode;
    tell(format_args!("{}     {median:.3} s ({min:.3} to {max:.3})", plural(args.tokens, "token")))?;
    tell(format_args!("bytes         {:.2} GB", report.bytes as f64 / 1e9))?;
    let rate = report.flops as f64 / median / 1e9;
    tell(format_args!("arithmetic    {:.1} GFLOP, {rate:.0} GFLOP/s", report.flops as f64 / 1e9))?;
    Ok(())
}
