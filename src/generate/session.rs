//! Pictures in flight: which rows a step carries, and what they draw.

use std::sync::Arc;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::GptConfig;
use crate::graph::ops::NO_CODE;
use crate::graph::{Draw, Extent, Graph, NO_ROW, Row};
use crate::models::{GptGraph, GptShape};
use crate::{Error, Result};

use super::prefixes::{Prefixes, Source};
use super::{Conditioning, Request};

/// A transformer laid out on a device, with places for a fixed number of pictures.
///
/// Picture place i owns cache slots 2i (conditional) and 2i + 1 (unconditional). The tables of rows and
/// draws live on the device and advance there; they are written again only when a picture starts, ends,
/// or loses its guidance. No step allocates.
pub struct Session {
    plan: Box<dyn Plan>,
    gpt: GptGraph,
    config: GptConfig,
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
}

/// A picture in its place.
#[derive(Clone)]
struct Picture {
    ticket: u64,
    request: Request,
    /// The token that the next step draws.
    token: usize,
}

impl Picture {
    /// Whether its next token is guided.
    fn guided(&self) -> bool {
        self.request.sampling.guides(self.token)
    }

    /// The draw of its next token from the logits of row `cond_row`, and under guidance of the row behind it.
    fn draw(&self, place: usize, cond_row: usize) -> Draw {
        let (sampling, cond_row) = (&self.request.sampling, cond_row as u32);
        Draw {
            seed: sampling.seed,
            image: self.request.image,
            cond_row,
            uncond_row: if self.guided() { cond_row + 1 } else { NO_ROW },
            token: self.token as u32,
            picture: place as u32,
            cfg_scale: sampling.cfg_scale.unwrap_or(1.0),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            greedy: sampling.greedy.into(),
            reserved: [0; 3],
        }
    }
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
        Ok(Self {
            plan,
            config: config.clone(),
            tokens: shape.tokens(),
            places: vec![None; shape.pictures],
            rows: Vec::with_capacity(shape.rows),
            draws: Vec::with_capacity(shape.pictures),
            blank: vec![NO_CODE; shape.tokens()],
            stale: true,
            prefixes,
            runs_ahead: executor.runs_ahead(),
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

    /// Drops all pictures in flight.
    pub fn clear(&mut self) {
        self.places.fill(None);
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
        self.places[place] = Some(Picture { ticket, request: request.clone(), token: 0 });
        self.stale = true;
        Ok(true)
    }

    /// Draws up to `most` tokens of every picture in flight, as many as can be drawn before a picture ends or
    /// loses its guidance; returns how many tokens that were, of all pictures together. Where pictures of texts
    /// have begun, these are their first tokens alone.
    pub fn advance(&mut self, most: usize) -> Result<usize> {
        if self.free() == self.places() {
            return Ok(0);
        }
        if self.prefixes.is_some() {
            let begun = self.begin_texts()?;
            if begun > 0 {
                return Ok(begun);
            }
        }
        if self.stale {
            self.write_tables()?;
        }
        let until_change = |picture: &Picture| {
            let guided_tokens = picture.request.sampling.guided_tokens;
            let end = if picture.token < guided_tokens { guided_tokens.min(self.tokens) } else { self.tokens };
            end - picture.token
        };
        let steps = self.places.iter().flatten().map(until_change).min().unwrap_or(0).min(most);
        let extent = Extent { rows: self.rows.len(), draws: self.draws.len() };
        self.plan.replay(self.gpt.step, extent, steps)?;
        for picture in self.places.iter_mut().flatten() {
            picture.token += steps;
            self.stale |= picture.token == self.tokens || picture.token == picture.request.sampling.guided_tokens;
        }
        Ok(steps * extent.draws)
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

    /// Puts the texts of pictures without a token into the cache and draws their first tokens; returns how many.
    fn begin_texts(&mut self) -> Result<usize> {
        let Some(prefixes) = &mut self.prefixes else { return Ok(0) };
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
            draws.push(picture.draw(place, cond_row));
        }
        if slots.is_empty() {
            return Ok(0);
        }
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
        self.stale = true;
        Ok(draws.len())
    }

    /// Writes the tables anew from what the places hold.
    fn write_tables(&mut self) -> Result<()> {
        self.rows.clear();
        self.draws.clear();
        for (place, picture) in self.places.iter().enumerate() {
            let Some(picture) = picture else { continue };
            let token = picture.token;
            let (cond, uncond) = match picture.request.condition {
                Conditioning::Class(class) if token == 0 => (class, self.config.unconditional_label()),
                _ => {
                    let mut last = [0u32];
                    self.plan.read(self.gpt.codes, place * self.tokens + token - 1, &mut last)?;
                    // A draw that failed goes on with a harmless token; `finish` tells.
                    let last = if last[0] == NO_CODE { 0 } else { last[0] };
                    (last, last)
                }
            };
            let row = |slot: usize, token_: u32| Row {
                slot: slot as u32,
                position: token as u32,
                token: token_,
                reserved: 0,
            };
            let cond_row = self.rows.len();
            self.rows.push(row(2 * place, cond));
            if picture.guided() {
                self.rows.push(row(2 * place + 1, uncond));
            }
            self.draws.push(picture.draw(place, cond_row));
        }
        self.plan.write(self.gpt.rows, 0, &self.rows)?;
        self.plan.write(self.gpt.draws, 0, &self.draws)?;
        self.stale = false;
        Ok(())
    }
}
