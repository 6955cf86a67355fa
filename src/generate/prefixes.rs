//! Texts in the transformer: computed in passes of their own, kept, and put into the cache.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Plan;
use crate::checkpoint::Checkpoint;
use crate::config::{Condition, GptConfig};
use crate::graph::{BufferId, Extent, Row};
use crate::models::{GptGraph, GptText};
use crate::{Error, Result};

use super::TextFeatures;

/// What a text leaves in the transformer: all that its image tokens ever see of it.
pub(super) struct Prefix {
    /// n: tokens that it stands for
    pub tokens: usize,
    /// (L, C) the mean V
    pub v: Vec<f32>,
    /// (V) what says token 0
    pub logits: Vec<f32>,
}

/// What a prefix is computed from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// No text under the mask of a text of n tokens: depends on n alone.
    Unconditional(usize),
    Text(Arc<TextFeatures>),
}

impl Source {
    fn tokens(&self) -> usize {
        match self {
            Self::Unconditional(tokens) => *tokens,
            Self::Text(features) => features.tokens(),
        }
    }

    /// Whether both have the same prefix for sure: texts are told apart by their place in memory.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unconditional(a), Self::Unconditional(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// Texts whose prefixes are kept: copies of one prompt follow one another, and prompts come again.
const KEPT: usize = 64;

/// Computes prefixes and keeps them.
pub(super) struct Prefixes {
    text: GptText,
    rows: BufferId,
    logits: BufferId,
    caption_dim: usize,
    /// L * C
    width: usize,
    vocab_size: usize,
    slots: usize,
    /// (cls_token_num, caption_dim)
    uncond_embedding: Vec<f32>,
    /// By n - 1.
    unconditional: Vec<Option<Arc<Prefix>>>,
    /// The latest last, [`KEPT`] at most.
    texts: VecDeque<(Arc<TextFeatures>, Arc<Prefix>)>,
}

impl Prefixes {
    /// `None` for a class model. Errors when the checkpoint lacks the unconditional features.
    pub fn new(gpt: &GptGraph, checkpoint: &Checkpoint, config: &GptConfig, slots: usize) -> Result<Option<Self>> {
        let (Some(text), &Condition::Text { cls_token_num, caption_dim }) = (gpt.text, &config.condition) else {
            return Ok(None);
        };
        const NAME: &str = "cls_embedding.uncond_embedding";
        let tensor = checkpoint.get(NAME).filter(|tensor| tensor.shape() == [cls_token_num, caption_dim]);
        let tensor = tensor.ok_or_else(|| Error::Tensor {
            path: checkpoint.path().to_path_buf(),
            tensor: NAME.into(),
            expected: format!("[{cls_token_num}, {caption_dim}]"),
            found: checkpoint.get(NAME).map_or("none of that name".into(), |tensor| format!("{tensor:?}")),
            hint: String::new(),
        })?;
        Ok(Some(Self {
            text,
            rows: gpt.rows,
            logits: gpt.logits,
            caption_dim,
            width: config.n_layer * config.dim,
            vocab_size: config.vocab_size,
            slots,
            uncond_embedding: tensor.to_f32(),
            unconditional: vec![None; cls_token_num],
            texts: VecDeque::new(),
        }))
    }

    /// What a session runs to put prefixes into the cache and to draw from their logits.
    pub fn phases(&self) -> &GptText {
        &self.text
    }

    /// The prefix of each source: computed, or kept from before.
    pub fn get(&mut self, plan: &mut dyn Plan, sources: &[Source]) -> Result<Vec<Arc<Prefix>>> {
        let mut missing: Vec<Source> = Vec::new();
        for source in sources {
            if self.kept(source).is_none() && !missing.iter().any(|other| other.same(source)) {
                missing.push(source.clone());
            }
        }
        let mut computed: Vec<(Source, Arc<Prefix>)> = Vec::new();
        let mut rest = &missing[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(plan, rest));
            let prefixes = self.compute(plan, now)?;
            computed.extend(now.iter().cloned().zip(prefixes));
            rest = later;
        }
        let found = sources.iter().map(|source| {
            let new = computed.iter().find(|(other, _)| other.same(source));
            new.map(|(_, prefix)| prefix.clone()).or_else(|| self.kept(source)).expect("kept or just computed")
        });
        let found = found.collect();
        computed.into_iter().for_each(|(source, prefix)| self.keep(source, prefix));
        Ok(found)
    }

