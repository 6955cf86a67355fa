//! What passes have brought.

/// Counts of what became of windows: how many passes, how many tokens, which guesses were right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    windows: u64,
    tokens: u64,
    /// By position in the window from 1 on.
    guesses: Vec<Guesses>,
}

/// The guesses at one position of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Guesses {
    /// Those before which all were right.
    reached: u64,
    /// Of these, the right ones.
    right: u64,
}

impl Passes {
    /// Counts windows of `window` rows, `runs[i]` of which had i + 1 draws accepted.
    pub(super) fn take_in(&mut self, window: usize, runs: &[u32]) {
        let at_least = |accepted: usize| runs[accepted - 1..].iter().map(|&count| u64::from(count)).sum::<u64>();
        self.windows += at_least(1);
        self.tokens += (1..).zip(runs).map(|(accepted, &count)| accepted * u64::from(count)).sum::<u64>();
        self.guesses.resize(self.guesses.len().max(window - 1), Guesses::default());
        for (position, guesses) in (1..window).zip(&mut self.guesses) {
            guesses.reached += at_least(position);
            guesses.right += at_least(position + 1);
        }
    }

    /// Counts others' windows as well.
    pub fn add(&mut self, others: &Self) {
        self.windows += others.windows;
        self.tokens += others.tokens;
        self.guesses.resize(self.guesses.len().max(others.guesses.len()), Guesses::default());
        for (own, other) in self.guesses.iter_mut().zip(&others.guesses) {
            own.reached += other.reached;
            own.right += other.right;
        }
    }

    /// Passes that pictures took part in: with one picture at a time the passes themselves, divided by the number of
    /// pictures what one takes.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Tokens that passes drew; a text's first token takes none.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of a picture per pass; 1 in one-by-one decoding.
    pub fn tokens_per_pass(&self) -> f64 {
        self.tokens as f64 / self.windows.max(1) as f64
    }

    /// By position in the window from 1 on: the share of right guesses among those before which all were right. `None`
    /// where no window got that far.
    pub fn acceptance(&self) -> Vec<Option<f64>> {
        let share = |guesses: &Guesses| (guesses.reached > 0).then(|| guesses.right as f64 / guesses.reached as f64);
        self.guesses.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Passes;

    #[test]
    fn counts_tell_tokens_and_right_guesses() {
        let mut passes = Passes::default();
        assert_eq!((passes.tokens_per_pass(), passes.acceptance()), (0.0, vec![]));
        passes.take_in(1, &[10]);
        assert_eq!((passes.windows(), passes.tokens(), passes.acceptance()), (10, 10, vec![]));
        // Of eight windows of three, four stop at once, one behind the first guess; three are right to their end.
        passes.take_in(3, &[4, 1, 3]);
        assert_eq!((passes.windows(), passes.tokens()), (18, 10 + 4 + 2 + 9));
        assert_eq!(passes.acceptance(), [Some(0.5), Some(0.75)]);
        passes.take_in(4, &[2, 0, 0, 0]);
        assert_eq!(passes.acceptance(), [Some(0.4), Some(0.75), None]);
        assert_eq!(passes.tokens_per_pass(), 27.0 / 20.0);
        let mut sum = Passes::default();
        sum.take_in(3, &[0, 8, 0]);
        sum.add(&passes);
        assert_eq!((sum.windows(), sum.tokens()), (28, 43));
        assert_eq!(sum.acceptance(), [Some(12.0 / 18.0), Some(3.0 / 12.0), None]);
    }
}
