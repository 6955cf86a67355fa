//! What generations measured, under vLLM's key names where its benchmarks have them, and ours beside these.
//!
//! Tokens are those of pictures: the copy that guidance computes beside each is not counted, see `cfg_rows`. vLLM, which
//! is given both as sequences of their own, counts both: compare `images_per_second`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Floor, Run, Spread};
use crate::generate::{Lookahead, Passes};

/// What was measured, and on what.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Program and version.
    pub engine: String,
    pub commit: String,
    /// GPT-B, or the checkpoint's name.
    pub model: String,
    pub device: String,
    /// What the transformer's weights and cache are held as.
    pub dtype: &'static str,
    /// What the VQ decoder multiplies.
    pub vq_dtype: &'static str,
    pub image_size: usize,
    /// Pictures at once.
    pub batch_size: usize,
    /// 1 without guidance.
    pub cfg_scale: f32,
    /// Rows of a guided step.
    pub cfg_rows: usize,
    pub top_k: u32,
    /// Rows of a pass per sequence: `auto`, or 1 for a token after the other.
    #[serde(serialize_with = "as_text")]
    pub lookahead: Lookahead,
}

fn as_text<S: Serializer>(lookahead: &Lookahead, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(lookahead)
}

/// Some latencies and their statistics, in seconds, as `vllm bench latency` writes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub avg_latency: f64,
    pub std_latency: f64,
    pub latencies: Vec<f64>,
    /// By 10, 25, 50, 75, 90 and 99.
    pub percentiles: BTreeMap<u8, f64>,
}

impl Latency {
    /// Of at least one.
    pub fn of(latencies: Vec<f64>) -> Self {
        let count = latencies.len() as f64;
        let mean = latencies.iter().sum::<f64>() / count;
        let variance = latencies.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let percentiles = [10, 25, 50, 75, 90, 99].map(|p| (p, percentile(&latencies, f64::from(p))));
        Self { avg_latency: mean, std_latency: variance.sqrt(), percentiles: percentiles.into(), latencies }
    }

    pub fn median(&self) -> f64 {
        self.percentiles[&50]
    }
}

/// The value below which `p` percent of some lie, between two neighbours in proportion, as NumPy has it.
pub(super) fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = p / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// A line of `smalti bench latency --json`.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyRecord {
    #[serde(flatten)]
    pub about: About,
    #[serde(flatten)]
    pub latency: Latency,
    /// Tokens of a picture.
    pub tokens: usize,
    pub images_per_second: f64,
    /// Without painting: what PyTorch and vLLM are measured by in `benches/baselines`.
    pub drawn_images_per_second: f64,
    pub time_per_image_ms: f64,
    /// Of all pictures together, over the time in which they were drawn.
    pub tokens_per_second: f64,
    /// Until every picture had its first token.
    pub ttft_ms: Spread,
    /// A pass of the transformer: from the first token to the last, divided by the passes between.
    pub ms_per_step: Spread,
    /// The decoding of a picture's codes to pixels: a batch's, divided by its pictures.
    pub vq_decode_ms: Spread,
    /// A picture with a pass per token, from the same rounds; where passes look ahead.
    pub one_by_one_ms: Option<Spread>,
    /// Passes of the transformer per picture: as many as tokens where each is drawn by one of its own.
    pub passes_per_image: f64,
    /// By position in the window from 1 on: the share of right guesses among those before which all were right.
    pub acceptance: Vec<Option<f64>>,
    pub peak_memory_bytes: Option<u64>,
    /// Of a pass with one row per sequence: the median of the runs' own floors.
    pub step: Floor,
    /// Time of a pass over that floor, run by run.
    pub times_floor: Spread,
}

