//! How fast all cores together read memory.

use std::hint::black_box;
use std::time::Instant;

/// Passes of a measurement.
const PASSES: usize = 3;

/// Places that a thread reads from in turn, and words that it takes from each: two cache lines.
const STREAMS: usize = 8;
const LINE: usize = 16;

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
                scope.spawn(move || black_box(sum(part)));
            }
        });
        Self::BYTES as f64 / started.elapsed().as_secs_f64()
    }
}

/// The sum of all words but the last few, read from several places at once, as matrices' rows are: a core fetches ahead
/// of each.
fn sum(words: &[u64]) -> u64 {
    let streams: Vec<&[u64]> = words.chunks_exact(words.len() / STREAMS).take(STREAMS).collect();
    let mut sums = [0u64; LINE];
    for start in (0..streams[0].len() / LINE * LINE).step_by(LINE) {
        for stream in &streams {
            for (sum, word) in sums.iter_mut().zip(&stream[start..start + LINE]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
