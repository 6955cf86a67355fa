//! Pictures in flight: which rows a step carries, and what they draw.

use std::sync::Arc;
use std::time::Instant;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::GptConfig;
use crate::graph::ops::{Guess, NO_CODE};
use crate::graph::{Draw, Extent, Graph, Row};
use crate::models::{GptGraph, GptLookahead, GptShape};
use crate::{Error, Result};

use super::lookahead::{Lookahead, Pace, Passes};
use super::picture::{Layout, Picture};
use super::prefixes::{Prefixes, Source};
use super::{Conditioning, Request};

/// A transformer laid out on a device, with places for a fixed number of pictures.
///
/// Picture place i owns cache slots 2i (conditional) and 2i + 1 (unconditional). The tables of rows and
/// draws live on the device and advance there; they are written again only when a picture starts, ends,
/// or loses its guidance, or when windows are to be wider or narrower. No step allocates.
pub struct Session {
    plan: Box<dyn Plan>,
    gpt: GptGraph,
    config: GptConfig,
    shape: GptShape,
    tokens: usize,
    places: Vec<Option<Picture>>,
    /// Room for the tables.
    rows: Vec<Row>,
    draws: Vec<Draw>,
    /// What stands for the codes of a picture that has none yet.
    blank: Vec<u32>,
    /// The tables on the device no longer say what the places hold.
    stale: bool,
    /// A text model's.
    prefixes: Option<Prefixes>,
    runs_ahead: bool,
    /// How wide windows are, and how long until that is thought over.
    pace: Pace,
    guess: Guess,
    /// Tokens that were drawn and that [`Session::advance`] has not told of.
    untold: usize,
}

/// A picture that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What [`Session::start`] was given.
    pub ticket: u64,
    /// (N) in raster order.
    pub codes: Vec<u32>,
}

impl Session {
    /// Lays the transformer out with `shape.pictures` places. Errors when weights are missing.
    pub fn new(executor: &dyn Executor, checkpoint: &Checkpoint, config: &GptConfig, shape: &GptShape) -> Result<Self> {
        assert!(shape.pictures > 0, "a session holds at least one picture");
        assert!(
            shape.slots >= 2 * shape.pictures && shape.rows >= 2 * shape.pictures,
            "{shape:?} cannot hold guidance"
        );
        let gpt = GptGraph::new(config, shape);
        let mut plan = executor.plan(Arc::new(gpt.graph.clone()), checkpoint)?;
        // A class is one condition token: log 1. A text's slots get theirs with its prefix.
        plan.write(gpt.prefix_log_n, 0, &vec![0f32; shape.slots])?;
        let prefixes = Prefixes::new(&gpt, checkpoint, config, shape.slots)?;
        let runs_ahead = executor.runs_ahead();
        Ok(Self {
            plan,
            config: config.clone(),
            shape: *shape,
            tokens: shape.tokens(),
            places: vec![None; shape.pictures],
            rows: Vec::with_capacity(shape.rows),
            draws: Vec::with_capacity(gpt.graph.max().draws),
            blank: vec![NO_CODE; shape.tokens()],
            stale: true,
            prefixes,
            runs_ahead,
            pace: Pace::new(runs_ahead),
            guess: Guess::default(),
            untold: 0,
            gpt,
        })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.gpt.graph
    }

    /// N: tokens of a picture.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Pictures that it holds at once.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Places that hold no picture.
    pub fn free(&self) -> usize {
        self.places.iter().filter(|place| place.is_none()).count()
    }

    /// Whether [`Session::advance`] may return before the device has drawn, so that something else can be done
    /// meanwhile.
    pub fn runs_ahead(&self) -> bool {
        self.runs_ahead
    }

