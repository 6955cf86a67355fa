//! What the pictures are to show: classes, prompts, or features computed elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::device::{DeviceArgs, Precision};
use super::parameters::file_name;
use super::progress::Display;
use super::{plural, wrong_option};
use crate::backend::{Device, Executor};
use crate::config::{Condition, GptConfig, Labels, resolve_classes};
use crate::demo::{self, Half};
use crate::generate::{Conditioning, Model, Prompt, Prompter, TextFeatures};
use crate::{Error, Result};

/// What to say of an encoder that was named beside the demo model.
pub const OWN_ENCODER: &str = "--t5-path is not used: the demo model has an encoder of its own";

/// LlamaGen's own sample classes, for models of the 1000 ImageNet classes.
const SAMPLE_CLASSES: &str = "207,360,387,974,88,979,417,279";

/// Flags for what to show.
#[derive(Args, Clone, Debug)]
pub struct SubjectArgs {
    /// What a text model is to show; several prompts make several pictures
    #[arg(value_name = "PROMPT")]
    prompts: Vec<String>,
    /// Prompts from a file, one a line; blank lines are passed over
    #[arg(long = "prompts", value_name = "FILE", conflicts_with = "prompts")]
    file: Option<PathBuf>,
    /// Features of texts that were computed elsewhere: a safetensors file with caption_embeddings and caption_mask
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompts", "file"])]
    text_features: Option<PathBuf>,
    /// The text encoder of a text model: a Hugging Face T5 folder with its weights, config.json and tokenizer.json
    #[arg(long, value_name = "FOLDER", env = "SMALTI_T5_PATH")]
    t5_path: Option<PathBuf>,
    /// Where to run the text encoder; by default where all else runs
    #[arg(long, value_name = "DEVICE", env = "SMALTI_TEXT_DEVICE")]
    text_device: Option<Device>,
    /// Class numbers or names, separated by commas; LlamaGen's eight sample classes by default, or sixteen of the demo's
    #[arg(
        long = "class",
        value_name = "CLASSES",
        conflicts_with_all = ["prompts", "file", "text_features"],
        allow_negative_numbers = true
    )]
    classes: Option<String>,
}

/// One thing to show.
pub struct Subject {
    pub condition: Conditioning,
    /// An object: what files tell of it.
    pub about: Value,
}

/// Where and how the text encoder runs.
pub struct Encoding<'a> {
    /// Where all else runs.
    pub executor: &'a dyn Executor,
    pub device: &'a DeviceArgs,
    pub precision: Precision,
    /// Whether the transformer is the demo model's.
    pub demo: bool,
}

impl SubjectArgs {
    /// The half of the demo model that takes what was asked for; the one for classes where nothing was.
    pub fn half(&self) -> Half {
        let texts = !self.prompts.is_empty() || self.file.is_some() || self.text_features.is_some();
        if texts { Half::Prompts } else { Half::Classes }
    }

    /// The subjects for a model, whose prompts it encodes. Errors when they are of the other kind.
    pub fn resolve(
        &self,
        model: &Model,
        labels: Option<&Labels>,
        encoding: &Encoding<'_>,
        display: &Display,
    ) -> Result<Vec<Subject>> {
        let (gpt, config) = (model.gpt.path(), &model.gpt_config);
        match config.condition {
            Condition::Class { num_classes } => {
                let usual = encoding.demo.then_some(demo::CLASSES);
                self.classes(gpt, num_classes, usual, labels)
            }
            Condition::Text { cls_token_num, caption_dim } => {
                if let Some(classes) = &self.classes {
                    let expected = format!("a prompt, as {} is text-conditional (t2i)", gpt.display());
                    return Err(wrong_option("class", classes, expected, "smalti generate \"a red sailboat\" …"));
                }
                match &self.text_features {
                    Some(path) => features(path, config),
                    None => self.prompts((cls_token_num, caption_dim), encoding, display),
                }
            }
        }
    }

    /// The T5 folder's name, where it encoded a text model's prompts: not the demo model's.
    pub fn t5_name(&self, demo: bool) -> Option<String> {
        let encodes = !demo && (!self.prompts.is_empty() || self.file.is_some());
        self.t5_path.as_deref().filter(|_| encodes).and_then(file_name)
    }

