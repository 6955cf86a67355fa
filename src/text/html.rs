//! The text of HTML, as Beautiful Soup gives it over Python's `html.parser` (3.11).
//!
//! [`Parser`] finds tags, comments and references in whatever it is given, and [`Soup`] keeps the text and what is open.
//! Captions are seldom HTML, so what counts is what becomes of the odd `<` and `&`. Where Python's parser gives up
//! altogether, an unknown `<![…`, a comment is read instead, as its later versions do.

mod soup;
mod tag;

use std::collections::HashMap;

use soup::{Kind, Soup};

use super::entities;
use super::pattern::is_space;

/// All text outside of comments, declarations, scripts, styles, templates and the readings of ruby.
pub(super) fn text(markup: &str) -> String {
    if !markup.contains(['<', '&']) && !markup.trim_matches(soup::is_ascii_space).is_empty() {
        return markup.to_string();
    }
    let mut parser = Parser { raw: markup, at: 0, attributes_end: HashMap::new(), soup: Soup::default() };
    // What seems unfinished is looked at once more when nothing can follow.
    parser.advance(false);
    parser.advance(true);
    parser.soup.finish()
}

struct Parser<'t> {
    raw: &'t str,
    /// The first byte that is not read.
    at: usize,
    /// Where a row of attributes that begins at a byte ends.
    attributes_end: HashMap<usize, usize>,
    soup: Soup,
}

/// What stands at a `<` or a `&`.
enum Step {
    /// It was read up to this byte.
    To(usize),
    /// More has to follow.
    Unfinished,
    /// The rest is text.
    Stop,
}

impl Parser<'_> {
    /// Reads as far as it can; with `end`, everything.
    fn advance(&mut self, end: bool) {
        while self.at < self.raw.len() {
            let text = self.raw[self.at..].find(['<', '&']);
            self.data_to(text.map_or(self.raw.len(), |len| self.at + len));
            let rest = &self.raw[self.at..];
            let step = match rest.as_bytes() {
                [] => return,
                [b'<', ..] => self.markup(rest),
                [b'&', b'#', ..] => self.number(rest),
                _ => self.name(rest, end),
            };
            match step {
                Step::To(at) => self.at = at,
                Step::Unfinished if end => {
                    let next = self.at + 1;
                    let close = self.find(next, '>').map(|at| at + 1);
                    self.data_to(close.or_else(|| self.find(next, '<')).unwrap_or(next));
                }
                Step::Unfinished | Step::Stop => break,
            }
        }
        if end {
            self.data_to(self.raw.len());
        }
    }

    /// Everything up to `end` is text.
    fn data_to(&mut self, end: usize) {
        if self.at < end {
            self.soup.data(&self.raw[self.at..end]);
            self.at = end;
        }
    }

    /// Where `c` stands from `from` on.
    fn find(&self, from: usize, c: char) -> Option<usize> {
        self.raw[from..].find(c).map(|at| from + at)
    }

    /// At `<`.
    fn markup(&mut self, rest: &str) -> Step {
        let read = match rest.as_bytes() {
            [_, b'a'..=b'z' | b'A'..=b'Z', ..] => self.start_tag(),
            [_, b'/', ..] => self.end_tag(rest),
            [_, b'!', b'-', b'-', ..] => self.comment(rest),
            [_, b'?', ..] => self.hidden(2),
            [_, b'!', b'[', ..] => self.section(rest),
            // A document type is hidden as an unknown declaration is.
            [_, b'!', ..] => self.hidden(2),
            [_] => return Step::Stop,
            _ => {
                self.soup.data("<");
                Some(self.at + 1)
            }
        };
        read.map_or(Step::Unfinished, Step::To)
    }

    /// `<!-- … -->`, with spaces before the `>` if need be.
    fn comment(&mut self, rest: &str) -> Option<usize> {
        let closes = |&(at, _): &(usize, &str)| rest[4..4 + at].trim_end_matches(is_space).ends_with("--");
        let (close, _) = rest[4..].match_indices('>').find(closes)?;
        self.soup.put("", Kind::Hidden);
        Some(self.at + 4 + close + 1)
    }

    /// Anything that ends at the next `>`, of which nothing is text.
    fn hidden(&mut self, skip: usize) -> Option<usize> {
        let close = self.find(self.at + skip, '>')?;
        self.soup.put("", Kind::Hidden);
        Some(close + 1)
    }

    /// `<![cdata[…]]>`, which is text, and its like, which are not.
    fn section(&mut self, rest: &str) -> Option<usize> {
        let body = &rest[3..];
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = if body.starts_with(|c: char| c.is_ascii_alphabetic()) {
            &body[..body.find(|c| !letters(c)).unwrap_or(body.len())]
        } else {
            ""
        };
        if body[name.len()..].trim_start_matches(is_space).is_empty() && (body.is_empty() || !name.is_empty()) {
            return None;
        }
        let brackets = match name.to_ascii_lowercase().as_str() {
            "temp" | "cdata" | "ignore" | "include" | "rcdata" => 2,
            "if" | "else" | "endif" => 1,
            _ => return self.hidden(2),
        };
        let (end, behind) = body.match_indices(']').find_map(|(first, _)| {
            let mut behind = &body[first..];
            for _ in 0..brackets {
                behind = behind.strip_prefix(']')?.trim_start_matches(is_space);
            }
            Some((first, behind.strip_prefix('>')?))
        })?;
        match body[..end].get(..6) {
            Some(name) if name.eq_ignore_ascii_case("cdata[") => self.soup.put(&body[6..end], Kind::CData),
            _ => self.soup.put("", Kind::Hidden),
        }
        Some(self.raw.len() - behind.len())
    }

    /// `&#…`. The character behind the number tells that it is whole; a `;` is taken with it.
    fn number(&mut self, rest: &str) -> Step {
        let (radix, digits) = match rest[2..].strip_prefix(['x', 'X']) {
            Some(digits) => (16, digits),
            None => (10, &rest[2..]),
        };
        let len = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        match digits[len..].chars().next() {
            Some(behind) if len > 0 && !behind.is_ascii_hexdigit() => {
                let number = entities::number(&digits[..len], radix);
                self.soup.data(entities::by_number(number).encode_utf8(&mut [0; 4]));
                let read = rest.len() - digits.len() + len + usize::from(behind == ';');
                Step::To(self.at + read)
            }
            _ => {
                if rest.contains(';') {
                    self.data_to(self.at + 2);
                }
                Step::Stop
            }
        }
    }

    /// `&` and no number. An unknown name loses its `;`.
    fn name(&mut self, rest: &str, end: bool) -> Step {
        let body = &rest[1..];
        if body.is_empty() {
            return Step::Stop;
        }
        if !body.starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.soup.data("&");
            return Step::To(self.at + 1);
        }
        let len = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
        // At the very end, only a dot or a dash within the name can end it.
        let Some(len) = len.or_else(|| body.rfind(['.', '-'])) else {
            if end && body.len() == 1 {
                // Python's parser loses the `&` of a last single letter.
                self.at += 1;
            }
            return Step::Stop;
        };
        let name = &body[..len];
        match entities::by_name(name) {
            Some(characters) => self.soup.data(characters),
            None => self.soup.data(&rest[..1 + len]),
        }
        Step::To(self.at + 1 + len + usize::from(body[len..].starts_with(';')))
    }
}
