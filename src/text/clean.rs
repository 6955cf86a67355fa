//! LlamaGen's caption cleaning: the rules in their order.

use std::sync::LazyLock;

use super::pattern::{Pattern, is_word, strip};
use super::{entities, fix, html};

/// A prompt as LlamaGen's text models saw captions in training: cleaned twice.
///
/// Total: every text has a cleaned one, which may be empty. Once more may still change it, as it may in LlamaGen.
/// The time is about linear in the length of a text; one of millions of letters without a space may be left
/// uncleaned in part.
pub fn clean_caption(text: &str) -> String {
    clean_once(&clean_once(text))
}

/// What stands between the removal of HTML and the repair of the encoding: a pattern and what takes its place.
const BEFORE_REPAIR: &[(&str, &str)] = &[
    (r"@[\w\d]+\b", ""), // @nickname
    // Strokes, phonetic extensions, enclosed and squared letters, hexagrams and ideographs of CJK.
    ("[\u{31c0}-\u{9fff}]+", ""),
    // Every dash.
    (
        "[\u{2d}\u{58a}\u{5be}\u{1400}\u{1806}\u{2010}-\u{2015}\u{2e17}\u{2e1a}\u{2e3a}\u{2e3b}\u{2e40}\u{301c}\u{3030}\
         \u{30a0}\u{fe31}\u{fe32}\u{fe58}\u{fe63}\u{ff0d}]+",
        "-",
    ),
    ("[`´«»“”¨]", "\""),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "), // an IP address
    (r"\d:\d\d\s+\z", ""),                        // an article's number
    (r"\\n", " "),                                // a line break that was written out
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (r"\S+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""), // a file's name
    (r#"["']{2,}"#, "\""),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
];

/// What follows the repair of the encoding.
const AFTER_REPAIR: &[(&str, &str)] = &[
    // Articles' names: jc6640, jc6640vc, 6640vc231.
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    // What shops write around pictures.
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (r"\b(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "), // j2d1a2a
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),                 // 320x240, with a Latin or a Cyrillic letter or a cross
    // Spaces around punctuation, then every run of spaces to one.
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", "${1} "),
    (r"\s+", " "),
    // One pair of quotes around everything, and what is left at the ends.
    (r#"^["']((?s:.)+)["']\z"#, "${1}"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]\z", ""),
    (r"^\.\S+\z", ""),
];

static BEFORE: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| compile(BEFORE_REPAIR));
static AFTER: LazyLock<Vec<(Pattern, &str)>> = LazyLock::new(|| compile(AFTER_REPAIR));

fn compile(rules: &[(&str, &'static str)]) -> Vec<(Pattern, &'static str)> {
    rules.iter().map(|(pattern, with)| (Pattern::new(pattern), *with)).collect()
}

fn apply(rules: &[(Pattern, &str)], text: String) -> String {
    rules.iter().fold(text, |text, (pattern, with)| pattern.replace(&text, with))
}

/// One pass.
fn clean_once(text: &str) -> String {
    let text = unquote_plus(text);
    let text = strip(&text).to_lowercase().replace("<person>", "person");
    let text = remove_urls(&remove_urls(&text, &["http:", "https:"]), &["www:"]);
    let mut text = apply(&BEFORE, html::text(&text));
    // this-is-my-cute-cat, but not a single well-known one.
    if text.matches(['-', '_']).count() > 3 {
        text = text.replace(['-', '_'], " ");
    }
    let text = entities::unescape(&entities::unescape(&fix::fix_text(&text)));
    strip(&apply(&AFTER, strip(&text).to_string())).to_string()
}

/// `urllib.parse.unquote_plus`: `+` is a space, `%41` a byte of UTF-8; bad bytes become U+FFFD.
fn unquote_plus(text: &str) -> String {
    let text = text.replace('+', " ");
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    // Bytes are put together within a run of ASCII alone, so that an escape never completes a character outside.
    let mut run = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' if text.get(at + 1..at + 3).is_some_and(|code| code.bytes().all(|b| b.is_ascii_hexdigit())) => {
                run.push(entities::number(&text[at + 1..at + 3], 16) as u8);
                at += 3;
            }
            byte if byte.is_ascii() => {
                run.push(byte);
                at += 1;
            }
            _ => {
                out.push_str(&String::from_utf8_lossy(&std::mem::take(&mut run)));
                let c = text[at..].chars().next().expect("a character begins here");
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    out.push_str(&String::from_utf8_lossy(&run));
    out
}

/// What follows a host's name in LlamaGen's pattern of an address.
static HOST_TAIL: LazyLock<Pattern> =
    LazyLock::new(|| Pattern::new(r"\G[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"));

/// Removes addresses: at the edge of a word, a scheme with up to three slashes or one more letter, or a host
/// (`[a-zA-Z0-9.-]+`) that ends in a known domain with a path behind it.
///
/// LlamaGen's is one pattern. Every letter of a host of n dots can begin a match that tries them all, so that here the
/// last domain of a run, which is the one all its letters find, is looked up once.
fn remove_urls(text: &str, schemes: &[&str]) -> String {
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let mut out = String::new();
    let (mut at, mut kept) = (0, 0);
    let mut before = None;
    // Of the run of host letters around `at`: where it ends, and its last domain: where that begins and all ends.
    let (mut run_end, mut domain) = (0, None);
    while let Some(c) = text[at..].chars().next() {
        if at >= run_end && is_host(c) {
            run_end = at + text[at..].find(|c| !is_host(c)).unwrap_or(text.len() - at);
            let mut dots = text[at..run_end].rmatch_indices('.').map(|(dot, _)| at + dot);
            domain = dots.find_map(|dot| Some((dot, HOST_TAIL.end_from(text, dot)?)));
        }
        let at_edge = is_word(c) != before.is_some_and(is_word);
        let scheme = || schemes.iter().find_map(|scheme| scheme_end(text, at, scheme));
        let host = || domain.filter(|(dot, _)| is_host(c) && at < *dot).map(|(_, end)| end);
        match at_edge.then(|| scheme().or_else(host)).flatten() {
            Some(end) => {
                out.push_str(&text[kept..at]);
                before = text[..end].chars().next_back();
                (at, kept) = (end, end);
                (run_end, domain) = (end, None);
            }
            None => {
                before = Some(c);
                at += c.len_utf8();
            }
        }
    }
    out.push_str(&text[kept..]);
    out
}

/// The end of a scheme at `at` with what LlamaGen takes with it.
fn scheme_end(text: &str, at: usize, scheme: &str) -> Option<usize> {
    let rest = text[at..].strip_prefix(scheme)?;
    let slashes = rest.bytes().take(3).take_while(|&b| b == b'/').count();
    let letter = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '%');
    (slashes > 0 || letter).then(|| at + scheme.len() + slashes.max(usize::from(letter)))
}