    fn kept(&self, source: &Source) -> Option<Arc<Prefix>> {
        match source {
            Source::Unconditional(tokens) => self.unconditional[tokens - 1].clone(),
            Source::Text(features) => {
                let (_, prefix) = self.texts.iter().find(|(other, _)| Arc::ptr_eq(other, features))?;
                Some(prefix.clone())
            }
        }
    }

    fn keep(&mut self, source: Source, prefix: Arc<Prefix>) {
        match source {
            Source::Unconditional(tokens) => self.unconditional[tokens - 1] = Some(prefix),
            Source::Text(features) => {
                if self.texts.len() == KEPT {
                    self.texts.pop_front();
                }
                self.texts.push_back((features, prefix));
            }
        }
    }

    /// How many of the first sources go into one pass; at least one.
    fn fitting(&self, plan: &dyn Plan, sources: &[Source]) -> usize {
        let mut left = plan.graph().max().rows;
        let fits = |source: &&Source| {
            let fits = source.tokens() <= left;
            left = left.saturating_sub(source.tokens());
            fits
        };
        sources.iter().take(self.slots).take_while(fits).count().max(1)
    }

    /// One pass over all sources' tokens. Touches no slot's cache.
    fn compute(&self, plan: &mut dyn Plan, sources: &[Source]) -> Result<Vec<Arc<Prefix>>> {
        let (mut rows, mut captions) = (Vec::new(), Vec::new());
        for (slot, source) in (0..).zip(sources) {
            rows.extend((0..source.tokens() as u32).map(|position| Row { slot, position, ..Row::default() }));
            match source {
                // LlamaGen pads on the left: a text's n tokens stand at the last n of all places.
                Source::Unconditional(tokens) => {
                    let all = &self.uncond_embedding;
                    captions.extend_from_slice(&all[all.len() - tokens * self.caption_dim..]);
                }
                Source::Text(features) => captions.extend_from_slice(features.values()),
            }
        }
        plan.write(self.rows, 0, &rows)?;
        plan.write_floats(self.text.caption, 0, &captions)?;
        plan.run(self.text.prefill, Extent { rows: rows.len(), draws: 0 })?;
        let mut last = 0;
        let prefixes = sources.iter().enumerate().map(|(slot, source)| {
            let tokens = source.tokens();
            last += tokens;
            let (mut v, mut logits) = (vec![0f32; self.width], vec![0f32; self.vocab_size]);
            plan.read(self.text.prefixes, slot * self.width, &mut v)?;
            plan.read(self.logits, (last - 1) * self.vocab_size, &mut logits)?;
            Ok(Arc::new(Prefix { tokens, v, logits }))
        });
        prefixes.collect()
    }

    /// Puts prefixes into the cache of their slots, and their logits, in this order, where a draw finds them.
    pub fn set(&self, plan: &mut dyn Plan, prefixes: &[(usize, Arc<Prefix>)]) -> Result<()> {
        let row = |(slot, _): &(usize, Arc<Prefix>)| Row { slot: *slot as u32, ..Row::default() };
        plan.write(self.rows, 0, &prefixes.iter().map(row).collect::<Vec<_>>())?;
        for (r, (slot, prefix)) in prefixes.iter().enumerate() {
            plan.write(self.text.prefixes, slot * self.width, &prefix.v)?;
            plan.write(self.logits, r * self.vocab_size, &prefix.logits)?;
        }
        plan.run(self.text.set_prefix, Extent { rows: prefixes.len(), draws: 0 })
    }
}
