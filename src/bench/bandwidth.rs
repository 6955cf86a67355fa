//! How fast all cores together read memory.

use std::hint::black_box;
use std::time::Instant;

use memmap2::MmapMut;

use crate::Result;
use crate::backend::cpu::memory::pages;
use crate::backend::cpu::simd::{self, prefetch_near};

/// Words of a cache line.
const LINE: usize = simd::LINE / size_of::<u64>();

/// An array far larger than most caches, and the threads that read it.
pub struct ReadBandwidth {
    /// Of words; in pages as a plan's.
    array: MmapMut,
    threads: usize,
}

impl ReadBandwidth {
    /// Bytes of the array, and about what one pass reads.
    pub const BYTES: usize = 512 << 20;

    /// With `threads` threads; one per core for 0.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        Self::of(Self::BYTES, threads)
    }

    fn of(bytes: usize, threads: usize) -> Result<Self> {
        let mut array = pages(bytes)?;
        // Ones, not zeros: untouched zero pages would all be the same page.
        array.fill(1);
        Ok(Self { array, threads })
    }

    /// Bytes per second, reading `bytes` again and again, at most the whole array: what fits a cache comes from there, as
    /// it does in work of that size. The best of some passes, as a core that is lent to others for a moment says nothing
    /// of the memory.
    ///
    /// One stream per thread is fastest on some processors, several on others, on some line by line when lines are asked
    /// for ahead.
    pub fn measure(&self, bytes: u64) -> f64 {
        let passes = [1, 4, 8].map(|streams| self.pass::<{ 4 * LINE }, 0>(bytes, streams));
        passes.into_iter().fold(self.pass::<LINE, { 4 * LINE }>(bytes, 16), f64::max)
    }

    /// By streams side by side, of which `BLOCK` words are read at a time, asked for `AHEAD` words before; not at all for 0.
    fn pass<const BLOCK: usize, const AHEAD: usize>(&self, bytes: u64, streams: usize) -> f64 {
        let words: &[u64] = bytemuck::cast_slice(&self.array);
        // Every thread's streams are of whole blocks, of an odd number: they do not meet in one set of a cache.
        let most = words.len() / self.threads;
        let part = usize::try_from(bytes / 8).unwrap_or(most) / self.threads;
        let stream = (((part.min(most) / streams / BLOCK).max(1) - 1) | 1) * BLOCK;
        let part = stream * streams;
        let times = (most / part).max(1);
        let read_all = |times| {
            std::thread::scope(|scope| {
                for part in words.chunks_exact(part).take(self.threads) {
                    scope.spawn(move || (0..times).for_each(|_| read::<BLOCK, AHEAD>(black_box(part), stream)));
                }
            });
        };
        // What a cache holds is there from the second time on.
        read_all(1);
        let started = Instant::now();
        read_all(times);
        (times * part * self.threads * 8) as f64 / started.elapsed().as_secs_f64()
    }
}

/// Reads all of `part`, streams of `stream` words side by side.
fn read<const BLOCK: usize, const AHEAD: usize>(part: &[u64], stream: usize) {
    let mut sums = [0u64; BLOCK];
    for at in (0..stream).step_by(BLOCK) {
        for stream in part.chunks_exact(stream) {
            if AHEAD > 0 {
                prefetch_near(stream.as_ptr().wrapping_add(at + AHEAD));
            }
            for (sum, word) in sums.iter_mut().zip(&stream[at..at + BLOCK]) {
                *sum = sum.wrapping_add(*word);
            }
        }
    }
    black_box(sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_bytes_can_be_read() {
        let bandwidth = ReadBandwidth::of(8 << 16, 2).unwrap();
        for bytes in [0, 1, 5000, 1 << 19, u64::MAX] {
            let measured = bandwidth.measure(bytes);
            assert!(measured.is_finite() && measured > 0.0, "{bytes} bytes at {measured}");
        }
    }
}
