//! Which window is the fastest.
//!
//! Tokens per second of a window W are tokens per pass, from the share of right guesses at each position, over the
//! time of a pass, by its number of rows. Both are measured while pictures are drawn, in legs of a few passes of one
//! W: first with 1, 2 and 1 again, then with the next wider window for as long as it promises more than all narrower
//! ones. From then on long legs of the best, and now and then a short one of the second best and of 1 in turn, as the
//! machine and the pictures change: as often as what such a leg loses is a hundredth of the time.
//!
//! Other programs make passes slower, never faster. So of two measurements the lower one counts, fewer rows are never
//! taken to be slower than more, and what makes long legs slower is taken to make all passes slower.

use std::collections::BTreeMap;

/// Windows that are considered.
const WINDOWS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// Passes of a leg that tries a window, and of one that is settled on it.
const SHORT: usize = 4;
const LONG: usize = 32;

/// Legs of one token at a time before it is left: one of them may fall into a bad moment.
const TRIES: usize = 2;

/// Share of the time that may be lost by trying others than the best.
const BUDGET: f64 = 0.01;

/// Windows after which what was seen of guesses counts half.
const HALF_LIFE: f64 = 512.0;

/// How much more than one token at a time a window must promise: less may be the clock's noise.
const MARGIN: f64 = 1.03;

