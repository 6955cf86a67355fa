//! `smalti bench latency`: a batch of pictures from its first row to its last pixel.

use clap::Args as ClapArgs;

use super::subject::SubjectArgs;
use super::{MOST_ROUNDS, check_range};
use crate::Result;
use crate::bench::{GenerationBench, LatencyRecord, Spread};
use crate::cli::tell;
use crate::generate::Lookahead;
use crate::units::{bytes, flops};

/// A batch of pictures from its first row to its last pixel, beside the floor of its steps
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti bench latency --size B --batch-size 1,4
  smalti bench latency --demo classes --lookahead 16
  smalti bench latency --size XL --image-size 384 --batch-size 1,8 --json > ours.jsonl
  smalti bench latency --gpt-ckpt c2i_L_256.pt --vq-ckpt vq_ds16_c2i.pt

`times floor` is the time of a step over what its bytes, or its operations, take at the bandwidth and arithmetic rate
measured right before and after each round: 1 is as fast as the hardware goes. With --lookahead every batch is drawn
once more with a pass per token, so that both see the same machine.")]
pub struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Batches before, that do not count
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    warmup: usize,
    /// Batches that count
    #[arg(long, default_value_t = 5, value_name = "N", allow_negative_numbers = true)]
    rounds: usize,
}

pub fn run(args: &Args) -> Result<()> {
    check_range("warmup", args.warmup, MOST_ROUNDS)?;
    check_range("rounds", args.rounds, MOST_ROUNDS)?;
    let subject = args.subject.open()?;
    let meter = subject.meter()?;
    if !args.subject.json {
        tell(subject.title())?;
    }
    for &batch_size in &args.subject.batch_size {
        let peak = subject.peak()?;
        let layout = subject.layout(batch_size, batch_size);
        let executor = subject.executor.as_ref();
        let mut bench = GenerationBench::new(executor, &subject.model, &layout, &subject.conditions, subject.sampling)?;
        let rounds = (args.warmup, args.rounds);
        let record = bench.report(executor, &meter, &peak, subject.about(batch_size), rounds)?;
        if args.subject.json {
            tell(serde_json::to_string(&record).expect("numbers"))?;
        } else {
            show(&record, meter.how())?;
        }
    }
    Ok(())
}

fn show(record: &LatencyRecord, how: &str) -> Result<()> {
    let spread = |Spread { min, median, max }: Spread, decimals: usize| {
        format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
    };
    let latency = &record.latency;
    tell(format_args!("batch of {}, {} tokens each", record.about.batch_size, record.tokens))?;
    tell(format_args!("  images/s      {:.4}", record.images_per_second))?;
    tell(format_args!("  latency       {} s", spread(Spread::of(latency.latencies.clone()), 3)))?;
    tell(format_args!("  tokens/s      {:.1}", record.tokens_per_second))?;
    tell(format_args!("  first token   {} ms", spread(record.ttft_ms, 2)))?;
    tell(format_args!("  step          {} ms", spread(record.ms_per_step, 2)))?;
    let passes = record.passes_per_image;
    let rows = match record.about.lookahead {
        Lookahead::Window(1) => String::new(),
        other => format!(", {:.2} tokens each, lookahead {other}", record.tokens as f64 / passes),
    };
    tell(format_args!("  passes        {passes:.1} per picture{rows}"))?;
    if let Some(one_by_one) = record.one_by_one_ms {
        let times = one_by_one.median / record.time_per_image_ms;
        tell(format_args!("  one by one    {} ms per picture, {times:.2} times as long", spread(one_by_one, 1)))?;
        let share = |right: &Option<f64>| right.map_or_else(|| "-".into(), |right| format!("{right:.2}"));
        let right: Vec<String> = record.acceptance.iter().map(share).collect();
        tell(format_args!("  right guesses {} of those before which all were right", right.join(" ")))?;
    }
    let step = &record.step;
    let (floor, work) = (1e3 * step.floor_seconds, format!("{} and {}", bytes(step.bytes), flops(step.flops)));
    let arithmetic = match step.rates.arithmetic {
        Some(rate) => format!(", {}/s", flops(rate as u64)),
        None => String::new(),
    };
    let bandwidth = step.rates.bandwidth / 1e9;
    tell(format_args!("  floor         {floor:.2} ms: {work} at {bandwidth:.1} GB/s {how}{arithmetic}"))?;
    let times = record.times_floor;
    tell(format_args!("  times floor   {}, {:.0} % of it reached", spread(times, 2), 100.0 / times.median))?;
    tell(format_args!("  VQ decode     {} ms per picture", spread(record.vq_decode_ms, 1)))?;
    match record.peak_memory_bytes {
        Some(peak) => tell(format_args!("  peak memory   {}", bytes(peak))),
        None => Ok(()),
    }
}
