//! From prompts to features: cleaned, cut into tokens, encoded, and kept by text.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::backend::Executor;
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::T5Config;
use crate::graph::Elem;
use crate::models::T5Shape;
use crate::text::{Tokenizer, clean_caption};
use crate::{Error, Result};

use super::{TextEncoder, TextFeatures};

/// Texts of full length that go through the encoder in one pass.
const AT_ONCE: usize = 4;

/// A tokenizer and a text encoder of one folder.
pub struct Prompter {
    tokenizer: Tokenizer,
    encoder: TextEncoder,
    /// The most tokens of a text.
    tokens: usize,
    /// By cleaned text; the latest used last.
    kept: VecDeque<(String, Arc<TextFeatures>)>,
}

/// What a prompt became.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// As the model sees it.
    pub cleaned: String,
    /// The byte of `cleaned` from which on it was too long.
    pub cut_at: Option<usize>,
    pub features: Arc<TextFeatures>,
}

impl Prompter {
    /// Texts whose features are kept, the latest used ones: at T5-XL's width and 120 tokens 1 MB each.
    pub const KEPT: usize = 256;

    /// Opens a Hugging Face T5 folder and lays its encoder out for a transformer that takes `tokens` vectors of
    /// `caption_dim` channels. Errors when something is missing from the folder, or it is of another width.
    pub fn open(
        executor: &dyn Executor,
        folder: &Path,
        (tokens, caption_dim): (usize, usize),
        precision: Elem,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::open(folder)?;
        let checkpoint = Checkpoint::open(folder, WeightsChoice::Model)?;
        Self::new(executor, tokenizer, &checkpoint, (tokens, caption_dim), precision)
    }

    /// The same with a tokenizer and weights that are open already.
    pub fn new(
        executor: &dyn Executor,
        tokenizer: Tokenizer,
        checkpoint: &Checkpoint,
        (tokens, caption_dim): (usize, usize),
        precision: Elem,
    ) -> Result<Self> {
        let config = T5Config::detect(checkpoint)?;
        if config.d_model != caption_dim {
            return Err(Error::Mismatch {
                what: format!("{}: d_model", checkpoint.path().display()),
                expected: format!("{caption_dim}, the caption_dim of the transformer"),
                found: config.d_model.to_string(),
                hint: "use the T5 that the transformer was trained with; LlamaGen's is flan-t5-xl, of 2048".into(),
            });
        }
        let shape = T5Shape { rows: AT_ONCE * tokens, tokens, precision, activations: executor.activations() };
        let encoder = TextEncoder::new(executor, checkpoint, &config, &shape)?;
        Ok(Self { tokenizer, encoder, tokens, kept: VecDeque::new() })
    }

    /// The features of each prompt; texts that were encoded before, or that are the same once cleaned, share them.
    pub fn encode(&mut self, prompts: &[&str]) -> Result<Vec<Prompt>> {
        let mut cleaned = Vec::with_capacity(prompts.len());
        let mut missing: Vec<(String, Vec<u32>)> = Vec::new();
        for prompt in prompts {
            let text = clean_caption(prompt);
            let tokens = self.tokenizer.encode(&text, self.tokens)?;
            if self.find(&text).is_none() && !missing.iter().any(|(other, _)| *other == text) {
                missing.push((text.clone(), tokens.ids));
            }
            cleaned.push((text, tokens.cut_at));
        }
        let ids: Vec<&[u32]> = missing.iter().map(|(_, ids)| ids.as_slice()).collect();
        let encoded = self.encoder.encode(&ids)?.into_iter().map(Arc::new);
        let new: Vec<_> = missing.into_iter().map(|(text, _)| text).zip(encoded).collect();
        let prompt = |(cleaned, cut_at): (String, Option<usize>)| {
            let features = new.iter().find(|(text, _)| *text == cleaned).map(|(_, features)| features.clone());
            let features = features.or_else(|| self.find(&cleaned)).expect("kept or just encoded");
            Prompt { cleaned, cut_at, features }
        };
        let prompts: Vec<Prompt> = cleaned.into_iter().map(prompt).collect();
        prompts.iter().for_each(|prompt| self.keep(prompt));
        Ok(prompts)
    }

    fn find(&self, text: &str) -> Option<Arc<TextFeatures>> {
        self.kept.iter().find(|(other, _)| other == text).map(|(_, features)| features.clone())
    }

    fn keep(&mut self, prompt: &Prompt) {
        self.kept.retain(|(text, _)| *text != prompt.cleaned);
        if self.kept.len() == Self::KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((prompt.cleaned.clone(), prompt.features.clone()));
    }
}
