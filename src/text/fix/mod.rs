//! What ftfy 6 mends with its defaults: text that was read in the wrong encoding, entities, ligatures, wide letters,
//! curly quotes, line breaks, control characters; then NFC.
//!
//! The rules and their tables follow ftfy (Robyn Speer, Apache-2.0), for LlamaGen's captions went through it.

mod badness;
mod encoding;

use std::borrow::Cow;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;

use super::codepage::windows_1252;
use super::entities;
use super::pattern::Pattern;

/// A line is mended in pieces of at most so many characters.
const LONGEST_PIECE: usize = 1_000_000;

/// Mends line by line. From the first line with a `<` on, entities are taken for those of markup and stay.
pub(super) fn fix_text(text: &str) -> String {
    let mut is_markup = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_PIECE).map_or(rest.len(), |(end, _)| end);
            is_markup |= rest[..end].contains('<');
            out.push_str(&fix_piece(&rest[..end], is_markup));
            rest = &rest[end..];
        }
    }
    out
}

/// Mends until nothing changes any more.
fn fix_piece(piece: &str, is_markup: bool) -> String {
    let mut text = piece.to_string();
    loop {
        let mended = fix_once(&text, is_markup);
        if mended == text {
            return text;
        }
        text = mended;
    }
}

fn fix_once(text: &str, is_markup: bool) -> String {
    /// What colours a terminal's text.
    static ESCAPES: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("\x1b\\[(?:\\d|;)*[a-zA-Z]"));

    let text = if is_markup { Cow::Borrowed(text) } else { entities::unescape_certain(text).into() };
    let text = encoding::fix_encoding(&text);
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{80}'..='\u{9f}' => plain.push(windows_1252(c as u8)),
            _ => plain.push(c),
        }
    }
    let mut parts = String::with_capacity(plain.len());
    for c in plain.chars() {
        match ligature(c) {
            Some(letters) => parts.push_str(letters),
            None => parts.push(c),
        }
    }
    let mut narrow = String::with_capacity(parts.len());
    for c in parts.chars() {
        match c {
            '\u{3000}' => narrow.push(' '),
            '\u{ff01}'..='\u{ffef}' => narrow.extend(c.nfkc()),
            _ => narrow.push(c),
        }
    }
    let straight = narrow.chars().map(|c| match c {
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        _ => c,
    });
    let lines = straight.collect::<String>().replace("\r\n", "\n");
    let lines = lines.replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
    ESCAPES.replace(&lines, "").chars().filter(|&c| !is_unwanted(c)).nfc().collect()
}

/// The letters of a ligature that typography made, and of the digraphs of some encodings.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Controls that stand in no text on purpose; those of C1 are gone before.
fn is_unwanted(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f'
            | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}'
    )
}
