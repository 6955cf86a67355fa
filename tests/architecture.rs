//! One direction only: which rooms of `src/` may name which others, who may name a library of the device,
//! and where `unsafe` may stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a room may name of the crate, itself aside. `error` stands for `Error` and `Result`.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("process", &[]),
    ("error", &["units"]),
    ("math", &[]),
    ("files", &["error"]),
    ("image", &["error", "files"]),
    ("checkpoint", &["config", "error", "files"]),
    ("config", &["checkpoint", "error"]),
    ("text", &["error"]),
    ("graph", &["math", "units"]),
    ("models", &["config", "error", "graph"]),
    ("backend", &["checkpoint", "error", "graph", "math"]),
    ("bench", &["backend", "checkpoint", "config", "demo", "error", "generate", "graph", "models", "process"]),
    ("demo", &["backend", "checkpoint", "config", "error", "generate", "graph", "text"]),
    ("selftest", &["backend", "checkpoint", "config", "error", "graph", "models"]),
    ("engine", &["backend", "checkpoint", "config", "demo", "error", "generate", "graph", "image"]),
    ("generate", &["backend", "checkpoint", "config", "error", "files", "graph", "image", "models", "text"]),
];

/// Rooms that see what a user of the crate sees: public modules, and nothing that is `pub(crate)`.
const PUBLIC_FACE_ALONE: &[&str] = &["capi", "cli", "main", "serve"];

/// Where `unsafe` may stand, by the beginning of the path.
const MAY_BE_UNSAFE: &[&str] =
    &["backend/cpu/", "backend/cuda/", "capi/", "checkpoint/file.rs", "checkpoint/tensor.rs"];

/// The one place that may name the driver.
const DRIVER: (&str, &str) = ("cudarc", "backend/cuda/");

/// A source file: its path below `src` with `/`, and its text.
type Source = (String, String);

/// Everything in `sources` that is against the rules, one line each.
fn violations(sources: &[Source]) -> Vec<String> {
    let face = public_face(sources);
    let hidden = crate_only(sources);
    let mut found = Vec::new();
    for (path, text) in sources {
        let room = room(path);
        let code = code(text);
        let words: BTreeSet<&str> = words(&code).collect();
        let named = named(&code);
        if PUBLIC_FACE_ALONE.contains(&room) {
            found.extend(
                named
                    .iter()
                    .filter(|name| **name != room && !face.contains(*name))
                    .map(|name| format!("{path} names {name}, which is not public")),
            );
            let hidden = hidden.iter().filter(|name| words.contains(name.as_str()));
            found.extend(hidden.map(|name| format!("{path} names {name}, which is the crate's own")));
        } else if let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == room) {
            let wrong = named.iter().filter(|name| **name != room && !allowed.contains(&name.as_str()));
            found.extend(wrong.map(|name| format!("{path} names {name}")));
        } else if room != "lib" {
            found.push(format!("{path} is in a room without rules"));
        }
        if is_unsafe(&code) && !MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place)) {
            found.push(format!("{path} is unsafe"));
        }
        if words.contains(DRIVER.0) && !path.starts_with(DRIVER.1) {
            found.push(format!("{path} names {}", DRIVER.0));
        }
    }
    found
}

/// `graph/ops/mod.rs` is in `graph`, `math.rs` in `math`.
fn room(path: &str) -> &str {
    path.split('/').next().expect("a path").trim_end_matches(".rs")
}

/// The text without comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether the keyword is there; a word that goes on behind a dash is none.
fn is_unsafe(code: &str) -> bool {
    code.match_indices("unsafe").any(|(at, word)| code[at + word.len()..].starts_with([' ', '(', '\n']))
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The rooms that stand behind `crate::`, alone or in braces.
fn named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let mut put = |item: &str| match words(item).next() {
            Some("Error" | "Result") => rooms.insert("error".to_string()),
            Some(first) => rooms.insert(first.to_string()),
            None => false,
        };
        match rest.strip_prefix('{') {
            Some(list) => top_level_items(list).into_iter().for_each(|item| _ = put(item)),
            None => _ = put(rest),
        }
    }
    rooms
}

