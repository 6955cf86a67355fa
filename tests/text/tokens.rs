//! Tokens against Hugging Face's, and tokenizers that are none of a T5's.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use smalti::Error;
use smalti::text::{Tokenizer, Tokens, clean_caption};

use crate::common;

const MAX_TOKENS: usize = 120;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&golden()).unwrap_or_else(|error| panic!("{error}"))
}

fn prompts() -> Vec<String> {
    let captions: Value = serde_json::from_slice(&fs::read(golden().join("captions.json")).unwrap()).unwrap();
    serde_json::from_value(captions["prompts"].clone()).unwrap()
}

#[test]
fn ids_and_masks_are_those_of_the_golden_case() {
    let expected = common::read_expected(&golden().join("expected.safetensors"));
    let (tokenizer, prompts) = (tokenizer(), prompts());
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for prompt in &prompts {
        let tokens = tokenizer.encode(&clean_caption(prompt), MAX_TOKENS).unwrap();
        let (padded, valid) = tokens.padded(MAX_TOKENS);
        assert_eq!((padded.len(), valid.len()), (MAX_TOKENS, MAX_TOKENS));
        ids.extend(padded.into_iter().map(f64::from));
        mask.extend(valid.into_iter().map(f64::from));
    }
    assert_eq!(expected["input_ids"].shape, [prompts.len(), MAX_TOKENS]);
    assert_eq!(ids, expected["input_ids"].values);
    assert_eq!(mask, expected["attention_mask"].values);
}

#[test]
fn nothing_is_the_end_alone() {
    assert_eq!(tokenizer().encode("", MAX_TOKENS).unwrap(), Tokens { ids: vec![1], cut_at: None });
}

#[test]
fn a_prompt_that_is_too_long_keeps_its_end_and_tells_where_it_was_cut() {
    let tokenizer = tokenizer();
    let long = clean_caption(&prompts()[3]);
    let cut = tokenizer.encode(&long, MAX_TOKENS).unwrap();
    assert_eq!((cut.ids.len(), cut.ids[MAX_TOKENS - 1], cut.cut_at), (MAX_TOKENS, 1, Some(145)));
    assert!(long[145..].starts_with("n on the chest that says"));
    let whole = tokenizer.encode(&long, 2000).unwrap();
    assert_eq!((whole.ids.len(), whole.cut_at), (919, None));
    assert_eq!(whole.ids[..MAX_TOKENS - 1], cut.ids[..MAX_TOKENS - 1]);

    // Exactly as many as there is room for, and one less.
    assert_eq!(tokenizer.encode(&long, 919).unwrap(), whole);
    let last = tokenizer.encode(&long, 918).unwrap();
    assert_eq!((last.ids.len(), last.cut_at), (918, Some(long.len() - 1)));
    assert_eq!(tokenizer.encode("a tree", 1).unwrap(), Tokens { ids: vec![1], cut_at: Some(0) });
}

/// The place is one of the prompt's bytes, whatever the tokenizer's own normalization made of its characters.
#[test]
fn the_cut_is_where_a_character_begins() {
    let text = "日本 ﬁsail ½ \u{301}boat é\u{302} ＡＢ";
    let tokenizer = tokenizer();
    let count = tokenizer.encode(text, MAX_TOKENS).unwrap().ids.len();
    let cuts: Vec<_> = (1..count).map(|max| tokenizer.encode(text, max).unwrap().cut_at.unwrap()).collect();
    assert!(cuts.iter().all(|&at| text.is_char_boundary(at) && at < text.len()), "{cuts:?}");
    assert!(cuts.is_sorted(), "{cuts:?}");
    assert_eq!(tokenizer.encode(text, 5).unwrap().cut_at, text.find("sail").map(|at| at - "ﬁ".len()), "{cuts:?}");
}

/// A folder with a `tokenizer.json`.
fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    folder
}

/// The message and the hint of a refusal of `folder`, which has to be an [`Error::Format`].
fn refused(folder: &Path) -> (String, String) {
    let Err(error) = Tokenizer::open(folder) else { panic!("{} is refused", folder.display()) };
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    (error.to_string(), error.hint().expect("a hint").to_string())
}

