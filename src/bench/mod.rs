//! Measurements beside what the hardware must take: whole generations, single ops, and a server from outside.
//!
//! Without a checkpoint weights are random and of the released models' shapes: time does not depend on their values.
//! Bandwidth and arithmetic rate are measured in the same rounds as the work, so that both see the machine in the
//! same state. What is measured is serializable, under the names that vLLM's benchmarks use where these have them,
//! so that one reader takes both.
//!
//! ```
//! use smalti::bench::Spread;
//!
//! let spread = Spread::of(vec![0.3, 0.1, 0.2]);
//! assert_eq!((spread.min, spread.median, spread.max), (0.1, 0.2, 0.3));
//! ```

mod bandwidth;
mod generation;
mod halfway;
mod kernels;
mod memory;
mod meter;
pub mod plot;
mod records;
pub mod serve;
mod step;
mod text;
mod throughput;
mod vq;

pub use bandwidth::ReadBandwidth;
pub use generation::{GenerationBench, Run, random_model};
pub use kernels::{KernelReport, KernelsBench, Part};
pub use memory::PeakMemory;
pub use meter::{Floor, Meter, Rates};
pub use records::{About, Latency, LatencyRecord, ThroughputRecord};
pub use step::{StepBench, StepReport};
pub use text::{TextBench, TextReport};
pub use throughput::throughput;
pub use vq::{VqBench, VqReport};

/// Smallest, median and largest of some times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: Vec<f64>) -> Self {
        let [min, median, max] = [0.0, 50.0, 100.0].map(|p| records::percentile(&values, p));
        Self { min, median, max }
    }
}