    /// How many rows a pass has per sequence; [`Lookahead::Auto`] as long as nothing else is said. Changes the time
    /// that pictures take and nothing else about them. Errors when the session has no room for such windows, which
    /// [`GptShape::rows`] gives.
    pub fn set_lookahead(&mut self, lookahead: Lookahead) -> Result<()> {
        let most = self.shape.window();
        if let Lookahead::Window(window) = lookahead
            && !(1..=most).contains(&window)
        {
            return Err(Error::Option {
                option: "lookahead",
                value: window.to_string(),
                expected: format!("auto or 1 to {most}, for which there is room"),
                hint: String::new(),
            });
        }
        self.pace.ask(lookahead);
        self.stale = true;
        Ok(())
    }

    /// How windows guess what nobody has drawn yet; changes the time and nothing else.
    pub fn set_guess(&mut self, guess: Guess) {
        self.guess = guess;
        self.stale = true;
    }

    /// What passes have brought since this was last asked for. Waits for the device.
    pub fn take_passes(&mut self) -> Result<Passes> {
        self.count()?;
        Ok(self.pace.take_passes())
    }

    /// Waits for all that is under way: texts that begin, and passes. Errors tell of what failed.
    pub fn wait(&mut self) -> Result<()> {
        self.plan.wait()?;
        self.count()
    }

    /// Drops all pictures in flight.
    pub fn clear(&mut self) {
        self.places.fill(None);
        self.untold = 0;
        self.stale = true;
    }

    /// Drops the picture in flight that has the ticket, if there is one; its place is free at once.
    pub fn drop_one(&mut self, ticket: u64) {
        let has = |picture: &Option<Picture>| picture.as_ref().is_some_and(|picture| picture.ticket == ticket);
        if let Some(place) = self.places.iter().position(has) {
            self.places[place] = None;
            self.stale = true;
        }
    }

    /// Gives a picture a place; `false` when there is none. `ticket` comes back with the codes.
    pub fn start(&mut self, ticket: u64, request: &Request) -> Result<bool> {
        request.condition.check(&self.config)?;
        let Some(place) = self.places.iter().position(Option::is_none) else {
            return Ok(false);
        };
        // Told apart from the codes of the picture before, for `peek`.
        self.plan.write(self.gpt.codes, place * self.tokens, &self.blank)?;
        self.places[place] = Some(Picture::new(ticket, request.clone()));
        self.stale = true;
        Ok(true)
    }

    /// Runs up to `most` passes, as many as can be run before a picture ends or loses its guidance, each of which
    /// draws a token of every picture in flight, or several where guesses are right. Returns how many tokens that
    /// were, of all pictures together; on a device that runs ahead, what windows have drawn is known later. Where
    /// pictures of texts have begun, these are their first tokens alone.
    pub fn advance(&mut self, most: usize) -> Result<usize> {
        if most == 0 || self.unfinished().next().is_none() {
            return Ok(0);
        }
        if self.prefixes.is_some() {
            let begun = self.begin_texts()?;
            if begun > 0 {
                return Ok(begun + std::mem::take(&mut self.untold));
            }
        }
        if self.stale {
            self.write_tables()?;
        }
        if self.draws.is_empty() {
            // The passes that were under way have drawn all that there was to draw.
            return Ok(std::mem::take(&mut self.untold));
        }
        let window = self.pace.window();
        let passes = |picture: &Picture| (picture.stretch_end(self.tokens) - picture.token).div_ceil(window);
        let until_change = self.unfinished().map(passes).min().unwrap_or(0);
        let passes = until_change.saturating_sub(self.pace.under_way()).max(1).min(most).min(self.pace.left());
        let extent = Extent { rows: self.rows.len(), draws: self.draws.len() };
        let phase = if window == 1 { self.gpt.step } else { self.windows().pass };
        let started = Instant::now();
        self.plan.replay(phase, extent, passes)?;
        self.pace.replayed(passes, started);
        match window {
            1 => self.step_on(passes),
            _ => self.follow()?,
        }
        self.stale |= self.pace.left() == 0;
        Ok(std::mem::take(&mut self.untold))
    }

