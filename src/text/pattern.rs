//! Regular expressions with Python's idea of words and spaces.
//!
//! Python's `\w` is letters, numbers of any kind and `_`, but no combining marks; its `\s` has the four
//! separators below the space too. `\b` follows `\w`. So patterns are written in Python's words and put into
//! those of the `fancy_regex` crate here; that one rather than `regex` for the look-around that `\b` becomes.

use std::sync::LazyLock;

use fancy_regex::{Captures, Regex, RegexBuilder};

/// A compiled pattern.
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern in Python's words.
    ///
    /// # Panics
    /// If it is none: patterns are constants of this room.
    pub(super) fn new(python: &str) -> Self {
        let regex = RegexBuilder::new(&translate(python)).backtrack_limit(usize::MAX).build();
        Self(regex.unwrap_or_else(|error| panic!("pattern {python}: {error}")))
    }

    /// Whether it is found anywhere.
    pub(super) fn is_match(&self, text: &str) -> bool {
        // Only a text of millions of characters makes the matcher give up; for it nothing is found.
        self.0.is_match(text).unwrap_or(false)
    }

    /// Where it is found when it must begin at byte `at`; the pattern begins with `\G`.
    pub(super) fn end_from(&self, text: &str, at: usize) -> Option<usize> {
        Some(self.0.find_from_pos(text, at).ok()??.end())
    }

    /// The text with `with` in place of every match; `$1` in it is the first group.
    pub(super) fn replace(&self, text: &str, with: &str) -> String {
        self.0.try_replacen(text, 0, with).map_or_else(|_| text.to_string(), |replaced| replaced.into_owned())
    }

    /// The text with `with(match)` in place of every match.
    pub(super) fn replace_by(&self, text: &str, with: impl Fn(&str) -> String) -> String {
        let with = |found: &Captures| with(found.get(0).map_or("", |found| found.as_str()));
        self.0.try_replacen(text, 0, with).map_or_else(|_| text.to_string(), |replaced| replaced.into_owned())
    }
}

/// Whether Python's `\w` takes the character.
const WORD: &str = r"[\p{L}\p{N}_]";

/// A pattern's `\w`, `\W`, `\s`, `\S` and `\b` put into the words of `fancy_regex`; all else is common to both.
fn translate(python: &str) -> String {
    let mut pattern = String::with_capacity(python.len());
    let mut chars = python.chars();
    while let Some(c) = chars.next() {
        match (c, (c == '\\').then(|| chars.next()).flatten()) {
            (_, Some('w')) => pattern.push_str(WORD),
            (_, Some('W')) => pattern.push_str(r"[^\p{L}\p{N}_]"),
            (_, Some('s')) => pattern.push_str(r"[\s\x1c-\x1f]"),
            (_, Some('S')) => pattern.push_str(r"[^\s\x1c-\x1f]"),
            (_, Some('b')) => pattern.push_str(&format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))")),
            (_, Some(other)) => pattern.extend([c, other]),
            (_, None) => pattern.push(c),
        }
    }
    pattern
}

/// Whether Python takes the character for a space (`str.isspace`, `\s`).
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Whether Python's `\w` takes the character.
pub(super) fn is_word(c: char) -> bool {
    static BEYOND_ASCII: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(r"\w"));
    if c.is_ascii() { c.is_ascii_alphanumeric() || c == '_' } else { BEYOND_ASCII.is_match(c.encode_utf8(&mut [0; 4])) }
}

/// `str.strip`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}
