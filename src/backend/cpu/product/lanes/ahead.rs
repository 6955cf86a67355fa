//! What memory is asked for while panels are multiplied.

use crate::backend::cpu::simd::{LINE, prefetch, prefetch_near};

/// Asks memory for what is read next while a panel is, evenly over its passes. In bursts, memory would have nothing to
/// do meanwhile.
#[derive(Clone, Copy)]
pub struct Ahead {
    /// What is asked for next.
    pub at: *const u8,
    /// Bytes from there to the end of the panels that are read one after the other.
    pub left: usize,
    /// What is read after them.
    pub next: *const u8,
    /// Bytes from panel to panel: where others are read beside it, the same is asked for of each.
    pub apart: usize,
    /// Cache lines that are gone through for one that is asked for.
    pub every: usize,
    /// Lines gone through since the last request.
    pub gone: usize,
    /// Whether requests go to the first cache.
    pub near: bool,
}

impl Ahead {
    /// Steps of so many bytes, of those that are to come, in which requests follow each other from where they are now.
    #[inline(always)]
    pub fn steps(&mut self, bytes: usize, to_come: usize) -> usize {
        if self.left < bytes {
            (self.at, self.left) = (self.next, usize::MAX);
        }
        to_come.min(self.left / bytes)
    }

    /// Asks for so many bytes of a panel: of each one in one of [`Ahead::steps`], which [`Ahead::go`] ends.
    #[inline(always)]
    pub fn ask(&self, panel: usize, bytes: usize) {
        for line in (0..bytes).step_by(LINE) {
            prefetch_near(self.at.wrapping_add(panel * self.apart + line));
        }
    }

    /// Goes on by a step of so many bytes.
    #[inline(always)]
    pub fn go(&mut self, bytes: usize) {
        self.at = self.at.wrapping_add(bytes);
        self.left -= bytes;
    }

    /// Passes over so many bytes, less than a step.
    #[inline(always)]
    pub fn skip(&mut self, bytes: usize) {
        if self.every == 1 && bytes <= self.left {
            self.at = self.at.wrapping_add(bytes);
            self.left -= bytes;
        }
    }

    /// Goes on by a step of so many bytes, of one of several passes.
    #[inline(always)]
    pub fn pass(&mut self, bytes: usize) {
        self.gone += bytes / LINE;
        while self.gone >= self.every {
            self.gone -= self.every;
            self.steps(LINE, 1);
            if self.near {
                prefetch_near(self.at)
            } else {
                prefetch(self.at)
            }
            self.at = self.at.wrapping_add(LINE);
            self.left -= LINE;
        }
    }
}
