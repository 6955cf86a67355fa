//! How pictures are drawn: the options of one generation, defined once.
//!
//! The command line, the server and the C interface all fill in [`GenerationOptions`]; below
//! [`GenerationOptions::validate`] there are only [`Sampling`]s, whose values it has checked.

use serde::{Deserialize, Serialize};

use super::Condition;
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// LlamaGen's sampling options, by its names and with its defaults; where these differ between class and text
/// models, `None` stands for them until [`GenerationOptions::of_model`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationOptions {
    /// Strength of classifier-free guidance; 1 or less switches it off and halves the work. By default 4, for text
    /// models 7.5
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub cfg_scale: Option<f32>,
    /// Guide only the first tokens, up to this one and the next; -1 guides all
    #[arg(long, default_value_t = -1, value_name = "TOKEN", allow_negative_numbers = true)]
    pub cfg_interval: i32,
    /// Flattens (above 1) or sharpens (below 1) the distribution
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    pub temperature: f32,
    /// Draw among the K likeliest codes only; 0 draws among all. By default 2000, for text models 1000
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<i64>,
    /// Draw among the likeliest codes that together have this probability; in (0, 1]
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    pub top_p: f32,
    /// Always take the likeliest code
    #[arg(long)]
    pub greedy: bool,
    /// Same seed, same pictures
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self { cfg_scale: None, cfg_interval: -1, temperature: 1.0, top_k: None, top_p: 1.0, greedy: false, seed: 0 }
    }
}

/// Options that were checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Above 1, or `None` for no guidance.
    pub cfg_scale: Option<f32>,
    /// Tokens 0..this are guided.
    pub guided_tokens: usize,
    /// At least 1e-5.
    pub temperature: f32,
    /// 1..=V.
    pub top_k: u32,
    /// In (0, 1].
    pub top_p: f32,
    pub greedy: bool,
    pub seed: u64,
}

impl GenerationOptions {
    /// LlamaGen's guidance and top-k for class models, and those for text models.
    const OF_CLASSES: (f32, i64) = (4.0, 2000);
    const OF_TEXTS: (f32, i64) = (7.5, 1000);

    /// With the model's defaults where nothing else was asked for: `cfg_scale` and `top_k` in the checkpoint's
    /// metadata or config.json, else LlamaGen's for such a condition.
    pub fn of_model(&self, checkpoint: &Checkpoint, condition: &Condition) -> Self {
        let (cfg_scale, top_k) = match condition {
            Condition::Class { .. } => Self::OF_CLASSES,
            Condition::Text { .. } => Self::OF_TEXTS,
        };
        let told = |name: &str| checkpoint.metadata().get(name).map(|text| text.trim());
        let cfg_scale = told("cfg_scale").and_then(|text| text.parse().ok()).unwrap_or(cfg_scale);
        let top_k = told("top_k").and_then(|text| text.parse().ok()).unwrap_or(top_k);
        Self { cfg_scale: self.cfg_scale.or(Some(cfg_scale)), top_k: self.top_k.or(Some(top_k)), ..self.clone() }
    }

    /// Checks every option; `vocab_size` is what "all codes" means. What [`Self::of_model`] left open is taken as
    /// for class models.
    pub fn validate(&self, vocab_size: usize) -> Result<Sampling> {
        let cfg_scale = self.cfg_scale.unwrap_or(Self::OF_CLASSES.0);
        let top_k = self.top_k.unwrap_or(Self::OF_CLASSES.1);
        let wrong = |option, value: String, expected: &str, hint: &str| {
            Err(Error::Option { option, value, expected: expected.into(), hint: hint.into() })
        };
        if !cfg_scale.is_finite() {
            return wrong("cfg-scale", cfg_scale.to_string(), "a finite number", "1 switches guidance off");
        }
        if self.cfg_interval < -1 {
            let hint = "-1 guides all tokens";
            return wrong("cfg-interval", self.cfg_interval.to_string(), "a token number, or -1", hint);
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let hint = "--greedy takes the likeliest code";
            return wrong("temperature", self.temperature.to_string(), "a number of 0 or more", hint);
        }
        if top_k < 0 {
            return wrong("top-k", top_k.to_string(), "0 (all codes) or more", "");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top-p", self.top_p.to_string(), "a number above 0 and at most 1", "1 keeps all codes");
        }
        Ok(Sampling {
            cfg_scale: (cfg_scale > 1.0).then_some(cfg_scale),
            // Token 0 comes from the prefill; LlamaGen counts the decoding steps behind it from 0.
            guided_tokens: if self.cfg_interval < 0 { usize::MAX } else { self.cfg_interval as usize + 2 },
            temperature: self.temperature.max(1e-5),
            top_k: if top_k == 0 { vocab_size } else { (top_k as u64).min(vocab_size as u64) as usize } as u32,
            top_p: self.top_p,
            greedy: self.greedy,
            seed: self.seed,
        })
    }
}

