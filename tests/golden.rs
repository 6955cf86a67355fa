//! Golden cases: small models and what the reference implementation computes with them.
//!
//! Walks every folder under `tests/golden`, or under `SMALTI_GOLDEN_DIR` when set, and dispatches on
//! `meta.json`'s kind, so other cases of the same form run unchanged. A kind that nothing handles yet is
//! reported by name.

mod common;
mod golden_cases;

use std::path::{Path, PathBuf};

#[test]
fn every_golden_case() {
    let root = std::env::var_os("SMALTI_GOLDEN_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.expect("readable folder").path())
        .filter(|path| path.join("meta.json").is_file())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "no case with a meta.json under {}", root.display());
    for folder in folders {
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(folder.join("meta.json")).expect("readable meta.json");
        let meta: serde_json::Value = serde_json::from_str(&text).expect("meta.json is JSON");
        let expected = common::read_expected(&folder.join("expected.safetensors"));
        match meta["kind"].as_str() {
            Some("c2i") => golden_cases::gpt::check(&name, &folder, &meta, &expected),
            Some("t2i") => golden_cases::t2i::check(&name, &folder, &meta, &expected),
            Some("t5") => golden_cases::t5::check(&name, &folder, &meta, &expected),
            Some("vq") => golden_cases::vq::check(&name, &folder, &meta, &expected),
            Some(kind) => common::report(&format!("skipped: golden case {name}: kind `{kind}` is not implemented yet")),
            None => panic!("{name}: meta.json has no kind"),
        }
    }
}