    fn classes(
        &self,
        gpt: &Path,
        num_classes: usize,
        usual: Option<&str>,
        labels: Option<&Labels>,
    ) -> Result<Vec<Subject>> {
        let texts = [
            ("PROMPT", self.prompts.first().map(|prompt| excerpt(prompt))),
            ("prompts", self.file.as_ref().map(|path| path.display().to_string())),
            ("text-features", self.text_features.as_ref().map(|path| path.display().to_string())),
        ];
        if let Some((option, Some(value))) = texts.into_iter().find(|(_, value)| value.is_some()) {
            let expected = format!("--class, as {} is class-conditional (c2i)", gpt.display());
            return Err(wrong_option(option, value, expected, "prompts need a text-conditional checkpoint (t2i)"));
        }
        let list = match (&self.classes, usual) {
            (Some(list), _) => list,
            (None, Some(usual)) => usual,
            (None, None) if num_classes == 1000 => SAMPLE_CLASSES,
            (None, None) => {
                let expected = format!("at least one class from 0 to {}, or a name", num_classes - 1);
                return Err(wrong_option("class", "(missing)", expected, ""));
            }
        };
        let subject = |class: u32| {
            let name = labels.and_then(|labels| labels.name(class));
            Subject { condition: Conditioning::Class(class), about: json!({ "class": class, "class_name": name }) }
        };
        Ok(resolve_classes(labels, list, num_classes)?.into_iter().map(subject).collect())
    }

    fn prompts(&self, sizes: (usize, usize), encoding: &Encoding<'_>, display: &Display) -> Result<Vec<Subject>> {
        let prompts = match &self.file {
            Some(path) => read_prompts(path, display)?,
            None if self.prompts.is_empty() => {
                let hint = "smalti generate \"a red sailboat\" …, or --prompts FILE, or --text-features FILE";
                return Err(wrong_option("PROMPT", "(missing)", "at least one, for a text-conditional model", hint));
            }
            None => self.prompts.clone(),
        };
        let Encoding { executor, device: all_else, precision, demo } = *encoding;
        let folder = match (&self.t5_path, demo) {
            (Some(folder), false) => Some(folder),
            (None, false) => {
                let hint =
                    "LlamaGen's text models were trained with flan-t5-xl; --text-features takes features as they are";
                return Err(wrong_option("t5-path", "(missing)", "the folder of a T5 encoder, for prompts", hint));
            }
            (Some(_), true) => {
                display.note(OWN_ENCODER);
                None
            }
            (None, true) => None,
        };
        let own = match self.text_device.filter(|&device| device != all_else.device) {
            Some(device) => {
                let device = DeviceArgs { device, threads: all_else.threads };
                Some(device.executor(Some(precision), display)?)
            }
            None => None,
        };
        let executor = own.as_deref().unwrap_or(executor);
        let mut prompter = match folder {
            Some(folder) => Prompter::open(executor, folder, sizes, precision.elem())?,
            None => demo::prompter(executor, sizes, precision.elem())?,
        };
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let encoded = prompter.encode(&texts)?;
        for (number, prompt) in (1..).zip(&encoded) {
            if let Some(told) = cut(prompt, sizes.0) {
                display.note(&format!("prompt {number} {told}"));
            }
        }
        let subject = |(text, prompt): (String, Prompt)| Subject {
            condition: Conditioning::Text(prompt.features),
            about: json!({ "prompt": text }),
        };
        Ok(prompts.into_iter().zip(encoded).map(subject).collect())
    }
}

/// Subjects from a file of features, checked against the transformer.
fn features(path: &Path, config: &GptConfig) -> Result<Vec<Subject>> {
    let texts = TextFeatures::read(path)?.into_iter().enumerate();
    let subject = |(text, features): (usize, TextFeatures)| {
        let condition = Conditioning::Text(Arc::new(features));
        condition.check(config)?;
        Ok(Subject { condition, about: json!({ "text_features": file_name(path), "text": text }) })
    };
    texts.map(subject).collect()
}

/// Prompts, one a line, blank lines left out.
fn read_prompts(path: &Path, display: &Display) -> Result<Vec<String>> {
    let wrong = |problem: String, hint: &str| {
        Err(Error::Format { path: path.to_path_buf(), format: "prompts", problem, hint: hint.into() })
    };
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}'),
        Err(error) => {
            let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            return wrong(format!("line {line} is not UTF-8"), "save the file as UTF-8");
        }
    };
    let (prompts, blank): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| !line.trim().is_empty());
    if prompts.is_empty() {
        return wrong("expected a prompt a line, found none".into(), "an empty prompt is \"\" on the command line");
    }
    if !blank.is_empty() {
        display.note(&format!("{}: {} passed over", path.display(), plural(blank.len(), "blank line")));
    }
    Ok(prompts.into_iter().map(String::from).collect())
}

/// Where a prompt that was too long was cut.
fn cut(prompt: &Prompt, tokens: usize) -> Option<String> {
    const SHOWN: usize = 30;
    let (kept, dropped) = prompt.cleaned.split_at(prompt.cut_at?);
    let start = kept.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
    Some(format!("is longer than {tokens} tokens and was cut: \"…{}\" | \"{}\"", &kept[start..], excerpt(dropped)))
}

/// The beginning of a text, as long as a line of an error may be.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 30;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