impl Sampling {
    /// Whether token `token` of a picture is guided.
    pub fn guides(&self, token: usize) -> bool {
        self.cfg_scale.is_some() && token < self.guided_tokens
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn llamagens_defaults_are_valid() {
        let sampling = GenerationOptions::default().validate(16384).unwrap();
        assert_eq!((sampling.cfg_scale, sampling.top_k), (Some(4.0), 2000));
        assert!(sampling.guides(0) && sampling.guides(575));
    }

    #[test]
    fn text_models_have_defaults_of_their_own_and_what_was_asked_for_stays() {
        let text = Condition::Text { cls_token_num: 120, caption_dim: 2048 };
        let silent = Checkpoint::from_tensors("silent", BTreeMap::new(), BTreeMap::new());
        let options = GenerationOptions::default().of_model(&silent, &text);
        assert_eq!((options.cfg_scale, options.top_k), (Some(7.5), Some(1000)));
        let asked = GenerationOptions { cfg_scale: Some(3.0), ..Default::default() };
        let sampling = asked.of_model(&silent, &text).validate(16384).unwrap();
        assert_eq!((sampling.cfg_scale, sampling.top_k), (Some(3.0), 1000));
    }

    #[test]
    fn a_checkpoint_may_tell_its_defaults() {
        let metadata = [("cfg_scale", "2.5"), ("top_k", "0")].map(|(name, text)| (name.into(), text.into()));
        let telling = Checkpoint::from_tensors("telling", BTreeMap::new(), metadata.into());
        let classes = Condition::Class { num_classes: 32 };
        let options = GenerationOptions { cfg_scale: Some(4.0), ..Default::default() }.of_model(&telling, &classes);
        assert_eq!((options.cfg_scale, options.top_k), (Some(4.0), Some(0)));
        assert_eq!(GenerationOptions::default().of_model(&telling, &classes).cfg_scale, Some(2.5));
    }

    #[test]
    fn an_interval_guides_the_prefill_and_the_steps_up_to_it() {
        let options = GenerationOptions { cfg_interval: 3, ..Default::default() };
        let sampling = options.validate(16384).unwrap();
        assert!(sampling.guides(4) && !sampling.guides(5));
    }

    #[test]
    fn limits_fold_into_the_range() {
        let options = GenerationOptions {
            top_k: Some(10_000_000_000),
            temperature: 0.0,
            cfg_scale: Some(1.0),
            ..Default::default()
        };
        let sampling = options.validate(300).unwrap();
        assert_eq!((sampling.top_k, sampling.temperature, sampling.cfg_scale), (300, 1e-5, None));
        assert_eq!(GenerationOptions { top_k: Some(0), ..Default::default() }.validate(300).unwrap().top_k, 300);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |options: GenerationOptions| match options.validate(300) {
            Err(Error::Option { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let default = GenerationOptions::default;
        assert_eq!(refused(GenerationOptions { temperature: f32::NAN, ..default() }), "temperature");
        assert_eq!(refused(GenerationOptions { temperature: -1.0, ..default() }), "temperature");
        assert_eq!(refused(GenerationOptions { top_p: 0.0, ..default() }), "top-p");
        assert_eq!(refused(GenerationOptions { top_p: 1.1, ..default() }), "top-p");
        assert_eq!(refused(GenerationOptions { top_p: f32::NAN, ..default() }), "top-p");
        assert_eq!(refused(GenerationOptions { top_k: Some(-1), ..default() }), "top-k");
        assert_eq!(refused(GenerationOptions { cfg_scale: Some(f32::INFINITY), ..default() }), "cfg-scale");
        assert_eq!(refused(GenerationOptions { cfg_interval: -2, ..default() }), "cfg-interval");
    }
}
