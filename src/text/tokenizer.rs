//! T5's tokenizer from a Hugging Face folder, cut as LlamaGen cuts.

use std::fs;
use std::path::{Path, PathBuf};

use tokenizers::ModelWrapper;

use crate::error::{Error, Result};

/// The end of every text.
const END: &str = "</s>";

const HINT: &str = "take tokenizer.json from the folder of the T5 that the model was trained with, such as flan-t5-xl";

/// A T5 tokenizer.
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    end: u32,
    path: PathBuf,
}

/// A text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Ids, the last of them `</s>`. They are the valid ones; whoever needs more fills up with [`Tokens::PAD`] behind.
    pub ids: Vec<u32>,
    /// Where a text that was too long was cut: the byte in it at which the first dropped token begins.
    pub cut_at: Option<usize>,
}

impl Tokens {
    /// The id of what is no token.
    pub const PAD: u32 = 0;

    /// The ids filled up with [`Tokens::PAD`] to `max_tokens`, and 1 for each that is valid, 0 for the others.
    pub fn padded(&self, max_tokens: usize) -> (Vec<u32>, Vec<u8>) {
        let (mut ids, mut mask) = (self.ids.clone(), vec![1; self.ids.len()]);
        ids.resize(max_tokens, Self::PAD);
        mask.resize(max_tokens, 0);
        (ids, mask)
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a Hugging Face T5 folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is missing, damaged, or none of a T5's.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        fs::read_dir(folder).map_err(Error::io("open", folder))?;
        if !path.exists() {
            return Err(missing(folder));
        }
        Self::parse(path.clone(), &fs::read(&path).map_err(Error::io("read", &path))?)
    }

    /// Reads the contents of a `tokenizer.json`; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Format`] if it is damaged, or none of a T5's.
    pub fn parse(path: PathBuf, json: &[u8]) -> Result<Self> {
        let wrong = |problem: String| Error::Format {
            path: path.clone(),
            format: "T5 tokenizer",
            problem,
            hint: HINT.to_string(),
        };
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|error| wrong(error.to_string()))?;
        match tokenizer.get_model() {
            ModelWrapper::Unigram(_) => (),
            other => return Err(wrong(format!("expected a Unigram model, found {}", kind(other)))),
        }
        let Some(end) = tokenizer.token_to_id(END) else {
            return Err(wrong(format!("expected a token {END}, found none")));
        };
        // Both are for the caller, who knows the length, and cutting has to tell where.
        tokenizer.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, end, path })
    }

    /// The tokens of a text, cut so that there are at most `max_tokens` with the `</s>`, which is always there.
    ///
    /// ```no_run
    /// let tokenizer = smalti::text::Tokenizer::open("flan-t5-xl".as_ref())?;
    /// let tokens = tokenizer.encode(&smalti::text::clean_caption("A Tree"), 120)?;
    /// if let Some(at) = tokens.cut_at {
    ///     eprintln!("only the first {at} bytes are used");
    /// }
    /// # Ok::<(), smalti::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] if the tokenizer has no token for a character, not even one for unknown ones.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Tokens> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| Error::Format {
            path: self.path.clone(),
            format: "T5 tokenizer",
            problem: error.to_string(),
            hint: HINT.to_string(),
        })?;
        let mut ids = encoding.get_ids().to_vec();
        let kept = max_tokens.saturating_sub(1);
        let cut_at = encoding.get_offsets().get(kept).map(|&(start, _)| start);
        ids.truncate(kept);
        ids.push(self.end);
        Ok(Tokens { ids, cut_at })
    }
}

/// The refusal of a folder without `tokenizer.json`.
fn missing(folder: &Path) -> Error {
    let (problem, hint) = if folder.join("spiece.model").exists() {
        (
            "expected tokenizer.json, found only spiece.model",
            "convert it with Hugging Face's transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    } else {
        ("expected tokenizer.json, found none", HINT)
    };
    Error::Format { path: folder.to_path_buf(), format: "T5 folder", problem: problem.into(), hint: hint.into() }
}

fn kind(model: &ModelWrapper) -> &'static str {
    match model {
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::WordPiece(_) => "WordPiece",
        ModelWrapper::WordLevel(_) => "WordLevel",
        ModelWrapper::Unigram(_) => "Unigram",
    }
}
