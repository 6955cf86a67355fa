//! `smalti bench throughput`: many pictures, as fast as they go.

use clap::Args as ClapArgs;

use super::subject::{SubjectArgs, check_images};
use super::{MOST_ROUNDS, check_range};
use crate::Result;
use crate::bench::throughput;
use crate::cli::tell;
use crate::units::bytes;

/// Many pictures through one session, as fast as they go, each painted as soon as it is drawn
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti bench throughput --size B --batch-size 4 --num-images 16
  smalti bench throughput --size XL --image-size 384 --batch-size 8,32,128 --num-images 512 --json

Tokens are counted as vLLM counts them, the condition's included; guidance's second copy is not. First
token, step, times floor (as `bench latency` has it) and VQ decode (a picture's share) are those of a batch by itself,
before the rounds.")]
pub struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Pictures of a round; four batches by default
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    num_images: Option<usize>,
    /// Rounds that count
    #[arg(long, default_value_t = 3, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
}

pub fn run(args: &Args) -> Result<()> {
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    if let Some(images) = args.num_images {
        check_range("num-images", images, MOST_ROUNDS)?;
        check_images(images, args.subject.batch_size.iter().copied().max().unwrap_or(1))?;
    }
    let subject = args.subject.open()?;
    let meter = subject.meter()?;
    if !args.subject.json {
        tell(subject.title())?;
        tell(format_args!(
            "{:>6} {:>7} {:>10} {:>10} {:>22} {:>11} {:>8} {:>11} {:>9} {:>11}",
            "batch",
            "images",
            "images/s",
            "tokens/s",
            "seconds",
            "first token",
            "step",
            "times floor",
            "VQ decode",
            "peak memory"
        ))?;
    }
    for &batch_size in &args.subject.batch_size {
        let peak = subject.peak()?;
        let layout = subject.layout(batch_size, args.num_images.unwrap_or(4 * batch_size));
        let executor = subject.executor.as_ref();
        let about = subject.about(batch_size);
        let what = (&subject.conditions[..], subject.sampling);
        let record = throughput(executor, &subject.model, &layout, what, (&meter, &peak), about, args.rounds)?;
        if args.subject.json {
            tell(serde_json::to_string(&record).expect("numbers"))?;
            continue;
        }
        let least = record.elapsed_times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = record.elapsed_times.iter().copied().fold(0.0, f64::max);
        let seconds = format!("{:.2} ({least:.2} to {most:.2})", record.elapsed_time);
        let memory = record.peak_memory_bytes.map_or_else(|| "-".into(), bytes);
        tell(format_args!(
            "{batch_size:>6} {:>7} {:>10.4} {:>10.1} {seconds:>22} {:>8.1} ms {:>5.1} ms {:>11.2} {:>6.0} ms \
             {memory:>11}",
            record.num_requests,
            record.images_per_second,
            record.tokens_per_second,
            record.ttft_ms.median,
            record.ms_per_step.median,
            record.times_floor.median,
            record.vq_decode_ms.median
        ))?;
    }
    Ok(())
}
