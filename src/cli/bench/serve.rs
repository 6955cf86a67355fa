//! `smalti bench serve`: a running server under load.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::check_range;
use crate::bench::serve::{Goal, ServeLoad, ServeRecord, drive};
use crate::cli::{plural, tell, wrong_option};
use crate::{Error, Result};

/// A running server under load: so many requests at a time, or so many a second
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti bench serve --num-prompts 32 --max-concurrency 8
  smalti bench serve --num-prompts 64 --request-rate 0.5 --partial-images 2
  smalti bench serve --url http://127.0.0.1:8000 --prompt \"a red sailboat\" --prompt \"a fox\" --size 512x512

The route is OpenAI's POST /v1/images/generations. `--max-concurrency` alone keeps so many requests under way (closed
loop); `--request-rate` sends them whether or not others are done (open loop). With `--partial-images` pictures come as
a stream, and the first preview's time is what TTFT says.")]
pub struct Args {
    /// The server, http://host:port
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Requests that count
    #[arg(long, default_value_t = 16, value_name = "N", allow_negative_numbers = true)]
    num_prompts: usize,
    /// Requests before, that do not count
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    num_warmups: usize,
    /// Requests under way at most; all by default
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_concurrency: Option<usize>,
    /// Requests per second on average, with exponential gaps; `inf` sends all at once
    #[arg(long, default_value_t = f64::INFINITY, value_name = "R", allow_negative_numbers = true)]
    request_rate: f64,
    /// What to ask for, in turn; by default a class model's classes, `class:0` and so on, or eight prompts
    #[arg(long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// Pictures per request
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    n: usize,
    /// WxH in pixels; the server's own by default
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Previews per picture, 0 to 3
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    partial_images: usize,
    /// The server's first by default
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Sent as a bearer token
    #[arg(long, value_name = "KEY", env = "OPENAI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Of the gaps between requests and of the pictures
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Seconds after which a request has failed
    #[arg(long, default_value_t = 600, value_name = "S", allow_negative_numbers = true)]
    timeout: u64,
    /// What a request must meet to count as good, in ms: ttft (first event), tpot (per token of a stream), e2el
    /// (whole); several are separated by commas
    #[arg(long, value_name = "METRIC:MS,...", value_delimiter = ',', allow_hyphen_values = true)]
    goodput: Vec<Goal>,
    /// What the JSON calls this run
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// One line of JSON, with the keys of `vllm bench serve`, instead of text
    #[arg(long)]
    json: bool,
}

/// More requests at once need more threads than a client should have.
const MOST_REQUESTS: usize = 4096;

pub fn run(args: &Args) -> Result<()> {
    check_range("num-prompts", args.num_prompts, MOST_REQUESTS)?;
    check_range("n", args.n, 10)?;
    if let Some(most) = args.max_concurrency {
        check_range("max-concurrency", most, MOST_REQUESTS)?;
    }
    if args.request_rate.is_nan() || args.request_rate <= 0.0 {
        return Err(wrong_option("request-rate", args.request_rate, "a number above 0, or inf", ""));
    }
    if args.partial_images > 3 {
        return Err(wrong_option("partial-images", args.partial_images, "0 to 3", ""));
    }
    if args.partial_images == 0 && args.goodput.iter().any(Goal::needs_stream) {
        return Err(wrong_option("goodput", "tpot", "ttft or e2el", "tpot needs a stream: add --partial-images 1"));
    }
    let url = args.url.trim_end_matches('/').trim_end_matches("/v1");
    if !url.starts_with("http://") {
        return Err(wrong_option("url", &args.url, "http://host:port", "an https server needs a proxy before it"));
    }
    let load = ServeLoad {
        url: url.into(),
        api_key: args.api_key.clone(),
        model: args.model.clone(),
        prompts: args.prompts.clone(),
        size: args.size.clone(),
        n: args.n,
        partial_images: args.partial_images,
        requests: args.num_prompts,
        warmups: args.num_warmups,
        max_concurrency: args.max_concurrency,
        request_rate: args.request_rate,
        seed: args.seed,
        timeout: Duration::from_secs(args.timeout.max(1)),
        goodput: args.goodput.clone(),
        label: args.label.clone(),
    };
    let record = drive(&load)?;
    if args.json {
        tell(serde_json::to_string(&record).expect("numbers"))?;
    } else {
        show(&record)?;
    }
    let Some(error) = record.error_counts.keys().next().filter(|_| record.completed == 0) else { return Ok(()) };
    Err(Error::Device { device: load.url, problem: format!("no request went well: {error}"), hint: String::new() })
}

fn show(record: &ServeRecord) -> Result<()> {
    let requests = plural(record.completed, "request");
    tell(format_args!("{}: {requests} in {:.2} s, {} failed", record.model_id, record.duration, record.failed))?;
    for (error, count) in &record.error_counts {
        tell(format_args!("  {count} times: {error}"))?;
    }
    tell(format_args!("  images/s      {:.4}", record.images_per_second))?;
    tell(format_args!(
        "  requests/s    {:.4}, {} under way at most",
        record.request_throughput, record.max_concurrent_requests
    ))?;
    if let Some(goodput) = record.request_goodput {
        tell(format_args!("  good ones/s   {goodput:.4}"))?;
    }
    tell(format_args!("  tokens/s      {:.1}", record.output_throughput))?;
    let times = [
        ("e2el", "latency"),
        ("engine", "engine"),
        ("over_engine", "beyond it"),
        ("ttft", "first event"),
        ("tpot", "per token"),
        ("itl", "event gap"),
    ];
    for (name, what) in times {
        let Some(median) = record.metrics.get(&format!("median_{name}_ms")) else { continue };
        let of = |which: &str| record.metrics[&format!("{which}_{name}_ms")];
        let (mean, p99) = (of("mean"), of("p99"));
        tell(format_args!("  {what:<13} {median:.1} ms (mean {mean:.1}, 99 % below {p99:.1})"))?;
    }
    Ok(())
}
