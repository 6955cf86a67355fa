//! Encodings of one byte a character, as text may have been misread in: ASCII and 128 more.
//!
//! "Bytes" are characters up to U+00FF here, so that patterns can look for them.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One encoding.
pub(super) struct Codepage {
    /// The byte of every character beyond ASCII.
    bytes: HashMap<char, char>,
    pub(super) kind: Kind,
}

/// What sets encodings apart where text is mended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Windows' are read sloppily: bytes without a character are those of Latin-1, and byte 1A is U+FFFD, a
    /// character that was lost.
    Sloppy,
    Latin1,
    Macintosh,
    Other,
}

/// All that are tried, in their order.
pub(super) static CODEPAGES: LazyLock<Vec<Codepage>> = LazyLock::new(|| {
    let table = [
        (LATIN_1, Kind::Latin1),
        (WINDOWS_1252, Kind::Sloppy),
        (WINDOWS_1251, Kind::Sloppy),
        (WINDOWS_1250, Kind::Sloppy),
        (WINDOWS_1253, Kind::Sloppy),
        (WINDOWS_1254, Kind::Sloppy),
        (WINDOWS_1257, Kind::Sloppy),
        (ISO_8859_2, Kind::Other),
        (MACINTOSH, Kind::Macintosh),
        (DOS_437, Kind::Other),
    ];
    table.into_iter().map(|(last, kind)| Codepage { bytes: upper_half(last), kind }).collect()
});

/// The bytes 80 to FF of an encoding that has `last` at the end and is Latin-1 before.
fn upper_half(last: &str) -> HashMap<char, char> {
    let first = 0x100 - last.chars().count() as u32;
    let latin_1 = (0x80..first).filter_map(char::from_u32);
    latin_1.chain(last.chars()).zip('\u{80}'..='\u{ff}').collect()
}

impl Codepage {
    /// The bytes of a text; none if a character has no byte.
    pub(super) fn encode(&self, text: &str) -> Option<String> {
        let sloppy = self.kind == Kind::Sloppy;
        let byte = |c| match c {
            '\x1a' if sloppy => None,
            char::REPLACEMENT_CHARACTER if sloppy => Some('\x1a'),
            '\0'..='\x7f' => Some(c),
            _ => self.bytes.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

/// The character of a byte in Windows-1252; bytes without one are those of Latin-1.
pub(super) fn windows_1252(byte: u8) -> char {
    static CHARACTERS: LazyLock<Vec<char>> = LazyLock::new(|| WINDOWS_1252.chars().collect());
    if byte.is_ascii() { char::from(byte) } else { CHARACTERS[usize::from(byte) - 0x80] }
}

const LATIN_1: &str = "";

const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿À\
     ÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";

const WINDOWS_1251: &str = "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙКЛМНОПРСТУФ\
     ХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";

const WINDOWS_1250: &str = "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľżŔ\
     ÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

const WINDOWS_1253: &str = "€\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\
     \u{9f}\u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςσ\
     τυφχψωϊϋόύώÿ";

const WINDOWS_1254: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶\
     ·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";

const WINDOWS_1257: &str = "€\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\
     \u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";

const ISO_8859_2: &str =
    "\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

const MACINTOSH: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁ\
     ﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";

const DOS_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπ\
     ΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
