//! Exact parallel decoding: fewer passes, the same pictures.
//!
//! A pass over one row per sequence reads every weight for one token. With the noise of a draw fixed by (seed, image,
//! token, code), the next code is a function of the codes before it, so a pass may carry W rows per sequence: the last
//! sure code and W - 1 guesses. Each row draws as one-by-one decoding would, were its guesses right; those whose
//! guesses the draws before them confirm are right and accepted, one at least ([`crate::graph::ops::Accept`]). A window
//! then begins at the first token that is not sure, and what was drawn behind wrong guesses are the next guesses.
//!
//! The codes are those of one-by-one decoding, bit for bit, because a row's bits do not depend on how many rows a pass
//! has, and because of the cache: all rows of a pass put their keys and values there before any of them reads, a row
//! reads up to its own position, and a position's keys and values depend on the codes up to it. Those of accepted
//! rows are right, as their inputs were. All others lie at or behind the next window's first position, where the next
//! pass writes before it reads.
//!
//! Guided pictures have W rows of either kind; tokens behind the end of guidance need no unconditional row. A first
//! token from a text's prefill comes as it does otherwise. W changes the time alone; [`Lookahead::Auto`] chooses it.

mod pace;
mod passes;
mod tuner;

use std::fmt;
use std::str::FromStr;

pub(super) use pace::Pace;
pub use passes::Passes;

/// How many rows a pass carries per sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookahead {
    /// As many as turn out to be the fastest, from what passes take and from how many guesses are right; 1 where more
    /// do not pay.
    #[default]
    Auto,
    /// W, at least 1; 1 is one-by-one decoding.
    Window(usize),
}

impl Lookahead {
    /// Rows per pass from which on more of them no longer pay anywhere.
    const ROWS: usize = 64;

    /// The widest window that is worth laying out where `pictures` pictures are drawn at once.
    pub fn widest(self, pictures: usize) -> usize {
        match self {
            Self::Auto => (Self::ROWS / (2 * pictures)).max(1),
            Self::Window(window) => window,
        }
    }
}

impl fmt::Display for Lookahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Window(window) => window.fmt(f),
        }
    }
}

impl FromStr for Lookahead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(window) if window > 0 => Ok(Self::Window(window)),
            _ => Err(format!("expected auto or a number from 1 on, found {text}")),
        }
    }
}
