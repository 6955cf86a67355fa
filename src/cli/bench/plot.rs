//! `smalti bench plot`: records as a picture.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::Value;

use crate::bench::plot::{Bar, svg};
use crate::cli::{tell, wrong_option};
use crate::{Error, Result};

/// Draw images per second of measurements as SVG
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:
  smalti bench plot ours.jsonl torch.jsonl vllm.jsonl --note \"H200, 2026-11-22\" -o comparison.svg

Files hold one JSON record per line, as `bench latency --json`, `bench throughput --json`, `bench serve --json` and
benches/baselines write them; other lines are passed over. Of `bench latency` it is the drawing without the painting, which
the baselines do not do.")]
pub struct Args {
    /// Records, a line each
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[arg(long, default_value = "Images per second", value_name = "TEXT")]
    title: String,
    /// A line below: machine, date, conditions
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    note: String,
    #[arg(short, long, default_value = "bench.svg", value_name = "FILE")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    if args.output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("svg")) {
        let hint = "browsers show it; rsvg-convert and Inkscape make a PNG of it";
        return Err(wrong_option("output", args.output.display(), "a file name that ends in .svg", hint));
    }
    let mut bars = Vec::new();
    for path in &args.files {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let before = bars.len();
        bars.extend(records.filter_map(|record| Bar::of(&record)));
        if bars.len() == before {
            return Err(Error::Format {
                path: path.clone(),
                format: "benchmark",
                problem: "no line is a record with images_per_second and the name of an engine".into(),
                hint: "write records with --json".into(),
            });
        }
    }
    std::fs::write(&args.output, svg(&args.title, &args.note, &bars)).map_err(Error::io("write", &args.output))?;
    tell(args.output.display())
}
