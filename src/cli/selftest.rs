//! `smalti selftest`: every kernel on this machine's device against the CPU.

use clap::Args as ClapArgs;

use super::device::DeviceArgs;
use super::progress::Display;
use super::{plural, tell};
use crate::backend::Executor;
use crate::backend::cpu::CpuExecutor;
use crate::backend::cpu::simd::Isa;
use crate::graph::Op;
use crate::selftest::{Model, Outcome, Report, Size, check, models};
use crate::{Error, Result};

/// Check every op of the models on the device against the CPU, and take its time
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti selftest
  smalti selftest --device cuda:1 --quick
  smalti selftest --model GPT-XL --op attention,norm_swiglu

`error` is the largest share of what rounding allows: above 100 % is wrong, and the exit code is 1. Times are of
many launches in a row, so small weights come from the card's cache. The CPU is checked against its own portable code.")]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Small models only, in a few seconds
    #[arg(long)]
    quick: bool,
    /// Only models whose name has this in it
    #[arg(long, default_value = "", hide_default_value = true)]
    model: String,
    /// Only these ops, by their names in the report
    #[arg(long, value_delimiter = ',')]
    op: Vec<String>,
}

impl Args {
    fn wants(&self, op: &str) -> bool {
        self.op.is_empty() || self.op.iter().any(|name| name == op)
    }

    /// The models that were asked for; errors name what there is.
    fn models(&self) -> Result<Vec<Model>> {
        let unknown = |option, value: &str, names: Vec<&str>| {
            let expected = format!("one of: {}", names.join("; "));
            Err(Error::Option { option, value: format!("`{value}`"), expected, hint: String::new() })
        };
        if let Some(name) = self.op.iter().find(|name| !Op::NAMES.contains(&name.as_str())) {
            return unknown("op", name, Op::NAMES.to_vec());
        }
        let all = models(if self.quick { Size::Small } else { Size::Released });
        let some: Vec<Model> = all.iter().filter(|model| model.name.contains(&self.model)).cloned().collect();
        match some.is_empty() {
            true => unknown("model", &self.model, all.iter().map(|model| model.name.as_str()).collect()),
            false => Ok(some),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let mut models = args.models()?.into_iter();
    let device = args.device.executor(None, &Display::new(false))?;
    let isa = if device.runs_ahead() { Isa::detect() } else { Isa::Portable };
    let reference = CpuExecutor::with_isa(args.device.threads, isa);
    tell(format_args!("{} against {}", device.describe(), reference.describe()))?;
    tell(line(["op", "error", "time", "bandwidth", "arithmetic", "where"]))?;
    let (mut right, mut wrong, mut missing) = (0, 0, 0);
    let (mut ended, mut left) = (Ok(()), Vec::new());
    for model in models.by_ref() {
        let mut named = false;
        let take = |report: Report| {
            if !std::mem::replace(&mut named, true) {
                tell(format_args!("{}:", model.name))?;
            }
            match &report.outcome {
                outcome if outcome.is_failure() => wrong += 1,
                Outcome::Missing(_) => missing += 1,
                _ => right += 1,
            }
            show(&report)
        };
        ended = check(&model, |op| args.wants(op), &reference, device.as_ref(), take);
        if ended.is_err() {
            left.extend(Some(model.name).filter(|_| !named));
            break;
        }
    }
    left.extend(models.map(|model| model.name));
    if !left.is_empty() {
        tell(format_args!("not begun: {}; --model and --op check a part in a new process", left.join("; ")))?;
    }
    tell(format_args!("{} right, {wrong} wrong, {missing} not on this device", plural(right, "check")))?;
    ended?;
    if right + wrong + missing == 0 {
        let expected = format!("ops of the models with `{}` in their names", args.model);
        return Err(Error::Option { option: "op", value: args.op.join(","), expected, hint: String::new() });
    }
    if wrong == 0 {
        return Ok(());
    }
    Err(Error::Device {
        device: device.describe(),
        problem: format!("{} of the self-test failed", plural(wrong, "check")),
        hint: "do not trust its pictures; use --device cpu, and report the lines above with `smalti --version`".into(),
    })
}

/// One line, and a second one that says what is wrong.
fn show(report: &Report) -> Result<()> {
    match &report.outcome {
        Outcome::Ran { comparison, seconds, cost } => {
            let verdict =
                if comparison.is_right() { format!("{:.0} %", 100.0 * comparison.share) } else { "WRONG".into() };
            tell(line([
                report.op,
                &verdict,
                &format!("{:.1} us", 1e6 * seconds),
                &format!("{:.0} GB/s", cost.bytes() as f64 / seconds / 1e9),
                &format!("{:.2} TFLOP/s", cost.flops as f64 / seconds / 1e12),
                &report.node,
            ]))?;
            match comparison.is_right() {
                true => Ok(()),
                false => tell(format_args!("    {:.1} times what is allowed: {}", comparison.share, comparison.worst)),
            }
        }
        Outcome::Missing(why) => {
            tell(line([report.op, "none", "-", "-", "-", &report.node]))?;
            tell(format_args!("    not on this device: {why}"))
        }
        Outcome::Failed(problem) => {
            tell(line([report.op, "FAILED", "-", "-", "-", &report.node]))?;
            tell(format_args!("    {problem}"))
        }
    }
}

/// Columns of a width that everything fits, so that lines can be told as they come.
fn line([op, error, time, bandwidth, arithmetic, node]: [&str; 6]) -> String {
    format!("  {op:<18} {error:>7} {time:>12} {bandwidth:>10} {arithmetic:>15}  {node}")
}
