//! What a load measured, under the keys of `vllm bench serve`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Outcome, Reply, ServeLoad};
use crate::bench::Latency;
use crate::bench::records::percentile;

/// A line of `smalti bench serve --json`. Times in seconds where the key does not say milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct ServeRecord {
    /// YYYYmmdd-HHMMSS, UTC.
    pub date: String,
    pub endpoint_type: &'static str,
    pub backend: &'static str,
    pub label: Option<String>,
    pub model_id: String,
    /// The model's: pictures have no other.
    pub tokenizer_id: String,
    pub num_prompts: usize,
    /// Requests per second, or "inf".
    pub request_rate: serde_json::Value,
    pub burstiness: f64,
    pub max_concurrency: Option<usize>,
    pub duration: f64,
    pub completed: usize,
    pub failed: usize,
    pub total_input_tokens: u64,
    pub total_output_tokens: u64,
    pub request_throughput: f64,
    /// Requests per second that met all goals, where there are any.
    pub request_goodput: Option<f64>,
    pub output_throughput: f64,
    pub total_token_throughput: f64,
    pub max_concurrent_requests: usize,
    pub images_per_second: f64,
    /// `mean_ttft_ms`, `median_ttft_ms`, `std_ttft_ms`, `p99_ttft_ms`; the same of `tpot`, `itl` and `e2el`, and of
    /// `engine` and `over_engine`: the server's own time, and what came on top. Where there is anything to tell.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// What requests failed of, and how many of each.
    pub error_counts: BTreeMap<String, usize>,
    /// Request by request in the order of their beginning, as all lists below: empty where it went well; where it did
    /// not, the others have 0 or nothing.
    pub errors: Vec<String>,
    pub latencies: Vec<f64>,
    pub ttfts: Vec<f64>,
    /// From one event of a streamed reply to the next.
    pub itls: Vec<Vec<f64>>,
    pub start_times: Vec<f64>,
    pub input_lens: Vec<u64>,
    pub output_lens: Vec<u64>,
    /// In the server's queue; `None` where its reply does not tell.
    pub queue_times: Vec<Option<f64>>,
}

impl ServeRecord {
    pub(super) fn new(load: &ServeLoad, model_id: String, duration: f64, most: usize, outcomes: &[Outcome]) -> Self {
        let done: Vec<_> = outcomes.iter().filter_map(|o| o.reply.as_ref().ok().map(|reply| (o, reply))).collect();
        let mut error_counts = BTreeMap::new();
        for error in outcomes.iter().filter_map(|outcome| outcome.reply.as_ref().err()) {
            *error_counts.entry(error.clone()).or_default() += 1;
        }
        let gaps = |reply: &Reply| reply.events.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<f64>>();
        let latencies: Vec<f64> = done.iter().map(|(outcome, _)| outcome.latency).collect();
        let ttfts: Vec<f64> = done.iter().map(|(_, reply)| reply.events[0]).collect();
        let tpots = done.iter().filter_map(|(outcome, reply)| reply.seconds_per_token(outcome.latency));
        let itls = done.iter().flat_map(|(_, reply)| gaps(reply));
        let mut metrics = BTreeMap::new();
        for (name, values) in [("ttft", ttfts), ("tpot", tpots.collect()), ("itl", itls.collect()), ("e2el", latencies)]
        {
            add_metric(&mut metrics, name, values);
        }
        // What the client waited beyond: parsing, packing pictures, the connection.
        let engine = done.iter().filter_map(|(_, reply)| reply.engine).collect();
        let beyond = done.iter().filter_map(|(outcome, reply)| Some(outcome.latency - reply.engine?)).collect();
        add_metric(&mut metrics, "engine", engine);
        add_metric(&mut metrics, "over_engine", beyond);
        let input = done.iter().map(|(_, reply)| reply.input_tokens).sum::<u64>();
        let output = done.iter().map(|(_, reply)| reply.output_tokens).sum::<u64>();
        let images = done.iter().map(|(_, reply)| reply.images).sum::<usize>();
        let good = outcomes.iter().filter(|outcome| load.goodput.iter().all(|goal| goal.met(outcome))).count();
        let rate = load.request_rate;
        Self {
            date: date(SystemTime::now()),
            endpoint_type: "openai-images",
            backend: "openai-images",
            label: load.label.clone(),
            tokenizer_id: model_id.clone(),
            model_id,
            num_prompts: load.requests,
            request_rate: if rate.is_finite() { rate.into() } else { "inf".into() },
            burstiness: 1.0,
            max_concurrency: load.max_concurrency,
            duration,
            completed: done.len(),
            failed: outcomes.len() - done.len(),
            total_input_tokens: input,
            total_output_tokens: output,
            request_throughput: done.len() as f64 / duration,
            request_goodput: (!load.goodput.is_empty()).then(|| good as f64 / duration),
            output_throughput: output as f64 / duration,
            total_token_throughput: (input + output) as f64 / duration,
            max_concurrent_requests: most,
            images_per_second: images as f64 / duration,
            metrics,
            error_counts,
            errors: outcomes.iter().map(|outcome| outcome.reply.as_ref().err().cloned().unwrap_or_default()).collect(),
            latencies: of_replies(outcomes, |outcome, _| outcome.latency),
            ttfts: of_replies(outcomes, |_, reply| reply.events[0]),
            itls: of_replies(outcomes, |_, reply| gaps(reply)),
            start_times: outcomes.iter().map(|outcome| outcome.started).collect(),
            input_lens: of_replies(outcomes, |_, reply| reply.input_tokens),
            output_lens: of_replies(outcomes, |_, reply| reply.output_tokens),
            queue_times: of_replies(outcomes, |_, reply| reply.queued),
        }
    }
}

/// Something of every reply, and nothing of requests that failed.
fn of_replies<T: Default>(outcomes: &[Outcome], of: impl Fn(&Outcome, &Reply) -> T) -> Vec<T> {
    let told = |outcome: &Outcome| outcome.reply.as_ref().map_or_else(|_| T::default(), |reply| of(outcome, reply));
    outcomes.iter().map(told).collect()
}

fn add_metric(metrics: &mut BTreeMap<String, f64>, name: &str, seconds: Vec<f64>) {
    if seconds.is_empty() {
        return;
    }
    let latency = Latency::of(seconds);
    let p99 = percentile(&latency.latencies, 99.0);
    for (what, value) in
        [("mean", latency.avg_latency), ("median", latency.median()), ("std", latency.std_latency), ("p99", p99)]
    {
        metrics.insert(format!("{what}_{name}_ms"), 1e3 * value);
    }
}

/// YYYYmmdd-HHMMSS, UTC.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}{:02}{:02}-{hour:02}{minute:02}{:02}", month + 1, days + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101-000000");
        assert_eq!(at(951_827_696), "20000229-123456");
        assert_eq!(at(1_798_761_599), "20261231-235959");
    }
}
