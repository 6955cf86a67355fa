//! Characters by name and number as HTML writes them, by the three rules that Python's tools have.
//!
//! Names and their characters are HTML5's (the `entities` crate).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::codepage::windows_1252;

/// By name without `&`, with the `;` where it has one.
static NAMES: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| entities::ENTITIES.iter().map(|entity| (&entity.entity[1..], entity.characters)).collect());

/// The longest name that [`unescape`] looks at, in characters without the `;`.
const LONGEST_NAME: usize = 32;

/// The longest name or number that [`unescape_certain`] looks at, in characters.
const LONGEST_CERTAIN: usize = 24;

/// The characters of a name, with or without `;`, as a parser of HTML looks it up.
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    NAMES.get(name).or_else(|| NAMES.get(format!("{name};").as_str())).copied()
}

/// The character that `&#number;` stands for in a parser of HTML, as Beautiful Soup has it.
///
/// Numbers of C1 are taken for Windows-1252; what is no character is U+FFFD.
pub(super) fn by_number(number: u32) -> char {
    match number {
        0 => char::REPLACEMENT_CHARACTER,
        0x80..=0x9f => windows_1252(number as u8),
        _ => char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

/// The number in digits of `radix`; one that is too large for any character saturates.
pub(super) fn number(digits: &str, radix: u32) -> u32 {
    let digits = digits.chars().map(|digit| digit.to_digit(radix).unwrap_or(0));
    digits.fold(0, |number: u32, digit| number.saturating_mul(radix).saturating_add(digit))
}

/// Python's `html.unescape`: names may lack their `;`, and the longest known beginning of a word counts.
pub(super) fn unescape(text: &str) -> String {
    replace_references(text, |rest| {
        if let Some(rest) = rest.strip_prefix('#') {
            let (radix, digits) = match rest.strip_prefix(['x', 'X']) {
                Some(digits) => (16, digits),
                None => (10, rest),
            };
            let len = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
            let used = 1 + (rest.len() - digits.len()) + len + usize::from(digits[len..].starts_with(';'));
            return (len > 0).then(|| (used, unescaped_number(number(&digits[..len], radix))));
        }
        let is_name = |c: char| !matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
        let len: usize = rest.chars().take(LONGEST_NAME).take_while(|&c| is_name(c)).map(char::len_utf8).sum();
        if len == 0 {
            return None;
        }
        let whole = len + usize::from(rest[len..].starts_with(';'));
        if let Some(characters) = NAMES.get(&rest[..whole]) {
            return Some((whole, (*characters).to_string()));
        }
        // No name is one letter alone, so the shortest is two.
        (2..whole).rev().find_map(|end| Some((end, (*NAMES.get(rest.get(..end)?)?).to_string())))
    })
}

/// ftfy's: only what ends in `;`, with names in capitals for those of small letters.
pub(super) fn unescape_certain(text: &str) -> String {
    replace_references(text, |rest| {
        let word = rest.strip_prefix('#').unwrap_or(rest);
        let len = word.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if !(1..=LONGEST_CERTAIN).contains(&len) || !word[len..].starts_with(';') {
            return None;
        }
        let used = rest.len() - word.len() + len + 1;
        let reference = format!("&{}", &rest[..used]);
        let characters = if rest.starts_with('#') {
            // A part that was left over means that it was no number.
            Some(unescape(&reference)).filter(|characters| !characters.contains(';'))
        } else {
            NAMES.get(&rest[..used]).map(|characters| (*characters).to_string()).or_else(|| in_capitals(&reference))
        };
        Some((used, characters?))
    })
}

/// The capitals of a name of small letters that someone wrote in capitals, where that is no other name.
fn in_capitals(reference: &str) -> Option<String> {
    let small = reference.to_lowercase();
    let characters = NAMES.get(&small[1..])?;
    (small.to_uppercase() == reference && unescape(reference) == reference).then(|| characters.to_uppercase())
}

/// What [`unescape`] makes of a number: as [`by_number`], but controls and what is no character vanish.
fn unescaped_number(number: u32) -> String {
    let vanishes = matches!(number, 0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef)
        || (number & 0xfffe == 0xfffe && number <= 0x10_ffff);
    if vanishes { String::new() } else { by_number(number).to_string() }
}

/// Puts `read(what follows)` in place of every `&` for which it gives something: bytes used, characters.
fn replace_references(text: &str, read: impl Fn(&str) -> Option<(usize, String)>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match read(rest) {
            Some((used, characters)) => {
                out.push_str(&characters);
                rest = &rest[used..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    out
}
