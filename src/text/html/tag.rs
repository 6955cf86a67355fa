//! Tags: where they end, with whatever stands in them.

use super::super::pattern::{is_space, strip};
use super::Parser;

/// Elements whose content is no markup.
const RAW: [&str; 2] = ["script", "style"];

impl Parser<'_> {
    /// `<name …>`: the end of it, or none where more has to follow.
    pub(super) fn start_tag(&mut self) -> Option<usize> {
        let (start, raw) = (self.at, self.raw);
        let name_end = name_end(raw, start + 1);
        let at = self.attributes_end(skip(raw, name_end, |c| is_space(c) || c == '/'));
        let at = skip(raw, at, is_space);
        let end = match raw[at..].chars().next() {
            Some('>') => at + 1,
            Some('/') if raw[at..].starts_with("/>") => at + 2,
            Some(c) if !matches!(c, '/' | '=') && !c.is_ascii_alphabetic() => at,
            _ => return None,
        };

        // Once more, for how it ends.
        let mut at = skip_between(raw, name_end);
        while at < end
            && let Some(behind) = attribute(raw, at)
        {
            at = behind;
        }
        let name = raw[start + 1..name_end].to_lowercase();
        match strip(raw.get(at..end).unwrap_or("")) {
            ">" if RAW.contains(&name.as_str()) => {
                self.soup.start(&name, false);
                Some(self.raw_content(end, &name))
            }
            ending @ (">" | "/>") => {
                self.soup.start(&name, ending == "/>");
                Some(end)
            }
            _ => {
                self.soup.data(&raw[start..end]);
                Some(end)
            }
        }
    }

    /// The end of the attributes that begin at `at`.
    ///
    /// An attribute may hold what looks like another tag. So that a row of unfinished tags is not read to the end for
    /// each of them, it is kept where the attributes from any byte on end.
    fn attributes_end(&mut self, from: usize) -> usize {
        let mut row = Vec::new();
        let mut at = from;
        let end = loop {
            if let Some(&end) = self.attributes_end.get(&at) {
                break end;
            }
            row.push(at);
            match attribute(self.raw, at) {
                Some(behind) => at = behind,
                None => break at,
            }
        };
        self.attributes_end.extend(row.into_iter().map(|at| (at, end)));
        end
    }

    /// What stands between `<script>` and its `</script>` is no text; without an end tag, that is all there is.
    fn raw_content(&mut self, from: usize, name: &str) -> usize {
        for (open, _) in self.raw[from..].match_indices("</") {
            let found = end_tag_name(&self.raw[from + open..]);
            if let Some((found, behind)) = found
                && found.eq_ignore_ascii_case(name)
            {
                self.soup.end(name);
                return self.raw.len() - behind.len();
            }
        }
        self.raw.len()
    }

    /// `</name …>`, or a comment.
    pub(super) fn end_tag(&mut self, rest: &str) -> Option<usize> {
        let close = rest.find('>')?;
        if let Some((name, behind)) = end_tag_name(rest) {
            self.soup.end(&name.to_lowercase());
            return Some(self.raw.len() - behind.len());
        }
        if rest[2..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            let end = name_end(self.raw, self.at + 2);
            self.soup.end(&self.raw[self.at + 2..end].to_lowercase());
            return Some(self.at + close + 1);
        }
        if close == 2 { Some(self.at + 3) } else { self.hidden(2) }
    }
}

/// The name in a well-formed `</name>` and what follows the tag.
fn end_tag_name(rest: &str) -> Option<(&str, &str)> {
    let body = rest[2..].trim_start_matches(is_space);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    let len = body.find(|c| !is_name(c)).unwrap_or(body.len());
    let behind = body[len..].trim_start_matches(is_space).strip_prefix('>')?;
    body.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| (&body[..len], behind))
}

/// The end of a tag's name.
fn name_end(raw: &str, from: usize) -> usize {
    skip(raw, from, |c| !matches!(c, '\t' | '\n' | '\r' | '\x0c' | ' ' | '/' | '>' | '\0'))
}

/// The first byte from `from` on that is not `of`.
fn skip(raw: &str, from: usize, of: impl Fn(char) -> bool) -> usize {
    raw[from..].find(|c| !of(c)).map_or(raw.len(), |at| from + at)
}

/// Behind what may stand between attributes: spaces, and slashes but that of a `/>`.
fn skip_between(raw: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        at = skip(raw, at, is_space);
        match raw[at..].strip_prefix('/') {
            Some(behind) if !behind.starts_with('>') => at += 1,
            _ => return at,
        }
    }
}

/// The end of the attribute at `at`, with what stands between it and the next.
fn attribute(raw: &str, at: usize) -> Option<usize> {
    let first = raw[at..].chars().next()?;
    let before = raw[..at].chars().next_back()?;
    let may_begin = is_space(before) || matches!(before, '\'' | '"' | '/');
    if !may_begin || is_space(first) || matches!(first, '/' | '>') {
        return None;
    }
    let name_end = skip(raw, at + first.len_utf8(), |c| !is_space(c) && !matches!(c, '/' | '=' | '>'));
    Some(skip_between(raw, value_end(raw, name_end).unwrap_or(name_end)))
}

/// The end of ` = value` at `at`; a quote that is never closed is none.
fn value_end(raw: &str, at: usize) -> Option<usize> {
    let equals = skip(raw, at, is_space);
    let equals_end = skip(raw, equals, |c| c == '=');
    if equals == equals_end {
        return None;
    }
    let start = skip(raw, equals_end, is_space);
    let bare = |from| skip(raw, from, |c| !is_space(c) && c != '>');
    let Some(quote) = raw[start..].chars().next().filter(|&c| matches!(c, '\'' | '"')) else {
        return Some(bare(start));
    };
    match raw[start + 1..].find(quote) {
        Some(len) => Some(start + 1 + len + 1),
        // The value is empty, and the quote begins another attribute …
        None if start > equals_end => Some(start),
        // … or one of several `=` begins a value without quotes …
        None if equals_end - equals > 1 => Some(bare(equals_end - 1)),
        // … or there is no value at all.
        None => None,
    }
}
