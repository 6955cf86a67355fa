//! Which window is the fastest.
//!
//! Tokens per second of a window W are tokens per pass, from the share of right guesses at each position, over the
//! time of a pass, by its number of rows. Both are measured while pictures are drawn, in legs of a few passes of one
//! W: first with 1 and 2, then with the next wider window for as long as it promises more than all narrower ones.
//! From then on long legs of the best, and now and then a short one of the second best, as the machine and the
//! pictures change. Where guesses are wrong that costs a few passes of 2 instead of 1 row in hundreds.

use std::collections::BTreeMap;

/// Windows that are considered.
const WINDOWS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// Passes of a leg that tries a window, and of one that is settled on it.
const SHORT: usize = 4;
const LONG: usize = 32;

/// Long legs between two tries of the second best.
const PATIENCE: usize = 4;

/// Windows after which what was seen of guesses counts half.
const HALF_LIFE: f64 = 512.0;

/// By how much another window must promise more than the present one: less is within the noise of the clock.
const MARGIN: f64 = 1.02;

/// Learns from legs and chooses the next one's window.
#[derive(Default)]
pub struct Tuner {
    /// Seconds of a pass, by its rows.
    costs: BTreeMap<usize, f64>,
    /// By position in the window from 1 on.
    odds: Vec<Odds>,
    /// Of the last leg.
    window: usize,
    /// Long legs since the last try.
    settled: usize,
    /// The first leg, whose passes find nothing in any cache, is over.
    warm: bool,
}

/// How often guesses at a position of the window were reached, and right; older ones count less.
#[derive(Clone, Copy, Default)]
struct Odds {
    reached: f64,
    right: f64,
}

/// What a leg was.
pub struct Leg<'a> {
    pub window: usize,
    /// Rows of each pass.
    pub rows: usize,
    pub passes: usize,
    pub seconds: f64,
    /// `runs[i]` windows had i + 1 draws accepted.
    pub runs: &'a [u32],
}

impl Tuner {
    /// Takes in what a leg has shown.
    pub fn learn(&mut self, leg: &Leg<'_>) {
        let at_least = |accepted: usize| leg.runs[accepted - 1..].iter().map(|&count| f64::from(count)).sum::<f64>();
        self.odds.resize(self.odds.len().max(leg.window - 1), Odds::default());
        let kept = 0.5f64.powf(at_least(1) / HALF_LIFE);
        for (position, odds) in (1..leg.window).zip(&mut self.odds) {
            odds.reached = kept * odds.reached + at_least(position);
            odds.right = kept * odds.right + at_least(position + 1);
        }
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        let measured = leg.seconds / leg.passes as f64;
        let Some(&before) = self.costs.get(&leg.rows) else {
            self.costs.insert(leg.rows, measured);
            return;
        };
        // One hiccup of the machine is not to decide.
        let measured = measured.clamp(before / 2.0, before * 2.0);
        let weight = leg.passes as f64 / (leg.passes + LONG) as f64;
        let change = 1.0 + weight * (measured / before - 1.0);
        // What makes some passes slower than before makes all of them slower.
        self.costs.values_mut().for_each(|cost| *cost *= change);
    }

    /// Chooses the next leg: its window, up to `widest`, and its passes. `rows` are a pass's for a window of 1.
    pub fn next(&mut self, rows: usize, widest: usize) -> (usize, usize) {
        let windows: Vec<usize> = WINDOWS.into_iter().filter(|&window| window <= widest).collect();
        let tried = |window: &&usize| self.costs.contains_key(&(rows * **window));
        if !self.warm || windows.len() == 1 {
            return (1, if windows.len() == 1 { LONG } else { SHORT });
        }
        if let Some(&window) = windows[..2].iter().find(|window| !tried(window)) {
            self.window = window;
            return (window, SHORT);
        }
        let reach = 1 + windows.iter().rposition(|window| tried(&window)).expect("two were tried");
        let mut promising = windows[..windows.len().min(reach + 1)].to_vec();
        promising.sort_by(|&a, &b| self.promise(b, rows).total_cmp(&self.promise(a, rows)));
        let (best, second) = (promising[0], promising[1]);
        if !tried(&&best) {
            self.window = best;
            return (best, SHORT);
        }
        if self.settled >= PATIENCE {
            self.settled = 0;
            return (second, SHORT);
        }
        self.settled += 1;
        let stay = promising.contains(&self.window)
            && tried(&&self.window)
            && self.promise(best, rows) < MARGIN * self.promise(self.window, rows);
        if !stay {
            self.window = best;
        }
        (self.window, LONG)
    }

    /// Tokens per second of a window.
    fn promise(&self, window: usize, rows: usize) -> f64 {
        self.tokens(window) / self.cost(rows * window)
    }

    /// Tokens per pass: what was not seen is like the position before.
    fn tokens(&self, window: usize) -> f64 {
        let (mut tokens, mut run, mut share) = (1.0, 1.0, 0.0);
        for position in 1..window {
            if let Some(odds) = self.odds.get(position - 1).filter(|odds| odds.reached >= 1.0) {
                share = odds.right / odds.reached;
            }
            run *= share;
            tokens += run;
        }
        tokens
    }

    /// Seconds of a pass: between two measured ones on the line through them, beyond the last two on theirs.
    fn cost(&self, rows: usize) -> f64 {
        let below = self.costs.range(..=rows).next_back();
        let above = self.costs.range(rows..).next();
        let line = |(&x0, &y0): (&usize, &f64), (&x1, &y1): (&usize, &f64)| {
            y0 + (y1 - y0) * (rows as f64 - x0 as f64) / (x1 as f64 - x0 as f64)
        };
        match (below, above) {
            (Some(below), Some(above)) if below.0 == above.0 => *below.1,
            (Some(below), Some(above)) => line(below, above),
            (None, Some(above)) => *above.1,
            (Some(last), None) => match self.costs.range(..last.0).next_back() {
                Some(before) => line(before, last).max(*last.1),
                None => *last.1,
            },
            (None, None) => 1.0,
        }
    }
}
