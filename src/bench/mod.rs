//! Measurements against the floor: what a step, a decode or a text takes beside what its bytes must take.
//!
//! Weights are random and of the released models' shapes: time does not depend on their values. Bandwidth
//! is measured in the same rounds as the work, so that both see the machine in the same state.

mod bandwidth;
mod step;
mod text;
mod vq;

pub use bandwidth::ReadBandwidth;
pub use step::{StepBench, StepReport};
pub use text::{TextBench, TextReport};
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
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}
