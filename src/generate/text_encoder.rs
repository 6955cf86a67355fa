//! From tokens to the features that text models are conditioned on.

use std::sync::Arc;

use crate::backend::{Executor, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::T5Config;
use crate::graph::{Cost, Extent, Graph, Load, Row};
use crate::models::{T5Graph, T5Shape};
use crate::{Error, Result};

use super::painter::check_memory;

/// A text as a transformer is conditioned on it: one vector per valid token, padding left out.
#[derive(Clone, Debug, PartialEq)]
pub struct TextFeatures {
    /// Channels of a vector.
    width: usize,
    /// (n, width)
    values: Vec<f32>,
}

impl TextFeatures {
    /// Features that were computed elsewhere, (n, width). Panics when `values` is empty or fills no whole row.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(!values.is_empty() && values.len().is_multiple_of(width), "{} values of {width}", values.len());
        Self { width, values }
    }

    /// n: valid tokens, at least one.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// Channels of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// (n, width)
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// A T5 encoder laid out on a device.
pub struct TextEncoder {
    plan: Box<dyn Plan>,
    t5: T5Graph,
    config: T5Config,
    shape: T5Shape,
    /// Room for the table.
    rows: Vec<Row>,
}

impl TextEncoder {
    /// Lays the encoder out. Errors when weights are missing or memory does not hold it.
    pub fn new(executor: &dyn Executor, checkpoint: &Checkpoint, config: &T5Config, shape: &T5Shape) -> Result<Self> {
        assert!(shape.rows >= shape.tokens && shape.tokens > 0, "{shape:?} cannot hold a text");
        let t5 = T5Graph::new(config, shape);
        check_memory(executor, &t5.graph, "use --precision bf16, or features computed elsewhere")?;
        let plan = executor.plan(Arc::new(t5.graph.clone()), checkpoint)?;
        Ok(Self { plan, t5, config: config.clone(), shape: *shape, rows: Vec::with_capacity(shape.rows) })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.t5.graph
    }

    /// Bytes and FLOPs of one pass.
    pub fn cost(&self, load: &Load) -> Cost {
        self.t5.graph.cost(self.t5.encode, load)
    }

    /// The features of each text of valid tokens, as many texts in one pass as its rows hold. A text's features
    /// do not depend on the others.
    ///
    /// Errors when a text is empty, longer than the plan's texts, or has a token that is not in the vocabulary.
    pub fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<TextFeatures>> {
        texts.iter().try_for_each(|text| self.check(text))?;
        let mut features = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while !rest.is_empty() {
            self.rows.clear();
            let mut count = 0;
            while let Some(text) = rest.get(count).filter(|text| self.rows.len() + text.len() <= self.shape.rows) {
                let row = |(position, &token)| Row { slot: count as u32, position, token, settled: 0 };
                self.rows.extend((0..).zip(*text).map(row));
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            self.plan.write(self.t5.rows, 0, &self.rows)?;
            self.plan.run(self.t5.encode, Extent { rows: self.rows.len(), draws: 0 })?;
            let (width, mut first) = (self.config.d_model, 0);
            for text in now {
                let mut values = vec![0f32; text.len() * width];
                self.plan.read(self.t5.features, first * width, &mut values)?;
                features.push(TextFeatures { width, values });
                first += text.len();
            }
        }
        Ok(features)
    }

    fn check(&self, text: &[u32]) -> Result<()> {
        let wrong = |what: &str, expected: String, found: String| {
            let hint = "the tokenizer does not fit the T5 encoder: both belong to one folder".into();
            Err(Error::Mismatch { what: what.into(), expected, found, hint })
        };
        if !(1..=self.shape.tokens).contains(&text.len()) {
            return wrong("tokens of a text", format!("1 to {}", self.shape.tokens), text.len().to_string());
        }
        match text.iter().find(|&&token| token as usize >= self.config.vocab_size) {
            Some(token) => wrong("token", format!("0 to {}", self.config.vocab_size - 1), token.to_string()),
            None => Ok(()),
        }
    }
}
