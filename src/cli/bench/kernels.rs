//! `smalti bench kernels`: every op alone.

use clap::{Args as ClapArgs, ValueEnum};

use super::{MOST_ROUNDS, check_range, latent_size, preset};
use crate::Result;
use crate::bench::{KernelReport, KernelsBench, Meter, Part};
use crate::cli::device::{DeviceArgs, PainterArgs, Precision};
use crate::cli::progress::Display;
use crate::cli::{tell, wrong_option};

/// Every op of a decoding step, of the VQ model or of the text encoder alone, beside its own floor
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti bench kernels --size L --images 4
  smalti bench kernels --part vq --vq-precision bf16

Ops of the same kind run one after the other, those of all layers, again and again; `share` is of the part's whole
time. Winograd's convolutions count the operations of plain ones, so that they may go below their floor. On a GPU the
arithmetic rate is the tensor cores', which some ops do not use.")]
pub struct Args {
    /// What to take apart
    #[arg(long, value_enum, default_value_t)]
    part: PartName,
    /// B, L, XL, XXL, XXXL, 1B, 3B or 7B
    #[arg(long, default_value = "B", value_name = "SIZE")]
    size: String,
    /// Guided pictures at once in a step
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    images: usize,
    /// Rows of a step per sequence: 1, or the windows of lookahead
    #[arg(long, default_value_t = 1, value_name = "W", allow_negative_numbers = true)]
    lookahead: usize,
    /// Side of the pictures in pixels, 16 per code
    #[arg(long, default_value_t = 256, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: usize,
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    painter: PainterArgs,
    /// Rounds that count
    #[arg(long, default_value_t = 5, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
    /// One line of JSON per kind of op instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum PartName {
    /// A decoding step of the transformer
    #[default]
    Step,
    /// The decoding of one picture's codes
    Vq,
    /// The encoding of one picture
    VqEncode,
    /// The first two blocks of T5-XL, on a text of 20 tokens
    Text,
}

/// As many as a sentence has.
const TEXT_TOKENS: usize = 20;

pub fn run(args: &Args) -> Result<()> {
    let preset = preset("size", &args.size)?;
    let latent_size = latent_size(args.image_size)?;
    check_range("images", args.images, 4096)?;
    // A step begins in the middle of its picture.
    check_range("lookahead", args.lookahead, latent_size * latent_size / 2)?;
    if args.lookahead > 1 && args.part != PartName::Step {
        return Err(wrong_option("lookahead", args.lookahead, "1, or --part step", ""));
    }
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    if let Some(precision) = args.painter.vq_precision.filter(|_| args.part != PartName::Vq) {
        return Err(wrong_option("vq-precision", precision.elem().name(), "it only with --part vq", ""));
    }
    let executor = args.device.executor(Some(args.precision), &Display::new(false))?;
    let (part, title) = match args.part {
        PartName::Step => {
            let (images, window, precision) = (args.images, args.lookahead, args.precision.elem());
            let part = Part::step(executor.as_ref(), preset, latent_size, images, window, precision);
            let windows = if args.lookahead > 1 { format!(", windows of {}", args.lookahead) } else { String::new() };
            (part, format!("a step of GPT-{}, {}{windows}", preset.name, args.precision.name()))
        }
        PartName::Vq => {
            let precision = args.painter.elem(executor.as_ref())?;
            let title = format!("a VQ-16 decode of {0}x{0}, {1}", args.image_size, precision.name());
            (Part::vq_decode(executor.as_ref(), args.image_size, precision)?, title)
        }
        PartName::VqEncode => {
            let title = format!("a VQ-16 encode of {0}x{0}, {1}", args.image_size, executor.activations().name());
            (Part::vq_encode(executor.as_ref(), args.image_size)?, title)
        }
        PartName::Text => {
            let part = Part::text_encode(executor.as_ref(), TEXT_TOKENS, args.precision.elem());
            (part, format!("{TEXT_TOKENS} tokens through two blocks of T5-XL, {}", args.precision.name()))
        }
    };
    let meter = Meter::new(executor.as_ref(), args.device.threads)?;
    let mut bench = KernelsBench::new(executor.as_ref(), part)?;
    let reports = (0..bench.kinds()).map(|kind| bench.report(kind, &meter, args.rounds)).collect::<Result<Vec<_>>>()?;
    if args.json {
        return reports.iter().try_for_each(|report| tell(serde_json::to_string(report).expect("numbers")));
    }
    tell(format_args!("{title}, {}", executor.describe()))?;
    show(&reports)
}

fn show(reports: &[KernelReport]) -> Result<()> {
    let whole = |report: &KernelReport| report.count as f64 * report.seconds.median;
    let (all, floors) = (
        reports.iter().map(whole).sum::<f64>(),
        reports.iter().map(|report| report.count as f64 * report.floor.floor_seconds).sum::<f64>(),
    );
    tell(line(["op", "count", "time", "share", "bandwidth", "arithmetic", "times floor", "first"]))?;
    for report in reports {
        let (seconds, floor) = (report.seconds.median, report.floor);
        tell(line([
            report.op,
            &report.count.to_string(),
            &format!("{:.1} us", 1e6 * seconds),
            &format!("{:.1} %", 100.0 * whole(report) / all),
            &format!("{:.1} GB/s", floor.bytes as f64 / seconds / 1e9),
            &format!("{:.1} GFLOP/s", floor.flops as f64 / seconds / 1e9),
            &format!("{:.2}", report.times_floor.median),
            &report.node,
        ]))?;
    }
    tell(format_args!("all: {:.2} ms, {:.2} times the sum of the floors", 1e3 * all, all / floors))
}

fn line([op, count, time, share, bandwidth, arithmetic, times, node]: [&str; 8]) -> String {
    format!("  {op:<18} {count:>5} {time:>12} {share:>7} {bandwidth:>11} {arithmetic:>15} {times:>11}  {node}")
}
