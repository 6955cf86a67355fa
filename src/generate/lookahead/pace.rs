//! A session's passes: how wide the present window is, and what passes have shown so far.

use std::time::{Duration, Instant};

use super::tuner::{Leg, Tuner};
use super::{Lookahead, Passes};

/// Counts and times passes in legs of one window each.
pub struct Pace {
    asked: Lookahead,
    tuner: Tuner,
    passes: Passes,
    /// Of the present leg.
    window: usize,
    /// Rows of each of its passes.
    rows: usize,
    /// Passes until another window may be better.
    left: usize,
    /// Passes since the leg was last counted, and when these began or how long they took.
    done: usize,
    clock: Clock,
    /// Passes of the last two replays, which a device that runs ahead may not have begun.
    enqueued: [usize; 2],
}

/// Time of passes that the host waits for is added up, lest what is done between them counts; that of a device that
/// runs ahead is taken from one standstill to the next.
enum Clock {
    Spent(Duration),
    Since(Instant),
}

impl Pace {
    pub fn new(runs_ahead: bool) -> Self {
        Self {
            asked: Lookahead::default(),
            tuner: Tuner::default(),
            passes: Passes::default(),
            window: 1,
            rows: 0,
            left: 0,
            done: 0,
            clock: if runs_ahead { Clock::Since(Instant::now()) } else { Clock::Spent(Duration::ZERO) },
            enqueued: [0; 2],
        }
    }

    pub fn ask(&mut self, lookahead: Lookahead) {
        self.asked = lookahead;
    }

    /// W of the present leg.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Passes until the leg ends.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Begins a leg and returns its window, at most `widest`; a pass has `rows` rows for a window of 1.
    pub fn begin(&mut self, rows: usize, widest: usize) -> usize {
        (self.window, self.left) = match self.asked {
            Lookahead::Window(window) => (window.min(widest), usize::MAX),
            Lookahead::Auto => self.tuner.next(rows, widest),
        };
        self.rows = rows * self.window;
        self.restart();
        self.window
    }

    /// Passes that may still be under way, so that what is known of pictures is older than they are.
    pub fn under_way(&self) -> usize {
        match self.clock {
            Clock::Since(_) if self.window > 1 => self.enqueued.iter().sum(),
            _ => 0,
        }
    }

    /// `passes` passes were replayed since `started`.
    pub fn replayed(&mut self, passes: usize, started: Instant) {
        self.done += passes;
        self.left -= passes;
        self.enqueued = [self.enqueued[1], passes];
        if let Clock::Spent(spent) = &mut self.clock {
            *spent += started.elapsed();
        }
    }

    /// Passes that were replayed and not yet counted.
    pub fn uncounted(&self) -> usize {
        self.done
    }

    /// Counts what the passes have brought, when the device stands still: `runs[i]` windows had i + 1 draws accepted.
    pub fn count(&mut self, runs: &[u32]) {
        let seconds = match self.clock {
            Clock::Spent(spent) => spent.as_secs_f64(),
            Clock::Since(started) => started.elapsed().as_secs_f64(),
        };
        self.passes.take_in(self.window, runs);
        if self.asked == Lookahead::Auto {
            let (window, rows) = (self.window, self.rows);
            self.tuner.learn(&Leg { window, rows, passes: self.done, seconds, runs });
        }
        self.restart();
    }

    /// What was counted since this was last asked for.
    pub fn take_passes(&mut self) -> Passes {
        std::mem::take(&mut self.passes)
    }

    fn restart(&mut self) {
        self.done = 0;
        self.enqueued = [0; 2];
        match &mut self.clock {
            Clock::Spent(spent) => *spent = Duration::ZERO,
            Clock::Since(started) => *started = Instant::now(),
        }
    }
}