    /// The codes that a picture in flight has by now, in raster order, for previews; none when no picture has the
    /// ticket. Does not wait for a device that runs ahead, so they may be fewer than were asked for.
    pub fn peek(&mut self, ticket: u64) -> Result<Vec<u32>> {
        let has = |picture: &Option<Picture>| picture.as_ref().is_some_and(|picture| picture.ticket == ticket);
        let Some(place) = self.places.iter().position(has) else { return Ok(Vec::new()) };
        let mut codes = vec![NO_CODE; self.tokens];
        let first = place * self.tokens * size_of::<u32>();
        self.plan.peek_bytes(self.gpt.codes, first, bytemuck::cast_slice_mut(&mut codes))?;
        codes.truncate(codes.iter().position(|&code| code == NO_CODE).unwrap_or(self.tokens));
        Ok(codes)
    }

    /// Hands out the pictures that have all their tokens and frees their places.
    pub fn finish(&mut self, mut take: impl FnMut(Finished)) -> Result<()> {
        for place in 0..self.places.len() {
            let Some(&Picture { ticket, token, .. }) = self.places[place].as_ref() else { continue };
            if token < self.tokens {
                continue;
            }
            let mut codes = vec![0; self.tokens];
            self.plan.read(self.gpt.codes, place * self.tokens, &mut codes)?;
            self.places[place] = None;
            if let Some(token) = codes.iter().position(|&code| code as usize >= self.config.vocab_size) {
                return Err(Error::Mismatch {
                    what: format!("logits of token {token}"),
                    expected: "numbers".into(),
                    found: "NaN".into(),
                    hint: "the checkpoint's weights are damaged, or overflow in this precision; try --precision f32"
                        .into(),
                });
            }
            take(Finished { ticket, codes });
        }
        Ok(())
    }

    /// Pictures that lack tokens.
    fn unfinished(&self) -> impl Iterator<Item = &Picture> {
        self.places.iter().flatten().filter(|picture| picture.token < self.tokens)
    }

    /// What windows are driven by; there are none where a session has no room for them.
    fn windows(&self) -> GptLookahead {
        self.gpt.lookahead.expect("there is room for windows")
    }

    /// Puts the texts of pictures without a token into the cache and draws their first tokens; returns how many.
    fn begin_texts(&mut self) -> Result<usize> {
        let (mut slots, mut sources, mut draws) = (Vec::new(), Vec::new(), Vec::new());
        for (place, picture) in self.places.iter().enumerate() {
            let Some(picture) = picture.as_ref().filter(|picture| picture.token == 0) else { continue };
            let Conditioning::Text(features) = &picture.request.condition else { continue };
            let cond_row = slots.len();
            slots.push(2 * place);
            sources.push(Source::Text(features.clone()));
            if picture.guided() {
                slots.push(2 * place + 1);
                sources.push(Source::Unconditional(features.tokens()));
            }
            draws.push(picture.draw(place, 0, cond_row, picture.guided().then_some(cond_row + 1)));
        }
        if slots.is_empty() {
            return Ok(0);
        }
        self.count()?;
        self.stale = true;
        let Some(prefixes) = &mut self.prefixes else { return Ok(0) };
        let plan = self.plan.as_mut();
        let found: Vec<_> = slots.into_iter().zip(prefixes.get(plan, &sources)?).collect();
        for (slot, prefix) in &found {
            plan.write(self.gpt.prefix_log_n, *slot, &[(prefix.tokens as f32).ln()])?;
        }
        prefixes.set(plan, &found)?;
        plan.write(self.gpt.draws, 0, &draws)?;
        plan.run(prefixes.phases().draw, Extent { rows: found.len(), draws: draws.len() })?;
        let begun = self.places.iter_mut().flatten().filter(|picture| picture.token == 0);
        begun.for_each(|picture| picture.token = 1);
        Ok(draws.len())
    }

