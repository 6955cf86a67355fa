//! What an op moves and computes: the floor of a plan is printed beside its measured time.

use super::Extent;

/// What a run carries, as far as cost depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub extent: Extent,
    /// Cache rows that attention reads per row of the step, on average.
    pub keys: usize,
}

/// Bytes and floating-point operations. A multiply-add counts as two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Weights, each read once per run.
    pub weight_bytes: u64,
    /// Cache rows read and written.
    pub cache_bytes: u64,
    /// Activations read and written.
    pub activation_bytes: u64,
    pub flops: u64,
}

impl Cost {
    /// Everything that crosses the memory bus at least once.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.cache_bytes + self.activation_bytes
    }
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            activation_bytes: self.activation_bytes + other.activation_bytes,
            flops: self.flops + other.flops,
        }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| sum + cost)
    }
}
