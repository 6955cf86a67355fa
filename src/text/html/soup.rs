//! What has been read of HTML: its text so far, and the elements that are open.

use std::collections::HashMap;

/// Elements without content.
const VOID: &[&str] = &[
    "area", "base", "basefont", "bgsound", "br", "col", "command", "embed", "frame", "hr", "image", "img", "input",
    "isindex", "keygen", "link", "menuitem", "meta", "nextid", "param", "source", "spacer", "track", "wbr",
];

/// Elements whose text is not the document's.
const HIDDEN: &[&str] = &["rp", "rt", "script", "style", "template"];

/// Elements that keep a run of spaces.
const PRESERVED: &[&str] = &["pre", "textarea"];

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shown, unless an element hides it.
    Text,
    /// Shown anywhere.
    CData,
    /// Comments, declarations.
    Hidden,
}

#[derive(Default)]
pub(super) struct Soup {
    text: String,
    /// Text since the last tag.
    pending: Option<String>,
    /// Names from the outermost in, and how many there are of each.
    open: Vec<String>,
    count: HashMap<String, usize>,
    /// Void elements whose end tag is yet to be ignored, if it comes.
    ended: HashMap<String, usize>,
}

/// Spaces of which a piece of nothing else becomes a single one.
pub(super) fn is_ascii_space(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\t' | '\x0c' | '\r')
}

impl Soup {
    /// More text.
    pub(super) fn data(&mut self, text: &str) {
        self.pending.get_or_insert_default().push_str(text);
    }

    /// A piece of its own.
    pub(super) fn put(&mut self, text: &str, kind: Kind) {
        self.flush(Kind::Text);
        self.data(text);
        self.flush(kind);
    }

    /// A start tag; `empty` if it ended with `/>`.
    pub(super) fn start(&mut self, name: &str, empty: bool) {
        self.flush(Kind::Text);
        self.open.push(name.to_string());
        *self.count.entry(name.to_string()).or_default() += 1;
        if empty {
            self.close(name);
        } else if VOID.contains(&name) {
            self.close(name);
            *self.ended.entry(name.to_string()).or_default() += 1;
        }
    }

    /// An end tag.
    pub(super) fn end(&mut self, name: &str) {
        match self.ended.get_mut(name) {
            Some(ended) if *ended > 0 => *ended -= 1,
            _ => self.close(name),
        }
    }

    /// Closes the innermost element of that name with all in it; without one, nothing.
    fn close(&mut self, name: &str) {
        self.flush(Kind::Text);
        while self.is_open(name) {
            let Some(innermost) = self.open.pop() else { return };
            if let Some(count) = self.count.get_mut(&innermost) {
                *count -= 1;
            }
            if innermost == name {
                return;
            }
        }
    }

    fn is_open(&self, name: &str) -> bool {
        self.count.get(name).is_some_and(|&count| count > 0)
    }

    /// Ends a piece.
    fn flush(&mut self, kind: Kind) {
        let Some(piece) = self.pending.take() else { return };
        let hidden = match kind {
            Kind::Text => HIDDEN.iter().any(|name| self.is_open(name)),
            Kind::CData => false,
            Kind::Hidden => true,
        };
        if hidden {
            return;
        }
        let preserved = PRESERVED.iter().any(|name| self.is_open(name));
        if !preserved && piece.chars().all(is_ascii_space) {
            self.text.push(if piece.contains('\n') { '\n' } else { ' ' });
        } else {
            self.text.push_str(&piece);
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.flush(Kind::Text);
        self.text
    }
}
