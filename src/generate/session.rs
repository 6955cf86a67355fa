//! Pictures in flight: which rows a step carries, and what they draw.

use std::sync::Arc;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::{Condition, GptConfig};
use crate::graph::ops::NO_CODE;
use crate::graph::{Draw, Extent, Graph, NO_ROW, Row};
use crate::models::{GptGraph, GptShape};
use crate::{Error, Result};

use super::Request;

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
    /// The tables on the device no longer say what the places hold.
    stale: bool,
    runs_ahead: bool,
}

/// A picture in its place.
#[derive(Clone, Copy)]
struct Picture {
    ticket: u64,
    request: Request,
    /// The token that the next step draws.
    token: usize,
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
        // A class is one condition token: log 1.
        plan.write(gpt.prefix_log_n, 0, &vec![0f32; shape.slots])?;
        Ok(Self {
            plan,
            config: config.clone(),
            tokens: shape.tokens(),
            places: vec![None; shape.pictures],
            rows: Vec::with_capacity(shape.rows),
            draws: Vec::with_capacity(shape.pictures),
            stale: true,
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

    /// Gives a picture a place; `false` when there is none. `ticket` comes back with the codes.
    pub fn start(&mut self, ticket: u64, request: &Request) -> Result<bool> {
        let Condition::Class { num_classes } = self.config.condition else {
            unreachable!("the graph is a class model's");
        };
        if request.class as usize >= num_classes {
            return Err(Error::Option {
                option: "class",
                value: request.class.to_string(),
                expected: format!("a class from 0 to {}", num_classes - 1),
                hint: String::new(),
            });
        }
        let Some(place) = self.places.iter_mut().find(|place| place.is_none()) else {
            return Ok(false);
        };
        *place = Some(Picture { ticket, request: *request, token: 0 });
        self.stale = true;
        Ok(true)
    }

    /// Draws up to `most` tokens of every picture in flight, as many as can be drawn before a picture ends or
    /// loses its guidance; returns how many tokens that were, of all pictures together.
    pub fn advance(&mut self, most: usize) -> Result<usize> {
        if self.free() == self.places() {
            return Ok(0);
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

    /// Hands out the pictures that have all their tokens and frees their places.
    pub fn finish(&mut self, mut take: impl FnMut(Finished)) -> Result<()> {
        for place in 0..self.places.len() {
            let Some(Picture { ticket, token, .. }) = self.places[place] else { continue };
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

    /// Writes the tables anew from what the places hold.
    fn write_tables(&mut self) -> Result<()> {
        self.rows.clear();
        self.draws.clear();
        for (place, picture) in self.places.iter().enumerate() {
            let Some(Picture { request, token, .. }) = picture else { continue };
            let sampling = &request.sampling;
            let (mut cond, mut uncond) = (request.class, self.config.unconditional_label());
            if *token > 0 {
                let mut last = [0u32];
                self.plan.read(self.gpt.codes, place * self.tokens + token - 1, &mut last)?;
                // A draw that failed goes on with a harmless token; `finish` tells.
                let last = if last[0] == NO_CODE { 0 } else { last[0] };
                (cond, uncond) = (last, last);
            }
            let row = |slot: usize, token_: u32| Row {
                slot: slot as u32,
                position: *token as u32,
                token: token_,
                reserved: 0,
            };
            let cond_row = self.rows.len() as u32;
            self.rows.push(row(2 * place, cond));
            let guided = sampling.guides(*token);
            if guided {
                self.rows.push(row(2 * place + 1, uncond));
            }
            self.draws.push(Draw {
                seed: sampling.seed,
                image: request.image,
                cond_row,
                uncond_row: if guided { cond_row + 1 } else { NO_ROW },
                token: *token as u32,
                picture: place as u32,
                cfg_scale: sampling.cfg_scale.unwrap_or(1.0),
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                greedy: sampling.greedy.into(),
                reserved: [0; 3],
            });
        }
        self.plan.write(self.gpt.rows, 0, &self.rows)?;
        self.plan.write(self.gpt.draws, 0, &self.draws)?;
        self.stale = false;
        Ok(())
    }
}
