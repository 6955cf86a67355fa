//! Whether a text looks as if it had been read in the wrong encoding: ftfy's table of what seldom stands side by side.

use std::sync::LazyLock;

use super::super::pattern::Pattern;

// Insides of character classes. "Accented" are letters that some encoding has beyond ASCII and that few texts
// have in numbers; "common" ones are those of alphabets.
const C1: &str = "\u{80}-\u{9f}";
const COMMON: &str = "\u{a0}\u{ad}·´–—―…’";
const BAD: &str = "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
const START: &str = "¡«¿©΄΅‘‚“„•‹\u{f8ff}";
const END: &str = "®»˝”›™";
const NUMERIC: &str = "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№";
const KAOMOJI: &str = "Ò-ÖÙ-Üò-öø-üŐŌŪŲ°";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я";
const LOWER_COMMON: &str = "α-ωάέήίΰа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓";

/// Whether anything unlikely stands in the text.
pub(super) fn is_bad(text: &str) -> bool {
    static UNLIKELY: LazyLock<Pattern> = LazyLock::new(|| Pattern::new(&unlikely().join("|")));
    UNLIKELY.is_match(text)
}

/// Character classes side by side, each of which is unlikely.
fn unlikely() -> Vec<String> {
    let class = |parts: &[&str]| format!("[{}]", parts.concat());
    let accented = [LOWER_ACCENTED, UPPER_ACCENTED].concat();
    let any = class(&[&accented, BOX, START, END, CURRENCY, NUMERIC, LAW]);
    let lost = class(&[C1, BAD, START, END, CURRENCY, "°"]);
    let doubled = class(&[COMMON, CURRENCY, BAD, NUMERIC, START, "ŸŠ®°µ»"]);
    let mut pairs = vec![
        format!("[{C1}]"),
        format!("[{BAD}]{any}|{any}[{BAD}]|[{BAD}]{{2}}"),
        format!("[a-zA-Z][{LOWER_COMMON}{UPPER_COMMON}][{BAD}]"),
        format!("[{LOWER_ACCENTED}{LOWER_COMMON}{BOX}{END}{CURRENCY}{NUMERIC}][{UPPER_ACCENTED}]"),
        format!("[{BOX}{END}{CURRENCY}{NUMERIC}][{LOWER_ACCENTED}]"),
        format!("[{LOWER_ACCENTED}{BOX}{END}][{CURRENCY}]"),
        format!(r"\s[{UPPER_ACCENTED}][{CURRENCY}]"),
        format!("[{UPPER_ACCENTED}{BOX}][{NUMERIC}{LAW}]"),
        format!("[{accented}{BOX}{CURRENCY}{END}][{START}][{NUMERIC}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{BOX}{LAW}][{END}][{START}]"),
        format!("[{CURRENCY}{NUMERIC}{BOX}][{START}]"),
        format!("[a-z][{UPPER_ACCENTED}][{START}{CURRENCY}]"),
        format!("[{BOX}][{KAOMOJI}{END}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{START}{END}{LAW}][{BOX}]"),
        format!(r"[{accented}][{START}{END}]\w"),
        format!("[{UPPER_ACCENTED}]°"),
        // What common letters of UTF-8 become in Windows-1252 …
        format!("[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{START}{END}–—´]"),
        format!("[ØÙ]{doubled}[ØÙ]{doubled}"),
        format!("[a-z.,?!{END}]Â[ {START}{END}]"),
        // … in Windows-1251 and Windows-1253.
        format!("[ВГРС](?:{lost}|µ)[ВГРС]"),
        format!("[ΒΓΞΟ]{lost}[ΒΓΞΟ]"),
    ];
    pairs.extend(UNLIKELY_WORDS.iter().map(|word| (*word).to_string()));
    pairs
}

/// Beginnings of single misread characters.
const UNLIKELY_WORDS: &[&str] = &[
    "[Œœ][^A-Za-z]",
    "×[²³]",
    "à[²µ¹¼½¾]",
    "Ã[\u{a0}¡]",
    r"[a-z]\s?[ÃÂ] ",
    "^[ÃÂ] ",
    // In the Macintosh's encoding.
    "√[±∂†≠®™´≤≥¥µø]",
    "≈[°¢]",
    "‚Ä[ìîïòôúùû†°¢π]",
    "‚[âó][àä°ê]",
    // In Windows-1251, 1253 and 1257; the second is misread twice.
    "вЂ",
    "ГўВЂВ.[A-Za-z ]",
    "β€[™\u{a0}Ά\u{ad}®°]",
    "ā€",
];