    /// Writes the tables anew from what the places hold, for a window as the session's pace has it.
    fn write_tables(&mut self) -> Result<()> {
        self.count()?;
        let rows: usize = self.unfinished().map(|picture| if picture.guided() { 2 } else { 1 }).sum();
        let widest = self.gpt.lookahead.map_or(1, |_| (self.shape.rows / rows.max(1)).min(self.tokens));
        let window = self.pace.begin(rows, widest);
        self.rows.clear();
        self.draws.clear();
        let mut codes = vec![0u32; self.tokens];
        let mut sure = vec![0u32; self.places.len()];
        for (place, picture) in self.places.iter_mut().enumerate() {
            let Some(picture) = picture else { continue };
            picture.rows = None;
            if picture.token == self.tokens {
                continue;
            }
            let codes = &mut codes[..picture.token];
            self.plan.read(self.gpt.codes, place * self.tokens, codes)?;
            sure[place] = picture.token as u32;
            let layout = Layout {
                place,
                window,
                guess: self.guess,
                tokens: self.tokens,
                latent_size: self.shape.latent_size,
                unconditional: self.config.unconditional_label(),
                codes,
            };
            picture.lay_out(&layout, &mut self.rows, &mut self.draws);
        }
        self.plan.write(self.gpt.rows, 0, &self.rows)?;
        self.plan.write(self.gpt.draws, 0, &self.draws)?;
        if window > 1 {
            self.plan.write(self.windows().sure, 0, &sure)?;
        }
        self.stale = false;
        Ok(())
    }

    /// Moves the pictures in the tables on by steps of one token each.
    fn step_on(&mut self, steps: usize) {
        for picture in self.places.iter_mut().flatten().filter(|picture| picture.token < self.tokens) {
            picture.token += steps;
            self.stale |= picture.token == self.tokens || picture.token == picture.request.sampling.guided_tokens;
        }
        self.untold += steps * self.draws.len();
    }

    /// Looks up how far windows have come.
    fn follow(&mut self) -> Result<()> {
        let mut sure = vec![0u32; self.places.len()];
        self.plan.peek_bytes(self.windows().sure, 0, bytemuck::cast_slice_mut(&mut sure))?;
        for (picture, &sure) in self.places.iter_mut().zip(&sure) {
            let Some(picture) = picture.as_mut().filter(|picture| picture.rows.is_some()) else { continue };
            let (before, end) = (picture.token, picture.stretch_end(self.tokens));
            picture.token = sure as usize;
            self.untold += picture.token - before;
            self.stale |= picture.token >= end && before < end;
        }
        Ok(())
    }

    /// Waits for the passes under way, counts what they have brought, and takes over what windows have guessed.
    fn count(&mut self) -> Result<()> {
        if self.pace.uncounted() == 0 {
            return Ok(());
        }
        self.plan.wait()?;
        let window = self.pace.window();
        if window == 1 {
            self.pace.count(&[(self.pace.uncounted() * self.draws.len()) as u32]);
            return Ok(());
        }
        let (runs, widest) = (self.windows().runs, self.shape.widest_window());
        let mut counts = vec![0u32; self.places.len() * widest];
        self.plan.read(runs, 0, &mut counts)?;
        let sums: Vec<u32> = (0..window).map(|i| counts.iter().skip(i).step_by(widest).sum()).collect();
        counts.fill(0);
        self.plan.write(runs, 0, &counts)?;
        self.pace.count(&sums);
        self.follow()?;
        self.plan.read(self.gpt.rows, 0, &mut self.rows)?;
        for picture in self.places.iter_mut().flatten() {
            if let Some((first, count)) = picture.rows {
                picture.guesses.clear();
                picture.guesses.extend(self.rows[first + 1..first + count].iter().map(|row| row.token));
            }
        }
        Ok(())
    }
}
