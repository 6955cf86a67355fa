//! Many pictures through one session, as fast as they go: each painted as soon as it is drawn.

use std::time::Instant;

use super::{About, GenerationBench, Meter, PeakMemory, ThroughputRecord};
use crate::Result;
use crate::backend::Executor;
use crate::config::Sampling;
use crate::generate::{Conditioning, Layout, Model, generate_each, requests};

/// Draws and paints `layout.images` pictures of some conditions in turn, `about.batch_size` at once, `rounds` times.
/// Batches by themselves come first: one that does not count, and one that [`GenerationBench::report`] times.
pub fn throughput(
    executor: &dyn Executor,
    model: &Model,
    layout: &Layout,
    (conditions, sampling): (&[Conditioning], Sampling),
    (meter, peak): (&Meter<'_>, &PeakMemory),
    about: About,
    rounds: usize,
) -> Result<ThroughputRecord> {
    let one_batch = Layout { images: about.batch_size, ..*layout };
    let mut batch = GenerationBench::new(executor, model, &one_batch, conditions, sampling)?;
    let latency = batch.report(executor, meter, peak, about, (1, rounds.max(1)))?;
    let conditions: Vec<_> = conditions.iter().cycle().take(layout.images).cloned().collect();
    let requests = requests(&conditions, 1, 0, sampling);
    let (session, painter) = batch.parts();
    let together = painter.together();
    let mut run = || {
        let started = Instant::now();
        let paint = |drawn: Vec<(usize, Vec<u32>)>| {
            let codes: Vec<Vec<u32>> = drawn.into_iter().map(|(_, codes)| codes).collect();
            painter.paint_all(&codes).map(|pictures| drop(std::hint::black_box(pictures)))
        };
        generate_each(session, &requests, together, paint, |_| true)?;
        Ok(started.elapsed().as_secs_f64())
    };
    let times = (0..rounds.max(1)).map(|_| run()).collect::<Result<Vec<f64>>>()?;
    let peak_bytes = peak.bytes(executor).map(|bytes| bytes.saturating_sub(meter.bytes()));
    let condition_tokens = requests.iter().map(|request| request.condition.tokens()).sum();
    Ok(ThroughputRecord::new(latency, times, (layout.images, condition_tokens), peak_bytes))
}
