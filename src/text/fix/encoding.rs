//! UTF-8 that was read in an encoding of one byte a character, read again as what it was.

use std::sync::LazyLock;

use super::super::pattern::Pattern;
use super::badness::is_bad;
use crate::text::codepage::{CODEPAGES, Kind, windows_1252};

// Insides of character classes: what bytes of UTF-8 look like in the encodings of `codepage`.
const FIRST_OF_2: &str = "ĂÂÄĀÅÃÆĆČÇĎĐÉĚÊËĖÈĒĘÐĞĢÍÎÏİÌĪĶĹĻŁŃŇŅÑÓÔÖŐÒŌØÕŘŚŠŞŢÞÚÛÜŰÙŪŲŮÝŹŽŻß×\
                          ΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΪΫάέήίВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ";
const FIRST_OF_3: &str = "áăâäàāąåãæćčçďéěêëėèēęęģíîïìīįķĺļŕźΰαβγδεζηθικλμνξοабвгдежзийклмноп";
const FIRST_OF_4: &str = "đðğóšπσру";
/// Further bytes that seldom stand for themselves.
const FURTHER: &str = "\u{80}-¿ĄÆĽŁØŖŚŠŞŤŸŹŽŻŒąæƒľłøŗśšşťźžżœˆˇ˘˛˜˝΄΅ΆΈΉΊΌΎΏЁЂЃЄЅІЇЈЉЊЋЌЎЏ\
                       ёђѓєѕіїјљњћќўџҐґ†‡‰‹›€№™";
/// Those that do: a space (for U+00A0), dashes, quotes, a bullet, an ellipsis.
const FURTHER_OFTEN_MEANT: &str = " –—―‘’‚“”„•…";

/// Mends until nothing changes any more.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_string();
    loop {
        let mended = fix_once(&text);
        if mended == text {
            return text;
        }
        text = mended;
    }
}

/// The first remedy that works.
fn fix_once(text: &str) -> String {
    if text.is_ascii() || !is_bad(text) {
        return text.to_string();
    }
    let mut in_latin_1 = None;
    for codepage in CODEPAGES.iter() {
        let Some(bytes) = codepage.encode(text) else { continue };
        if codepage.kind == Kind::Latin1 {
            in_latin_1 = Some(bytes.clone());
        }
        if let Some(mended) = read_again(bytes, codepage.kind) {
            return mended;
        }
    }
    let mended = fix_parts(text);
    if mended != text {
        return mended;
    }
    // Controls of C1 are a sign of Windows-1252 read as Latin-1, and nobody wants them.
    let holes = ['\u{81}', '\u{8d}', '\u{8f}', '\u{90}', '\u{9d}'];
    match in_latin_1.filter(|bytes| !bytes.contains(holes)) {
        Some(bytes) => bytes.chars().map(|byte| windows_1252(byte as u8)).collect(),
        None => text.chars().map(|c| if is_c1(c) { windows_1252(c as u8) } else { c }).collect(),
    }
}

fn is_c1(c: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&c)
}

/// Bytes read as UTF-8, with what was lost of them put back where that is likely.
fn read_again(mut bytes: String, kind: Kind) -> Option<String> {
    // On a Macintosh an en dash before a space would look like that.
    if kind != Kind::Macintosh && SPACE_FOR_A0.is_match(&bytes) {
        bytes = A_GRAVE.replace(&bytes, "\u{c3}\u{a0} ");
        bytes = SPACE_FOR_A0.replace_by(&bytes, |found| found.replace(' ', "\u{a0}"));
    }
    if kind == Kind::Sloppy {
        bytes = LOST.replace(&bytes, "\u{ef}\u{bf}\u{bd}");
    }
    let bytes: Vec<u8> = bytes.chars().map(|byte| byte as u8).collect();
    decode(&bytes)
}

/// UTF-8 that would be valid if a space were byte A0.
static SPACE_FOR_A0: LazyLock<Pattern> = LazyLock::new(|| {
    // The second byte of three may not be 85, an ellipsis in Windows-1252.
    let second = r"[\x{80}-\x{84}\x{86}-\x{9f}\x{a1}-\x{bf}]";
    let further = r"[\x{80}-\x{bf}]";
    let alternatives = [
        r"[\x{c2}\x{c3}\x{c5}\x{ce}\x{d0}\x{d9}] ".to_string(),
        format!(r"[\x{{e2}}\x{{e3}}] {second}|[\x{{e0}}-\x{{e3}}]{second} "),
        format!(r"\x{{f0}}(?: {further}{further}|{further} {further}|{further}{further} )"),
    ];
    Pattern::new(&alternatives.join("|"))
});

/// An à that is a word or begins one: the space behind it is one.
static A_GRAVE: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(r"\x{c3} (?! |quele|quela|quilo|s )"));

/// UTF-8, or UTF-16 in UTF-8's clothes, of which bytes were lost (1A, sometimes a question mark).
static LOST: LazyLock<Pattern> = LazyLock::new(|| {
    let (lost, either, kept) = (r"[\x{1a}?]", r"[\x{1a}\x{80}-\x{bf}]", r"[\x{1a}?\x{80}-\x{bf}]");
    let (high, low) = (r"\x{ed}[\x{a0}-\x{af}]", r"\x{ed}[\x{b0}-\x{bf}]");
    let alternatives = [
        r"[\x{c2}-\x{df}]\x{1a}|[\x{c2}\x{c3}]\?".to_string(),
        format!("{high}{lost}{low}{kept}|{high}{kept}{low}{lost}"),
        format!(r"[\x{{e0}}-\x{{ef}}](?:{lost}{either}|{either}{lost})"),
        format!(r"[\x{{f0}}-\x{{f4}}](?:{lost}{either}{either}|{either}{lost}{either}|{either}{either}{lost})"),
        r"\x{1a}".to_string(),
    ];
    Pattern::new(&alternatives.join("|"))
});

/// UTF-8; pairs of surrogates, each in three bytes, and the two bytes of U+0000 that Java writes are taken too.
fn decode(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let valid = match str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return Some(out);
            }
            Err(error) => error.valid_up_to(),
        };
        out.push_str(str::from_utf8(&rest[..valid]).ok()?);
        rest = match &rest[valid..] {
            [0xc0, 0x80, rest @ ..] => {
                out.push('\0');
                rest
            }
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, rest @ ..] => {
                let high = u32::from(a & 0x0f) << 6 | u32::from(b & 0x3f);
                let low = u32::from(c & 0x0f) << 6 | u32::from(d & 0x3f);
                out.push(char::from_u32(0x1_0000 + (high << 10) + low)?);
                rest
            }
            _ => return None,
        };
    }
}

/// Mends runs of what looks like UTF-8 within a text of another encoding, each by itself.
fn fix_parts(text: &str) -> String {
    static LIKE_UTF_8: LazyLock<Pattern> = LazyLock::new(|| {
        let further = format!("[{FURTHER}{FURTHER_OFTEN_MEANT}]");
        // Not in the midst of a garble, where mending a few characters makes it worse.
        let before = format!("(?<![{FURTHER}])");
        let [two, three, four] = [(FIRST_OF_2, 1), (FIRST_OF_3, 2), (FIRST_OF_4, 3)]
            .map(|(first, more)| format!("[{first}]{further}{{{more}}}"));
        Pattern::new(&format!("{before}(?:{two}|{three}|{four})+"))
    });
    LIKE_UTF_8.replace_by(text, |part| {
        if part.len() < text.len() && is_bad(part) { fix_encoding(part) } else { part.to_string() }
    })
}
