//! A picture in flight: its rows and draws in the next passes.

use crate::graph::ops::{Guess, NO_CODE};
use crate::graph::{Draw, NO_ROW, Row};

use super::{Conditioning, Request};

/// A picture in its place.
#[derive(Clone)]
pub(super) struct Picture {
    pub ticket: u64,
    pub request: Request,
    /// How many of its tokens are drawn for good; those that the next pass draws begin here.
    pub token: usize,
    /// What is guessed of the tokens from `token` on, as far as anything was drawn there.
    pub guesses: Vec<u32>,
    /// Where its conditional rows lie in the tables on the device when these are of windows: the first, and how many.
    pub rows: Option<(usize, usize)>,
}

/// What rows and draws of a picture depend on beside itself.
pub(super) struct Layout<'a> {
    /// Its place: its row of `codes`, and half of its slots' numbers.
    pub place: usize,
    /// W
    pub window: usize,
    pub guess: Guess,
    /// N
    pub tokens: usize,
    /// P
    pub latent_size: usize,
    /// The label of no class.
    pub unconditional: u32,
    /// Its codes up to `token`.
    pub codes: &'a [u32],
}

impl Picture {
    pub fn new(ticket: u64, request: Request) -> Self {
        Self { ticket, request, token: 0, guesses: Vec::new(), rows: None }
    }

    /// Whether its next token is guided.
    pub fn guided(&self) -> bool {
        self.request.sampling.guides(self.token)
    }

    /// Where its tokens change their kind next: at the end of guidance, or of the picture.
    pub fn stretch_end(&self, tokens: usize) -> usize {
        let guided_tokens = self.request.sampling.guided_tokens;
        if self.token < guided_tokens { guided_tokens.min(tokens) } else { tokens }
    }

    /// The draw of its token `token` from the logits of row `cond_row`, and under guidance of `uncond_row`.
    pub fn draw(&self, place: usize, token: usize, cond_row: usize, uncond_row: Option<usize>) -> Draw {
        let sampling = &self.request.sampling;
        Draw {
            seed: sampling.seed,
            image: self.request.image,
            cond_row: cond_row as u32,
            uncond_row: uncond_row.map_or(NO_ROW, |row| row as u32),
            token: token as u32,
            picture: place as u32,
            cfg_scale: sampling.cfg_scale.unwrap_or(1.0),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            greedy: sampling.greedy.into(),
            guidance_end: u32::try_from(sampling.guided_tokens).unwrap_or(0),
            ..Draw::default()
        }
    }

    /// Appends its rows and draws: of a window, or of one token.
    pub fn lay_out(&mut self, layout: &Layout<'_>, rows: &mut Vec<Row>, draws: &mut Vec<Draw>) {
        let window = layout.window.min(layout.tokens - self.token);
        let guided = (0..window).take_while(|&j| self.request.sampling.guides(self.token + j)).count();
        let first = rows.len();
        for (slot, count) in [(2 * layout.place, window), (2 * layout.place + 1, guided)] {
            rows.extend((0..count).map(|j| Row {
                slot: slot as u32,
                position: (self.token + j) as u32,
                token: self.input(layout, slot % 2 == 0, j),
                settled: self.token as u32,
            }));
        }
        let first_draw = draws.len();
        draws.extend((0..window).map(|j| {
            let uncond_row = (j < guided).then_some(first + window + j);
            self.draw(layout.place, self.token + j, first + j, uncond_row)
        }));
        if layout.window > 1 {
            self.rows = Some((first, window));
            draws[first_draw].window = window as u32;
            draws[first_draw].guess = layout.guess as u32;
        }
    }

    /// The input of row `j` of its window: a class, or the code of the token before, sure or guessed.
    fn input(&self, layout: &Layout<'_>, conditional: bool, j: usize) -> u32 {
        let code = match (&self.request.condition, self.token + j) {
            (Conditioning::Class(class), 0) if conditional => *class,
            (_, 0) => layout.unconditional,
            (_, position) => match self.guesses.get((position - 1).wrapping_sub(self.token)) {
                _ if position <= self.token => layout.codes[position - 1],
                Some(&guess) => guess,
                // Before the first token any code is as good as any other.
                None if self.token == 0 => 0,
                None => layout.codes[layout.guess.like(position - 1, self.token, layout.latent_size)],
            },
        };
        // A draw that failed goes on with a harmless token; `Session::finish` tells.
        if code == NO_CODE { 0 } else { code }
    }
}
