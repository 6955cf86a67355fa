//! What memory is asked for while a head is attended to.

use std::ops::Range;

use crate::backend::cpu::simd::{Isa, LINE, Simd, prefetch};

/// What a row sees of a head's cache: where its keys and its values begin, and bytes of either.
#[derive(Clone, Copy)]
pub struct Cached {
    pub k: *const u8,
    pub v: *const u8,
    pub bytes: usize,
}

/// Requests while rows of a head are gone through: its keys, then its values.
#[derive(Clone, Copy)]
pub enum Ahead {
    /// For what is read [`Simd::AHEAD`] bytes later, or a head's keys, as one stream: keys, values, the `next` head's keys.
    Stream { head: Cached, next: Option<*const u8> },
    /// For all that the next head has, as streams side by side.
    Streams { next: Cached, pace: Pace },
}

/// Streams of keys, and as many of values. On the Xeon of benches/results/2026-12-01-cpu-amx.md attention takes an
/// eighth less time so than with one stream, and the same with twice as many.
const STREAMS: usize = 2;

/// How the lines of each of a head's [`STREAMS`] are spread over the rows that are gone through meanwhile.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Lines of a stream.
    lines: usize,
    /// Lines for each row, in units of 2^-16.
    each: usize,
}

impl Pace {
    fn new(head: &Cached, rows: usize) -> Self {
        let lines = head.bytes.div_ceil(STREAMS * LINE);
        Self { lines, each: (lines << 16).div_ceil(rows) }
    }

    /// The lines of every stream that belong to `count` rows from number `row` on.
    #[inline(always)]
    fn lines_of(&self, row: usize, count: usize) -> Range<usize> {
        let [from, to] = [row, row + count].map(|row| ((row * self.each) >> 16).min(self.lines));
        from..to
    }

    /// Asks for the lines of `count` rows from number `row` on.
    #[inline(always)]
    fn ask(&self, head: &Cached, row: usize, count: usize) {
        for line in self.lines_of(row, count) {
            for stream in 0..STREAMS {
                let at = (stream * self.lines + line) * LINE;
                prefetch(head.k.wrapping_add(at));
                prefetch(head.v.wrapping_add(at));
            }
        }
    }
}

impl Ahead {
    /// While a `head` of `keys` is gone through, before the `next` one.
    pub fn new(isa: Isa, keys: usize, head: Cached, next: Option<Cached>) -> Option<Self> {
        if !isa.wants_heads() {
            return Some(Self::Stream { head, next: next.map(|next| next.k) });
        }
        next.map(|next| Self::Streams { next, pace: Pace::new(&next, 2 * keys) })
    }

    /// Asks for a head that nothing asked for while the one before it was gone through.
    pub fn begin(isa: Isa, head: Cached) {
        if isa.wants_heads() {
            Pace::new(&head, 1).ask(&head, 0, 1);
        }
    }

    /// Before `count` rows of `bytes` each, the first of them number `row` of the head's keys and then values.
    #[inline(always)]
    pub fn ask<S: Simd>(&self, row: usize, count: usize, bytes: usize) {
        match self {
            Self::Stream { head, next } => {
                for row in row..row + count {
                    let from = row * bytes + S::AHEAD.min(head.bytes);
                    let at = if from < head.bytes {
                        Some(head.k.wrapping_add(from))
                    } else if from < 2 * head.bytes {
                        Some(head.v.wrapping_add(from - head.bytes))
                    } else {
                        next.map(|next| next.wrapping_add(from - 2 * head.bytes))
                    };
                    if let Some(at) = at {
                        for line in (0..bytes).step_by(LINE) {
                            prefetch(at.wrapping_add(line));
                        }
                    }
                }
            }
            Self::Streams { next, pace } => pace.ask(next, row, count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_asked_for_once() {
        for (bytes, rows) in [(128, 2), (128 * 129, 256), (100 * 2 * 577, 1150), (64, 1), (1 << 20, 7), (300, 1000)] {
            let head = Cached { k: std::ptr::null(), v: std::ptr::null(), bytes };
            let pace = Pace::new(&head, rows);
            // As attention goes through them: in fours, then one by one.
            let fours = (0..rows / 4).map(|four| pace.lines_of(4 * four, 4));
            let ones = (rows / 4 * 4..rows).map(|row| pace.lines_of(row, 1));
            let asked: Vec<usize> = fours.chain(ones).flatten().collect();
            assert_eq!(asked, (0..pace.lines).collect::<Vec<_>>(), "{bytes} bytes while {rows} rows go by");
            assert!(STREAMS * pace.lines * LINE >= bytes, "{bytes} bytes are more than {} lines", pace.lines);
        }
    }
}
