//! What the machine can do right now, and the time that a piece of work must take at that.

use serde::Serialize;

use super::ReadBandwidth;
use crate::Result;
use crate::backend::Executor;
use crate::graph::{Cost, Elem};

/// Measures bandwidth and arithmetic rate of the device that an executor runs on.
pub struct Meter<'a> {
    executor: &'a dyn Executor,
    /// Where the device's memory is the host's.
    host: Option<ReadBandwidth>,
}

/// What a device reaches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Floating-point operations per second; a multiply-add counts as two. `None` where nothing measures it.
    pub arithmetic: Option<f64>,
}

/// Bytes and operations of a piece of work, and the time that they take at some rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Floor {
    pub bytes: u64,
    pub flops: u64,
    #[serde(flatten)]
    pub rates: Rates,
    /// The longer of both times.
    pub floor_seconds: f64,
}

impl<'a> Meter<'a> {
    /// `threads` are those that read the host's memory; one per core for 0.
    pub fn new(executor: &'a dyn Executor, threads: usize) -> Result<Self> {
        let host = executor.copy_bandwidth()?.is_none().then(|| ReadBandwidth::new(threads)).transpose()?;
        Ok(Self { executor, host })
    }

    /// Bytes of the host's memory that measuring takes.
    pub fn bytes(&self) -> u64 {
        if self.host.is_some() { ReadBandwidth::BYTES as u64 } else { 0 }
    }

    /// How bandwidth is measured.
    pub fn how(&self) -> &'static str {
        if self.host.is_some() { "read by all threads" } else { "copied by the device" }
    }

    /// Bytes per second, measured now, for work that goes through `bytes` again and again: where they fit the host's
    /// caches, these give them.
    pub fn bandwidth(&self, bytes: u64) -> Result<f64> {
        match &self.host {
            Some(host) => Ok(host.measure(bytes)),
            None => Ok(self.executor.copy_bandwidth()?.expect("it was measured before")),
        }
    }

    /// Both rates, measured now: bandwidth as [`Meter::bandwidth`], arithmetic on factors of `precision`.
    pub fn rates(&self, precision: Elem, bytes: u64) -> Result<Rates> {
        Ok(Rates { bandwidth: self.bandwidth(bytes)?, arithmetic: self.executor.arithmetic_rate(precision)? })
    }
}

impl Rates {
    /// The mean of two measurements, one before and one after some work.
    pub fn mean(self, other: Self) -> Self {
        Self {
            bandwidth: (self.bandwidth + other.bandwidth) / 2.0,
            arithmetic: self.arithmetic.zip(other.arithmetic).map(|(a, b)| (a + b) / 2.0),
        }
    }

    /// The time that work of such a cost takes at these rates.
    pub fn floor(self, cost: &Cost) -> Floor {
        let bytes_seconds = cost.bytes() as f64 / self.bandwidth;
        let flops_seconds = self.arithmetic.map_or(0.0, |rate| cost.flops as f64 / rate);
        let floor_seconds = bytes_seconds.max(flops_seconds);
        Floor { bytes: cost.bytes(), flops: cost.flops, rates: self, floor_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_both_times_is_the_floor() {
        let cost = |flops| Cost { weight_bytes: 600, activation_bytes: 400, flops, ..Cost::default() };
        let rates = Rates { bandwidth: 100.0, arithmetic: Some(10.0) };
        assert_eq!(rates.floor(&cost(50)).floor_seconds, 10.0);
        assert_eq!(rates.floor(&cost(500)).floor_seconds, 50.0);
        let unmeasured = Rates { arithmetic: None, ..rates };
        assert_eq!(unmeasured.floor(&cost(500)).floor_seconds, 10.0);
        assert_eq!(rates.mean(Rates { bandwidth: 300.0, arithmetic: Some(30.0) }).bandwidth, 200.0);
        assert_eq!(rates.mean(unmeasured).arithmetic, None);
    }
}
