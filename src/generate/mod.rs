//! From conditions to codes: sessions that step, and the loop over a list of pictures.
//!
//! A [`Session`] holds a fixed number of places for pictures; pictures enter and leave at any time, and
//! what one gets does not depend on the others. [`generate`] sends a list through a session. A
//! [`Generator`] is a session and a [`Painter`], laid out for one model, image size and device. A [`Prompter`]
//! makes a text model's conditions: it cleans prompts and takes their tokens through a [`TextEncoder`].

mod codes;
mod features_file;
mod generator;
mod lookahead;
mod painter;
mod picture;
mod prefixes;
mod prompter;
mod session;
mod text_encoder;

pub use codes::Codes;
pub use generator::{Generator, Layout, Model, requests};
pub use lookahead::{Lookahead, Passes};
pub use painter::{Canvas, Painter, Tokenizer};
pub use prompter::{Prompt, Prompter};
pub use session::{Finished, Session};
pub use text_encoder::{TextEncoder, TextFeatures};

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::{Condition, GptConfig, Sampling};
use crate::{Error, Result};

/// What a picture is to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Conditioning {
    /// Class label, 0..num_classes, for a class model.
    Class(u32),
    /// A text's features, for a text model. Pictures of one text share its pass through the transformer when
    /// they share these.
    Text(Arc<TextFeatures>),
}

impl Conditioning {
    /// Condition tokens: one for a class, the valid ones of a text.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Class(_) => 1,
            Self::Text(features) => features.tokens(),
        }
    }

    /// Checks that a transformer takes such a condition.
    pub fn check(&self, config: &GptConfig) -> Result<()> {
        let mismatch = |what: &str, expected: String, found: String| {
            Err(Error::Mismatch { what: what.into(), expected, found, hint: String::new() })
        };
        match (&config.condition, self) {
            (Condition::Class { num_classes }, Self::Class(class)) if (*class as usize) < *num_classes => Ok(()),
            (Condition::Class { num_classes }, Self::Class(class)) => Err(Error::Option {
                option: "class",
                value: class.to_string(),
                expected: format!("a class from 0 to {}", num_classes - 1),
                hint: String::new(),
            }),
            (Condition::Text { caption_dim, .. }, Self::Text(text)) if text.width() != *caption_dim => {
                let expected = format!("{caption_dim}, the transformer's caption_dim");
                mismatch("width of a text's features", expected, text.width().to_string())
            }
            (Condition::Text { cls_token_num, .. }, Self::Text(text)) if text.tokens() > *cls_token_num => {
                let expected = format!("at most {cls_token_num}, the transformer's cls_token_num");
                mismatch("tokens of a text", expected, text.tokens().to_string())
            }
            (Condition::Text { .. }, Self::Text(_)) => Ok(()),
            (Condition::Class { .. }, Self::Text(_)) => {
                mismatch("condition", "a class: the model is class-conditional (c2i)".into(), "a text".into())
            }
            (Condition::Text { .. }, Self::Class(_)) => {
                mismatch("condition", "a text: the model is text-conditional (t2i)".into(), "a class".into())
            }
        }
    }
}

/// One picture to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub condition: Conditioning,
    /// The picture's number within its request, from 0; with the seed it decides the noise.
    pub image: u64,
    pub sampling: Sampling,
}

/// How far a list of pictures is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub images_done: usize,
    pub images: usize,
    /// Tokens drawn, of all pictures together; a device that runs ahead is a few steps behind.
    pub tokens_done: usize,
    pub tokens: usize,
}

/// Tokens of each picture between two looks at the progress.
const STEPS: usize = 16;

/// Draws all `requests`, as many at once as the session has places; returns each one's codes, (N) in raster order.
///
/// `progress` is called every few tokens; `false` stops with [`Error::Cancelled`].
pub fn generate(
    session: &mut Session,
    requests: &[Request],
    progress: impl FnMut(Progress) -> bool,
) -> Result<Vec<Vec<u32>>> {
    let mut codes: Vec<Vec<u32>> = vec![Vec::new(); requests.len()];
    let take = |drawn: Vec<(usize, Vec<u32>)>| {
        drawn.into_iter().for_each(|(index, drawn)| codes[index] = drawn);
        Ok(())
    };
    generate_each(session, requests, 1, take, progress)?;
    Ok(codes)
}

/// Draws all `requests` as [`generate`] does, and hands each one's place in the list and codes to `take` as
/// soon as they are there. An error of `take` ends the generation.
///
/// On a device that runs ahead, `take` is called while the next pictures' steps are under way: what it does
/// there, painting say, costs no time until the last ones. Of those that are done it then gets some at a time, at
/// least `together`.
pub fn generate_each(
    session: &mut Session,
    requests: &[Request],
    together: usize,
    mut take: impl FnMut(Vec<(usize, Vec<u32>)>) -> Result<()>,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<()> {
    let tokens = requests.len() * session.tokens();
    let (mut next, mut images_done, mut tokens_done) = (0, 0, 0);
    session.clear();
    let mut done: VecDeque<Finished> = VecDeque::new();
    while images_done < requests.len() {
        while next < requests.len() && session.start(next as u64, &requests[next])? {
            next += 1;
        }
        let steps = session.advance(STEPS)?;
        tokens_done += steps;
        if !session.runs_ahead() {
            session.finish(|finished| done.push_back(finished))?;
        }
        // Beside steps that are under way a part of them at a time, so that the device is given new ones before
        // it runs out.
        let some = if session.runs_ahead() && steps > 0 { done.len().div_ceil(4).max(together) } else { done.len() };
        let now = some.min(done.len());
        if now > 0 {
            take(done.drain(..now).map(|Finished { ticket, codes }| (ticket as usize, codes)).collect())?;
            images_done += now;
        }
        if session.runs_ahead() {
            session.finish(|finished| done.push_back(finished))?;
        }
        if !progress(Progress { images_done, images: requests.len(), tokens_done, tokens }) {
            session.clear();
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}
