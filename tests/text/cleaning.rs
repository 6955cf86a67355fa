//! Captions against what LlamaGen's own cleaning gave for them, and what holds for every text.

use std::path::Path;

use proptest::prelude::*;
use serde::Deserialize;
use smalti::text::clean_caption;

/// A caption and what Python gave.
#[derive(Deserialize)]
struct Pair {
    input: String,
    output: String,
    /// What cleaning the output gives, where that is not the output.
    again: Option<String>,
}

fn read<T: for<'a> Deserialize<'a>>(path: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cleans each text; the panic shows the first that is not as expected, and how many there are.
fn check<'t>(pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> usize {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let wrong: Vec<_> = pairs.iter().filter(|(input, output)| clean_caption(input) != *output).collect();
    if let Some((input, output)) = wrong.first() {
        let found = clean_caption(input);
        panic!("{} of {} differ; {input:?}: expected {output:?}, found {found:?}", wrong.len(), pairs.len());
    }
    pairs.len()
}

#[test]
fn captions_are_cleaned_as_in_llamagen() {
    let pairs: Vec<Pair> = read("data/captions.json");
    assert!(check(pairs.iter().map(|pair| (pair.input.as_str(), pair.output.as_str()))) > 500);
}

#[test]
fn cleaning_once_more_changes_what_it_changes_in_llamagen() {
    let pairs: Vec<Pair> = read("data/captions.json");
    let output = |pair: &Pair| pair.again.clone().unwrap_or_else(|| pair.output.clone());
    let again: Vec<_> = pairs.iter().map(output).collect();
    check(pairs.iter().zip(&again).map(|(pair, again)| (pair.output.as_str(), again.as_str())));
    assert!(pairs.iter().any(|pair| pair.again.is_some()), "some do change");
}

#[test]
fn golden_captions_are_cleaned_exactly() {
    #[derive(Deserialize)]
    struct Captions {
        prompts: Vec<String>,
        cleaned: Vec<String>,
        clean_caption: Vec<Pair>,
    }
    let captions: Captions = read("golden/t5/captions.json");
    check(captions.prompts.iter().map(String::as_str).zip(captions.cleaned.iter().map(String::as_str)));
    check(captions.clean_caption.iter().map(|pair| (pair.input.as_str(), pair.output.as_str())));
}

/// Python gives up on these; the declaration is a comment here.
#[test]
fn what_python_refuses_is_a_comment() {
    assert_eq!(clean_caption("a cat <![x]> and a dog"), "a cat and a dog");
    assert_eq!(clean_caption("a cat <![ and a dog"), "a cat <! and a dog");
}

/// Texts in which a pattern or a parser may begin at every letter and read to the end in vain.
///
/// Taken so, each of these would be minutes; read once, it is a fraction of a second.
#[test]
fn long_hostile_texts_are_cleaned_too() {
    for piece in ["a.", "a.com@", "<a b='", "<!--", "&#1", "a1", ".com/-", "Ã©"] {
        let cleaned = clean_caption(&piece.repeat(10_000));
        assert!(is_tidy(&cleaned), "{piece}");
    }
}

/// What rules and parsers look for, to be put together at random.
const PIECES: &[&str] = &[
    "a",
    "É",
    "ß",
    "İ",
    "日",
    "\u{301}",
    "1",
    "123456",
    " ",
    "\n",
    "\u{85}",
    "\0",
    "\u{1a}",
    "\u{fffd}",
    "<",
    ">",
    "</",
    "<b",
    "/>",
    "<!--",
    "-->",
    "<![cdata[",
    "]]>",
    "<script>",
    "<br>",
    "='",
    "\"",
    "&",
    "&#",
    "x41",
    ";",
    "amp",
    "notin",
    "＆",
    "http:",
    "www:",
    ".com",
    "/",
    "@",
    "#",
    "%",
    "%e2",
    "+",
    "-",
    "_",
    ".",
    ",",
    ":",
    "png",
    "â€™",
    "Ã©",
    "ð\u{9f}\u{98}\u{80}",
    "Â ",
    "вЂ",
    "\u{93}",
    "‚Ä",
    "free shipping",
    "click for ",
    "page 1",
    "3.5x4",
];

fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Whatever the last rules leave: words with single spaces between them.
fn is_tidy(text: &str) -> bool {
    text.trim() == text && !text.contains("  ") && text.chars().all(|c| c == ' ' || !c.is_whitespace())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_has_a_tidy_cleaned_one(text in any::<String>()) {
        let cleaned = clean_caption(&text);
        prop_assert!(is_tidy(&cleaned), "{cleaned:?}");
    }

    #[test]
    fn any_nasty_text_has_a_tidy_cleaned_one(text in pieces()) {
        let cleaned = clean_caption(&text);
        prop_assert!(is_tidy(&cleaned), "{cleaned:?}");
    }

    /// Without the letters n to z there is no word that the rules know.
    #[test]
    fn plain_words_stay(text in "[a-mà-ï]{1,9}(,? [a-mà-ï]{1,9}){0,12}") {
        prop_assert_eq!(clean_caption(&text.to_uppercase()), text);
    }
}