impl LatencyRecord {
    /// From runs and the floors of their steps, in the same order.
    pub(super) fn new(
        about: About,
        latency: Latency,
        tokens: usize,
        runs: &[Run],
        floors: &[Floor],
        peak_memory_bytes: Option<u64>,
    ) -> Self {
        let images = about.batch_size as f64;
        let passes = |run: &Run| run.passes.windows() as f64 / images;
        // A class model's first token takes a pass, too, a text model's is the prefill's.
        let before = |run: &Run| run.passes.tokens() as f64 / images - (tokens - 1) as f64;
        let step = |run: &Run| (run.codes - run.first_token) / (passes(run) - before(run)).max(1.0);
        let spread = |f: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(f).collect());
        let median = latency.median();
        let mut by_floor: Vec<Floor> = floors.to_vec();
        by_floor.sort_by(|a, b| a.floor_seconds.total_cmp(&b.floor_seconds));
        let times_floor = runs.iter().zip(floors).map(|(run, floor)| step(run) / floor.floor_seconds).collect();
        Self {
            tokens,
            images_per_second: images / median,
            drawn_images_per_second: images / spread(&|run| run.codes).median,
            time_per_image_ms: 1e3 * median / images,
            tokens_per_second: images * tokens as f64 / spread(&|run| run.codes).median,
            ttft_ms: spread(&|run| 1e3 * run.first_token),
            ms_per_step: spread(&|run| 1e3 * step(run)),
            vq_decode_ms: spread(&|run| 1e3 * (run.pictures - run.codes) / images),
            one_by_one_ms: None,
            passes_per_image: runs.iter().map(passes).sum::<f64>() / runs.len() as f64,
            acceptance: acceptance(runs),
            peak_memory_bytes,
            step: by_floor[by_floor.len() / 2],
            times_floor: Spread::of(times_floor),
            latency,
            about,
        }
    }
}

/// Of all runs together.
fn acceptance(runs: &[Run]) -> Vec<Option<f64>> {
    let mut all = Passes::default();
    runs.iter().for_each(|run| all.add(&run.passes));
    all.acceptance()
}

/// A line of `smalti bench throughput --json`.
#[derive(Clone, Debug, Serialize)]
pub struct ThroughputRecord {
    #[serde(flatten)]
    pub about: About,
    /// Seconds of the median run.
    pub elapsed_time: f64,
    pub elapsed_times: Vec<f64>,
    /// Pictures of a run.
    pub num_requests: usize,
    /// Tokens of a run, the conditions' included: one for a class, the valid ones of a text.
    pub total_num_tokens: usize,
    pub requests_per_second: f64,
    /// Of all tokens, as vLLM counts them.
    pub tokens_per_second: f64,
    pub output_tokens_per_second: f64,
    pub images_per_second: f64,
    pub peak_memory_bytes: Option<u64>,
    /// Of one batch by itself, as [`LatencyRecord`] tells them.
    pub ttft_ms: Spread,
    pub ms_per_step: Spread,
    pub vq_decode_ms: Spread,
    pub passes_per_image: f64,
    pub step: Floor,
    pub times_floor: Spread,
}

impl ThroughputRecord {
    /// From the seconds of some runs of `images` pictures with as many condition tokens in all, and what one batch told.
    pub(super) fn new(
        batch: LatencyRecord,
        elapsed_times: Vec<f64>,
        (images, condition_tokens): (usize, usize),
        peak_memory_bytes: Option<u64>,
    ) -> Self {
        let output_tokens = images * batch.tokens;
        let elapsed_time = percentile(&elapsed_times, 50.0);
        let per_second = |count: usize| count as f64 / elapsed_time;
        Self {
            about: batch.about,
            elapsed_time,
            num_requests: images,
            total_num_tokens: condition_tokens + output_tokens,
            requests_per_second: per_second(images),
            tokens_per_second: per_second(condition_tokens + output_tokens),
            output_tokens_per_second: per_second(output_tokens),
            images_per_second: per_second(images),
            elapsed_times,
            peak_memory_bytes,
            ttft_ms: batch.ttft_ms,
            ms_per_step: batch.ms_per_step,
            vq_decode_ms: batch.vq_decode_ms,
            passes_per_image: batch.passes_per_image,
            step: batch.step,
            times_floor: batch.times_floor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        let latency = Latency::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((latency.avg_latency, latency.median()), (2.5, 2.5));
        assert_eq!(latency.std_latency, 1.25f64.sqrt());
        assert!((latency.percentiles[&90] - 3.7).abs() < 1e-12);
        assert!((latency.percentiles[&10] - 1.3).abs() < 1e-12);
    }
}