#[test]
fn a_folder_without_a_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (message, hint) = refused(folder.path());
    assert!(message.ends_with("not a usable T5 folder: expected tokenizer.json, found none"), "{message}");
    assert!(hint.contains("flan-t5-xl"), "{hint}");

    fs::write(folder.path().join("spiece.model"), b"\n").unwrap();
    let (message, hint) = refused(folder.path());
    assert!(message.ends_with("expected tokenizer.json, found only spiece.model"), "{message}");
    assert!(hint.contains("save_pretrained"), "{hint}");

    let missing = folder.path().join("missing");
    let Err(error) = Tokenizer::open(&missing) else { panic!("there is no such folder") };
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error:?}");
}

#[test]
fn a_damaged_tokenizer_is_refused() {
    let whole = fs::read_to_string(golden().join("tokenizer.json")).unwrap();
    for text in ["", "{", "[]", "null", "{\"model\": 1}", &whole[..whole.len() / 2], &"[".repeat(100_000)] {
        let (message, _) = refused(folder_with(text).path());
        assert!(message.contains("tokenizer.json: not a usable T5 tokenizer file: "), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), [b'"', 0xff, b'"']).unwrap();
    refused(folder.path());
}

/// The golden tokenizer with one thing changed.
fn changed(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let text = fs::read_to_string(golden().join("tokenizer.json")).unwrap();
    let mut tokenizer = serde_json::from_str(&text).unwrap();
    change(&mut tokenizer);
    folder_with(&tokenizer.to_string())
}

#[test]
fn a_tokenizer_of_another_kind_is_refused() {
    let folder = changed(|tokenizer| {
        tokenizer["model"] = json!({"type": "BPE", "vocab": {"</s>": 0, "a": 1}, "merges": []});
    });
    let (message, hint) = refused(folder.path());
    assert!(message.ends_with("expected a Unigram model, found BPE"), "{message}");
    assert!(hint.contains("flan-t5-xl"), "{hint}");

    let folder = changed(|tokenizer| {
        tokenizer["added_tokens"] = json!([]);
        tokenizer["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]});
        tokenizer["post_processor"] = Value::Null;
    });
    let (message, _) = refused(folder.path());
    assert!(message.ends_with("expected a token </s>, found none"), "{message}");

    let folder = changed(|tokenizer| tokenizer["model"]["unk_id"] = json!(1_000_000));
    refused(folder.path());
}

#[test]
fn a_character_without_a_token_is_refused_where_there_is_none_for_unknown_ones() {
    let folder = changed(|tokenizer| tokenizer["model"]["unk_id"] = Value::Null);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let error = tokenizer.encode("日本", MAX_TOKENS).unwrap_err();
    assert!(matches!(&error, Error::Format { format: "T5 tokenizer", .. }), "{error:?}");
}

/// The caller says how long; what the file has of it does not count.
#[test]
fn the_length_in_the_file_does_not_count() {
    let folder = changed(|tokenizer| {
        tokenizer["truncation"] =
            json!({"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        tokenizer["padding"] = json!({
            "strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
        });
    });
    let other = Tokenizer::open(folder.path()).unwrap();
    let text = "a red sailboat";
    assert_eq!(other.encode(text, MAX_TOKENS).unwrap(), tokenizer().encode(text, MAX_TOKENS).unwrap());
}

proptest! {
    /// What is left of the prompt can be shown, whatever is in it.
    #[test]
    fn any_text_has_tokens_and_is_cut_between_characters(text in any::<String>(), max_tokens in 1..40usize) {
        let tokens = tokenizer().encode(&text, max_tokens).unwrap();
        prop_assert!(tokens.ids.len() <= max_tokens);
        prop_assert_eq!(tokens.ids.last(), Some(&1));
        prop_assert_eq!(tokens.cut_at.is_some_and(|at| !text.is_char_boundary(at)), false);
        prop_assert_eq!(tokens.cut_at.is_some(), tokenizer().encode(&text, usize::MAX).unwrap().ids.len() > max_tokens);
    }
}
