//! Many pictures through one session, as fast as they go: each painted as soon as it is drawn.

use std::time::Instant;

use super::{About, PeakMemory, ThroughputRecord};
use crate::Result;
use crate::backend::Executor;
use crate::config::Sampling;
use crate::generate::{Conditioning, Generator, Layout, Model, generate_each, requests};

/// Draws and paints `layout.images` pictures of some conditions in turn, `layout.batch_size` at once, `rounds` times after a batch that does not count.
pub fn throughput(
    executor: &dyn Executor,
    model: &Model,
    layout: &Layout,
    (conditions, sampling): (&[Conditioning], Sampling),
    peak: &PeakMemory,
    about: About,
    rounds: usize,
) -> Result<ThroughputRecord> {
    let mut generator = Generator::new(executor, model, layout)?;
    let conditions: Vec<_> = conditions.iter().cycle().take(layout.images).cloned().collect();
    let requests = requests(&conditions, 1, 0, sampling);
    let (session, painter) = generator.parts();
    let tokens = session.tokens();
    let mut run = |images: usize| {
        let started = Instant::now();
        let paint = |_, codes: Vec<u32>| painter.paint(&codes).map(|picture| drop(std::hint::black_box(picture)));
        generate_each(session, &requests[..images], paint, |_| true)?;
        Ok(started.elapsed().as_secs_f64())
    };
    run(about.batch_size.min(layout.images))?;
    let times = (0..rounds.max(1)).map(|_| run(layout.images)).collect::<Result<Vec<f64>>>()?;
    Ok(ThroughputRecord::new(about, times, (layout.images, tokens), peak.bytes(executor)))
}