/// Learns from legs and chooses the next one's window.
#[derive(Default)]
pub struct Tuner {
    /// Seconds of a pass, by its rows.
    costs: BTreeMap<usize, f64>,
    /// Measured legs of one token at a time.
    tries: usize,
    /// By position in the window from 1 on.
    odds: Vec<Odds>,
    /// Rows of the last leg's passes; 0 before the first.
    last_rows: usize,
    /// Seconds since another than the best was tried, and whether that was the second best.
    settled: f64,
    second_tried: bool,
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
        for (position, odds) in (1..).zip(&mut self.odds) {
            let (reached, right) = match position < leg.window {
                true => (at_least(position), at_least(position + 1)),
                false => (0.0, 0.0),
            };
            *odds = Odds { reached: kept * odds.reached + reached, right: kept * odds.right + right };
        }
        let last_rows = std::mem::replace(&mut self.last_rows, leg.rows);
        if last_rows == 0 {
            // The first passes find nothing in any cache.
            return;
        }
        self.settled += leg.seconds;
        self.tries += usize::from(leg.window == 1);
        let measured = leg.seconds / leg.passes as f64;
        let cost = self.costs.entry(leg.rows).or_insert(measured);
        // One hiccup of the machine is not to decide.
        let change = (measured / *cost).clamp(0.5, 2.0) - 1.0;
        if last_rows == leg.rows {
            let weight = leg.passes as f64 / (leg.passes + LONG) as f64;
            self.costs.values_mut().for_each(|cost| *cost *= 1.0 + weight * change);
        } else {
            *cost *= 1.0 + if change < 0.0 { change } else { change / 4.0 };
        }
        let most = self.costs[&leg.rows];
        self.costs.range_mut(..leg.rows).for_each(|(_, cost)| *cost = cost.min(most));
    }

    /// Chooses the next leg: its window, up to `widest`, and its passes. `rows` are a pass's for a window of 1.
    pub fn next(&mut self, rows: usize, widest: usize) -> (usize, usize) {
        let windows: Vec<usize> = WINDOWS.into_iter().filter(|&window| window <= widest).collect();
        if windows.len() == 1 {
            // Nothing changes before the pictures do, and then all is asked again.
            return (1, usize::MAX);
        }
        let tried = |window: usize| self.costs.contains_key(&(rows * window));
        if !tried(1) || !tried(2) || self.tries < TRIES {
            return (if tried(1) && !tried(2) { 2 } else { 1 }, SHORT);
        }
        // All that were tried and the next wider one.
        let reach = windows.iter().rposition(|&window| tried(window)).map_or(0, |last| last + 2);
        let mut promising = windows[..reach.min(windows.len())].to_vec();
        promising.sort_by(|&a, &b| self.promise(b, rows).total_cmp(&self.promise(a, rows)));
        let best = promising[0];
        if !tried(best) {
            return (best, SHORT);
        }
        let other = if self.second_tried && best != 1 { 1 } else { promising[1] };
        let cost = self.cost(rows * best);
        let lost = self.cost(rows * other) - self.tokens(other) / self.tokens(best) * cost;
        // Not before a long leg, even where nothing is lost.
        if (SHORT as f64 * lost).max(BUDGET * LONG as f64 * cost) <= BUDGET * self.settled {
            (self.settled, self.second_tried) = (0.0, !self.second_tried);
            return (other, SHORT);
        }
        (best, LONG)
    }

    /// Tokens per second of a window.
    fn promise(&self, window: usize, rows: usize) -> f64 {
        let promise = self.tokens(window) / self.cost(rows * window);
        if window == 1 { MARGIN * promise } else { promise }
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

#[cfg(test)]
mod tests {
    use super::{Leg, Tuner};

    /// Draws a picture of `tokens` tokens, guided, guesses being right with the chance `right`; `cost` is the time of a
    /// pass by its rows, on a clock with noise. Returns the time, and the last long leg's window.
    fn draw(tuner: &mut Tuner, tokens: usize, right: f64, cost: impl Fn(usize) -> f64) -> (f64, usize) {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let (mut drawn, mut time, mut settled) = (0, 0.0, 1);
        while drawn < tokens {
            let (window, most) = tuner.next(2, 16);
            let (mut passes, mut seconds, mut runs) = (0, 0.0, vec![0; window]);
            while passes < most && drawn < tokens {
                let accepted = 1 + (1..window).take_while(|_| random() < right).count();
                (passes, drawn) = (passes + 1, drawn + accepted);
                runs[accepted - 1] += 1;
                time += cost(2 * window);
                seconds += cost(2 * window) * (0.95 + 0.1 * random());
            }
            tuner.learn(&Leg { window, rows: 2 * window, passes, seconds, runs: &runs });
            if passes == super::LONG {
                settled = window;
            }
        }
        (time, settled)
    }

    /// Bound by memory up to six rows or so, then by arithmetic.
    fn processor(rows: usize) -> f64 {
        (0.15 * rows as f64).max(0.95 + 0.025 * rows as f64)
    }

    #[test]
    fn right_guesses_widen_the_window_as_long_as_rows_cost_little() {
        let mut tuner = Tuner::default();
        let (first, _) = draw(&mut tuner, 256, 0.6, processor);
        let (second, window) = draw(&mut tuner, 256, 0.6, processor);
        // Windows of 3 take 256 / 1.96 passes of 1.1, and those of 4 256 / 2.18 of 1.2.
        assert!(first < 0.75 * 256.0 && second < 0.6 * 256.0, "{first} and {second} instead of 256");
        assert!(matches!(window, 3 | 4), "{window}");
        // Where rows cost nothing, as many as there may be.
        assert_eq!(draw(&mut Tuner::default(), 2048, 0.8, |_| 1.0).1, 16);
    }

    #[test]
    fn where_windows_do_not_pay_they_cost_next_to_nothing() {
        for tokens in [256, 1024] {
            let wrong = draw(&mut Tuner::default(), tokens, 0.0, |rows| 1.0 + 0.1 * (rows - 2) as f64);
            assert!(wrong.0 < 1.03 * tokens as f64 && wrong.1 == 1, "all guesses wrong: {wrong:?}");
            let bound = draw(&mut Tuner::default(), tokens, 0.5, |rows| rows as f64 / 2.0);
            assert!(bound.0 < 1.03 * tokens as f64 && bound.1 == 1, "bound by arithmetic: {bound:?}");
        }
    }

    #[test]
    fn what_changes_is_seen() {
        let mut tuner = Tuner::default();
        assert!(matches!(draw(&mut tuner, 1024, 0.6, processor).1, 3 | 4));
        assert_eq!(draw(&mut tuner, 4096, 0.0, |rows| 1.5 * processor(rows)).1, 1, "guesses are wrong now");
        assert!(matches!(draw(&mut tuner, 4096, 0.6, processor).1, 3 | 4), "and right again");
    }

    /// One token at a time was measured while other programs had the processor.
    #[test]
    fn a_bad_beginning_is_made_up_for() {
        let mut tuner = Tuner::default();
        for (window, cost) in [(1, 9.0), (1, 9.0), (2, 3.0), (1, 8.0), (3, 4.0)] {
            let runs = [8, 2, 0];
            tuner.learn(&Leg { window, rows: 2 * window, passes: 10, seconds: 10.0 * cost, runs: &runs[..window] });
        }
        assert_eq!(draw(&mut tuner, 1024, 0.2, |rows| rows as f64 / 2.0).1, 1);
    }

    #[test]
    fn without_room_there_is_nothing_to_choose() {
        assert_eq!(Tuner::default().next(2, 1).0, 1);
    }
}
