//! Of each window the draws that follow right guesses are accepted: their codes are a picture's for good, and the
//! window moves on behind them.
//!
//! Draw j of a window is of token t + j, from a row whose input is the code before: for j = 0 a sure one, else a
//! guess. A draw depends on nothing but the codes before it, so it is right when all guesses up to its row's were;
//! and a guess is right when the draw before it, being right, gave it. So a draws are accepted, 1 ≤ a ≤ W: the first,
//! and one more for each guess that is confirmed before one is not. The next window begins at token t + a. Its first
//! row has the last accepted code, the others new guesses; what reaches behind the picture's last token has no rows.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Extent, Graph, Load, NO_ROW, NO_SLOT};

use super::NO_CODE;

/// How the code of a token is guessed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guess {
    /// What was drawn for it behind wrong guesses; else the code above.
    #[default]
    Drawn,
    /// The code above, always.
    Above,
    /// The last sure code, always: the one to the left.
    Left,
}

impl Guess {
    pub const ALL: [Self; 3] = [Self::Drawn, Self::Above, Self::Left];

    /// From [`Draw::guess`](crate::graph::Draw::guess). Panics when it is none.
    pub fn of(number: u32) -> Self {
        Self::ALL[number as usize]
    }

    /// Which of `sure` ≥ 1 sure tokens has the code that stands for token `token` ≥ `sure`, in a picture of
    /// `latent_size` codes a row: the nearest in its column; where there is none, or for [`Guess::Left`], the last.
    #[inline]
    pub fn like(self, token: usize, sure: usize, latent_size: usize) -> usize {
        // Rows up to the first in which the column's token is sure.
        let up = (token - sure) / latent_size + 1;
        match token.checked_sub(up * latent_size) {
            Some(above) if self != Self::Left => above,
            _ => sure - 1,
        }
    }
}

/// Compares each window's draws with its guesses, keeps what is sure, and moves rows and draws on.
#[derive(Clone, Debug)]
pub struct Accept {
    /// (pictures, N) in and out, u32: the accepted codes; those before the window are there
    pub codes: BufferId,
    /// (pictures) out, u32: how many codes a picture has for good
    pub sure: BufferId,
    /// (pictures, largest W) in and out, u32: how often a picture had 1, 2, … draws of a window accepted
    pub runs: BufferId,
    /// (R) in and out: tokens and positions
    pub rows: BufferId,
    /// (draws) in and out: token numbers
    pub draws: BufferId,
    /// (draws) u32: what was drawn
    pub drawn: BufferId,
    /// P: codes per row of the picture
    pub latent_size: usize,
    /// N
    pub tokens: usize,
    /// The largest W
    pub window: usize,
    /// Pictures that `codes` holds
    pub pictures: usize,
}

impl Accept {
    pub(super) fn cost(&self, _: &Graph, load: &Load) -> Cost {
        // Both tables, read and written, and the codes.
        let bytes = load.extent.rows * 32 + load.extent.draws * (128 + 3 * 4);
        Cost { activation_bytes: bytes as u64, ..Cost::default() }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let input = |code: f64| if code == f64::from(NO_CODE) { 0 } else { code as u32 };
        for d in 0..extent.draws {
            let first = twin.draws[d];
            let (window, token) = (first.window as usize, first.token as usize);
            if window == 0 || token >= self.tokens {
                continue;
            }
            let drawn = twin.buffers[self.drawn.index()][d..d + window.min(self.tokens - token)].to_vec();
            let guessed = |twin: &Twin<'_>, j: usize| twin.rows[twin.draws[d + j].cond_row as usize].token;
            let accepted = (1..drawn.len()).find(|&j| guessed(twin, j) != input(drawn[j - 1])).unwrap_or(drawn.len());

            let (picture, sure) = (first.picture as usize, token + accepted);
            let codes = &mut twin.buffers[self.codes.index()][picture * self.tokens..][..self.tokens];
            codes[token..sure].copy_from_slice(&drawn[..accepted]);
            let codes = codes.to_vec();
            twin.buffers[self.sure.index()][picture] = sure as f64;
            twin.buffers[self.runs.index()][picture * self.window + accepted - 1] += 1.0;

            for j in 0..window {
                let draw = &mut twin.draws[d + j];
                let (rows, position) = (draw.rows(), sure + j);
                draw.token = position as u32;
                if position >= self.tokens {
                    (draw.cond_row, draw.uncond_row) = (NO_ROW, NO_ROW);
                    rows.for_each(|r| twin.rows[r].slot = NO_SLOT);
                    continue;
                }
                let before = position - 1;
                let guess = Guess::of(first.guess);
                let code = match drawn.get(before - token) {
                    _ if before < sure => codes[before],
                    Some(&drawn) if guess == Guess::Drawn => drawn,
                    _ => codes[guess.like(before, sure, self.latent_size)],
                };
                for r in rows {
                    twin.rows[r].token = input(code);
                    twin.rows[r].position = position as u32;
                    twin.rows[r].settled = sure as u32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Guess;

    #[test]
    fn a_guess_is_like_the_nearest_sure_code_above_or_the_last_one() {
        // Rows of 4 codes, 6 sure ones: tokens 6 and 7 have codes above, 8 and 9 too, two rows below those.
        let above: Vec<usize> = (6..16).map(|token| Guess::Drawn.like(token, 6, 4)).collect();
        assert_eq!(above, [2, 3, 4, 5, 2, 3, 4, 5, 2, 3]);
        assert!((6..16).all(|token| Guess::Above.like(token, 6, 4) == above[token - 6]));
        assert!((6..16).all(|token| Guess::Left.like(token, 6, 4) == 5));
        // In the first row nothing is above.
        assert_eq!([1, 2, 3, 4, 5, 6].map(|token| Guess::Above.like(token, 1, 4)), [0, 0, 0, 0, 0, 0]);
        assert_eq!([2, 3, 4, 5, 6].map(|token| Guess::Above.like(token, 2, 4)), [1, 1, 0, 1, 1]);
    }
}
