//! Figures in Prometheus' text format: requests counted here, the engine's own as of the moment of asking.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::{Model, Session, Stats, Timings};
use crate::process;

/// Upper ends of the buckets, in seconds.
const BUCKETS: [f64; 20] =
    [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 600.0];

/// What was counted.
#[derive(Default)]
pub struct Metrics(Mutex<Counts>);

/// What a request that went well adds.
pub struct Counted {
    pub images: usize,
    /// Condition tokens.
    pub prompt_tokens: usize,
    /// Codes of its pictures.
    pub generation_tokens: usize,
    /// Its pictures are from prompts.
    pub text: bool,
}

#[derive(Default)]
struct Counts {
    under_way: usize,
    requests: BTreeMap<&'static str, u64>,
    images: u64,
    prompt_tokens: u64,
    generation_tokens: u64,
    latency: Histogram,
    queue: Histogram,
    first_token: Histogram,
    stages: BTreeMap<&'static str, Histogram>,
}

#[derive(Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        if let Some(at) = BUCKETS.iter().position(|&end| seconds <= end) {
            self.counts[at] += 1;
        }
    }

    /// `labels` end with a comma where there are any.
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let mut below = 0;
        for (end, count) in BUCKETS.iter().zip(self.counts) {
            below += count;
            line(out, &format!("{name}_bucket{{{labels}le=\"{end}\"}}"), below as f64);
        }
        line(out, &format!("{name}_bucket{{{labels}le=\"+Inf\"}}"), self.count as f64);
        let labels = labels.trim_end_matches(',');
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        line(out, &format!("{name}_sum{braces}"), self.sum);
        line(out, &format!("{name}_count{braces}"), self.count as f64);
    }
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came.
    pub fn begin(&self) {
        self.lock().under_way += 1;
    }

    /// A request ended; `status` says how.
    pub fn end(&self, status: &'static str) {
        let mut counts = self.lock();
        counts.under_way -= 1;
        *counts.requests.entry(status).or_default() += 1;
    }

    /// A request's pictures were made, `latency` after it came.
    pub fn observe_request(&self, latency: Duration, timings: &Timings, counted: Counted) {
        let mut counts = self.lock();
        counts.images += counted.images as u64;
        counts.prompt_tokens += counted.prompt_tokens as u64;
        counts.generation_tokens += counted.generation_tokens as u64;
        counts.latency.observe(latency);
        counts.queue.observe(timings.queued);
        counts.first_token.observe(timings.first_token);
        counts.stages.entry("decode").or_default().observe(timings.drawing);
        counts.stages.entry("vq_decode").or_default().observe(timings.painting);
        if counted.text {
            counts.stages.entry("text_encode").or_default().observe(timings.encoding);
        }
    }

    /// A picture was packed as a PNG.
    pub fn observe_packing(&self, time: Duration) {
        self.lock().stages.entry("image_encode").or_default().observe(time);
    }

    /// Requests that are being answered.
    pub fn under_way(&self) -> usize {
        self.lock().under_way
    }

    /// How long a request took on average, as a whole number to wait.
    pub fn typical_seconds(&self) -> u64 {
        let counts = self.lock();
        let mean = counts.latency.sum / counts.latency.count.max(1) as f64;
        (mean.ceil() as u64).clamp(1, 30)
    }

    /// All of it, with what the engine tells.
    pub fn text(&self, model: &Model, stats: &Stats, session: Option<&Session>) -> String {
        let counts = self.lock();
        let mut out = String::new();
        let task = if model.num_classes().is_some() { "c2i" } else { "t2i" };
        let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("SMALTI_COMMIT"));
        let mut figure = |name: &str, kind: &str, help: &str, labels: &str, value: f64| {
            head(&mut out, name, kind, help);
            line(&mut out, &format!("{name}{labels}"), value);
        };
        let (backend, device) = session.map_or(("", ""), |session| (session.backend(), session.device()));
        let device: String = device.chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect();
        let build = format!("{{version=\"{version}\",commit=\"{commit}\",backend=\"{backend}\",device=\"{device}\"}}");
        figure("smalti_build_info", "gauge", "The build and its device.", &build, 1.0);
        if let Some(bytes) = session.and_then(Session::device_memory) {
            let models = "{kind=\"models\"}";
            figure(
                "smalti_device_memory_bytes",
                "gauge",
                "The device's memory, by what took it.",
                models,
                bytes as f64,
            );
        }
        if let Some(bytes) = process::memory("VmRSS") {
            figure("process_resident_memory_bytes", "gauge", "The process's resident memory.", "", bytes as f64);
        }
        figure("smalti_requests_running", "gauge", "Requests that are drawn or painted.", "", stats.running as f64);
        figure("smalti_requests_waiting", "gauge", "Requests in the queue.", "", stats.waiting as f64);
        let share = stats.places_taken as f64 / stats.places.max(1) as f64;
        figure("smalti_kv_cache_usage_ratio", "gauge", "Places that hold a picture.", "", share);
        figure("smalti_batch_size", "gauge", "Pictures that are drawn at once.", "", stats.places_taken as f64);
        let of_task = format!("{{task=\"{task}\"}}");
        figure("smalti_images_total", "counter", "Pictures handed out.", &of_task, counts.images as f64);
        let prompt_tokens = counts.prompt_tokens as f64;
        figure("smalti_prompt_tokens_total", "counter", "Condition tokens.", "", prompt_tokens);
        let tokens = counts.generation_tokens as f64;
        figure("smalti_generation_tokens_total", "counter", "Codes of pictures handed out.", "", tokens);
        let rounds = stats.rounds as f64;
        figure("smalti_engine_rounds_total", "counter", "Rounds of steps.", "", rounds);
        let previews = stats.previews as f64;
        figure("smalti_previews_total", "counter", "Previews painted.", "", previews);

        let name = "smalti_engine_seconds_total";
        head(&mut out, name, "counter", "The engine's busy time, by what had it.");
        let models = stats.encoding + stats.drawing + stats.painting;
        let stages = [
            ("text_encode", stats.encoding),
            ("decode", stats.drawing),
            ("vq_decode", stats.painting),
            ("other", stats.busy.saturating_sub(models)),
        ];
        for (stage, time) in stages {
            line(&mut out, &format!("{name}{{stage=\"{stage}\"}}"), time.as_secs_f64());
        }
        let name = "smalti_requests_total";
        head(&mut out, name, "counter", "Requests that ended, by how.");
        for status in ["ok", "busy", "cancelled", "deadline", "failed", "invalid"] {
            let count = counts.requests.get(status).copied().unwrap_or_default();
            line(&mut out, &format!("{name}{{task=\"{task}\",status=\"{status}\"}}"), count as f64);
        }
        for (name, help, histogram) in [
            ("smalti_e2e_request_latency_seconds", "From request to reply, of those that went well.", &counts.latency),
            ("smalti_request_queue_time_seconds", "Until the request left the queue.", &counts.queue),
            ("smalti_time_to_first_token_seconds", "Until the first code was drawn.", &counts.first_token),
        ] {
            head(&mut out, name, "histogram", help);
            histogram.write(name, "", &mut out);
        }
        let name = "smalti_stage_seconds";
        head(&mut out, name, "histogram", "A request's time by stage.");
        for (stage, histogram) in &counts.stages {
            histogram.write(name, &format!("stage=\"{stage}\","), &mut out);
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("memory");
}

fn line(out: &mut String, name: &str, value: f64) {
    writeln!(out, "{name} {value}").expect("memory");
}