/// The items of a braced list behind its opening brace, nested lists left whole.
fn top_level_items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

/// Public modules and names that `lib.rs` exports.
fn public_face(sources: &[Source]) -> BTreeSet<String> {
    let lib = sources.iter().find(|(path, _)| path == "lib.rs").expect("src/lib.rs");
    let modules = lib.1.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let exports = lib.1.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    modules.chain(["error"]).chain(exports.flat_map(words)).map(String::from).collect()
}

/// Functions and types that are `pub(crate)`.
fn crate_only(sources: &[Source]) -> BTreeSet<String> {
    let kinds = ["pub(crate) fn ", "pub(crate) struct ", "pub(crate) enum ", "pub(crate) const "];
    let mut names = BTreeSet::new();
    for (_, text) in sources {
        for kind in kinds {
            names.extend(text.split(kind).skip(1).filter_map(|rest| words(rest).next()).map(String::from));
        }
    }
    names
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below it").to_str().expect("plain").replace('\\', "/");
                sources.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    walk(&root, &root, &mut sources);
    sources
}

#[test]
fn rooms_name_each_other_in_one_direction() {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were found");
    assert_eq!(violations(&sources), Vec::<String>::new());
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let lib = ("lib.rs".to_string(), "pub mod graph;\npub mod models;\nmod files;\n".to_string());
    let hidden = ("files.rs".to_string(), "pub(crate) fn write_atomically() {}".to_string());
    let check = |path: &str, text: &str| violations(&[lib.clone(), hidden.clone(), (path.into(), text.into())]);
    for (path, text, expected) in [
        ("graph/mod.rs", "use crate::backend::Plan;", "graph/mod.rs names backend"),
        ("graph/cost.rs", "fn f() -> crate::Error {}", "graph/cost.rs names error"),
        ("models/gpt.rs", "use crate::{Error, graph::{Op, Graph}, backend};", "models/gpt.rs names backend"),
        ("backend/cpu/mod.rs", "use crate::models::gpt;", "backend/cpu/mod.rs names models"),
        ("backend/mod.rs", "fn f(g: &crate::generate::Session) {}", "backend/mod.rs names generate"),
        ("checkpoint/mod.rs", "use crate::{\n    graph::Elem,\n};", "checkpoint/mod.rs names graph"),
        ("text/clean.rs", "use crate::files::read;", "text/clean.rs names files"),
        ("config/gpt.rs", "use crate::image::Rgb8;", "config/gpt.rs names image"),
        ("cli/mod.rs", "use crate::files::read;", "cli/mod.rs names files, which is not public"),
        ("cli/mod.rs", "write_atomically();", "cli/mod.rs names write_atomically, which is the crate's own"),
        ("graph/mod.rs", "unsafe { f() }", "graph/mod.rs is unsafe"),
        ("checkpoint/hub.rs", "unsafe fn f() {}", "checkpoint/hub.rs is unsafe"),
        ("backend/cpu/mod.rs", "use cudarc::driver;", "backend/cpu/mod.rs names cudarc"),
        ("attic/mod.rs", "", "attic/mod.rs is in a room without rules"),
    ] {
        assert_eq!(check(path, text), [expected], "{path}: {text}");
    }
    for (path, text) in [
        ("graph/mod.rs", "use crate::math; // crate::backend\n/// unsafe"),
        ("models/gpt.rs", "use crate::{Error, graph::{ops::{Embed, Op}, Graph}};"),
        ("backend/cpu/mod.rs", "unsafe { crate::backend::cpu::f() }"),
        ("cli/mod.rs", "use crate::{Result, graph::Op, models::{self, GptGraph}};"),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
