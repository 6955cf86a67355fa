//! What is asked for and what comes back.

use std::sync::Arc;
use std::time::Duration;

use crate::config::GenerationOptions;
use crate::generate::TextFeatures;
use crate::image::{Rgb8, encode_png};
use crate::{Error, Result};

/// What a picture is to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A class of a class model, by number; [`Model::class`](super::Model::class) finds it by name.
    Class(u32),
    /// A prompt for a text model that came with its encoder.
    Prompt(String),
    /// A text's features that were computed elsewhere, for a text model.
    Features(Arc<TextFeatures>),
}

/// Pictures of one or several subjects with one set of options.
///
/// The pictures' numbers count from `first_image` in the order of the subjects, copies innermost; number and seed
/// decide a picture's noise, so that the same request gives the same pictures in any company.
///
/// ```
/// let mut request = smalti::Request::class(7);
/// request.count = 4;
/// request.options.seed = 11;
/// assert_eq!(request.images(), 4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub subjects: Vec<Subject>,
    /// Pictures of each subject.
    pub count: usize,
    pub options: GenerationOptions,
    /// Number of the first picture.
    pub first_image: u64,
    /// Previews of each picture while it is drawn, spread evenly over its rows; fewer may come where the device
    /// is busy with finished pictures.
    pub previews: usize,
    /// The time that it may take from when it is submitted.
    pub deadline: Option<Duration>,
}

impl Request {
    /// One picture of each subject, with the model's default options.
    pub fn new(subjects: Vec<Subject>) -> Self {
        let options = GenerationOptions::default();
        Self { subjects, count: 1, options, first_image: 0, previews: 0, deadline: None }
    }

    /// One picture of a class.
    pub fn class(class: u32) -> Self {
        Self::new(vec![Subject::Class(class)])
    }

    /// One picture of a prompt.
    pub fn prompt(prompt: impl Into<String>) -> Self {
        Self::new(vec![Subject::Prompt(prompt.into())])
    }

    /// How many pictures it asks for.
    pub fn images(&self) -> usize {
        self.subjects.len().saturating_mul(self.count)
    }

    /// Finds out what can be found out without a session: how many pictures, and that all have numbers.
    pub fn check(&self) -> Result<()> {
        let wrong = |option, value: usize, expected: String| {
            Err(Error::Option { option, value: value.to_string(), expected, hint: String::new() })
        };
        let images = self.images();
        if !(1..=MOST_IMAGES).contains(&images) {
            return wrong("count", self.count, format!("1 to {MOST_IMAGES} pictures in all"));
        }
        if self.first_image.checked_add(images as u64).is_none() {
            let expected = format!("room for the numbers of {images} pictures");
            return wrong("first-image", self.first_image as usize, expected);
        }
        Ok(())
    }
}

/// A picture that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Its number, which with the seed decided its noise.
    pub number: u64,
    pub seed: u64,
    /// Condition tokens of its subject: one for a class, the valid ones of a text.
    pub condition_tokens: usize,
    /// The end of a prompt, once cleaned, that had more tokens than the model takes: it had no part in the picture.
    pub prompt_cut: Option<Arc<str>>,
    /// (N) in raster order.
    pub codes: Vec<u32>,
    pub picture: Rgb8,
}

impl Image {
    /// As the bytes of a PNG file, with `text` as its (keyword, value) fields.
    pub fn png(&self, text: &[(&str, &str)]) -> Result<Vec<u8>> {
        encode_png(&self.picture, text)
    }
}

/// What happens to a request, in order; [`Event::Done`] is the last one, always.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A picture has further whole rows of codes.
    Rows {
        /// Its place in the request.
        index: usize,
        /// Rows that it has, of [`Model::latent_size`](super::Model::latent_size).
        rows: usize,
    },
    /// A picture as far as it is drawn; below, each column's last code goes on.
    Preview {
        index: usize,
        /// Which of the request's previews of this picture, from 0.
        number: usize,
        rows: usize,
        picture: Rgb8,
    },
    /// A picture is done.
    Image(Image),
    /// All are done, or the first error: nothing comes after.
    Done(Result<Timings>),
}

/// Where a request's time went. Others' work in between counts too, so parts need not add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From its submission until it left the queue.
    pub queued: Duration,
    /// Its prompts through the text encoder.
    pub encoding: Duration,
    /// From its submission until its first code was drawn.
    pub first_token: Duration,
    /// From its first picture's beginning until the end of the round in which its last code was drawn; what was painted
    /// in that round is in it.
    pub drawing: Duration,
    /// From its submission until all was painted.
    pub total: Duration,
    /// Its pictures and previews through the VQ decoder, on a GPU also beside those of others.
    pub painting: Duration,
}

/// More pictures in one request are a slip of the finger.
const MOST_IMAGES: usize = 1 << 20;
