//! How fast all cores together read memory.

use std::hint::black_box;
use std::time::Instant;

/// Passes of a measurement.
const PASSES: usize = 3;

/// An array far larger than any cache, and the threads that read it.
pub struct ReadBandwidth {
    words: Vec<u64>,
    threads: usize,
}

impl ReadBandwidth {
    /// Bytes that one pass reads.
    pub const BYTES: usize = 512 << 20;

    /// With `threads` threads; one per core for 0.
    pub fn new(threads: usize) -> Self {
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        // Ones, not zeros: untouched zero pages would all be the same page.
        Self { words: vec![1; Self::BYTES / 8], threads }
    }

    /// Bytes per second: the best of some passes over the array, as a core that is lent to others for a moment says
    /// nothing of the memory.
    pub fn measure(&self) -> f64 {
        (0..PASSES).map(|_| self.pass()).fold(0.0, f64::max)
    }

    fn pass(&self) -> f64 {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in self.words.chunks_exact(self.words.len() / self.threads) {
                scope.spawn(move || {
                    let mut sums = [0u64; 32];
                    for line in part.chunks_exact(32) {
                        for (sum, word) in sums.iter_mut().zip(line) {
                            *sum = sum.wrapping_add(*word);
                        }
                    }
                    black_box(sums);
                });
            }
        });
        Self::BYTES as f64 / started.elapsed().as_secs_f64()
    }
}
