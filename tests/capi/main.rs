//! The C interface: its header, a C program under the address and leak sanitizers, and Python by ctypes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of `libsmalti.so` and `libsmalti.a`: that of the tests.
fn libraries() -> PathBuf {
    let folder = env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(folder.join("libsmalti.so").is_file(), "no libsmalti.so in {}", folder.display());
    folder
}

/// A class model and its VQ model: files that every function can open.
fn models() -> [PathBuf; 2] {
    [root().join("tests/golden/c2i/gpt.pt"), root().join("tests/golden/vq16/vq.pt")]
}

/// A text model and its encoder, for the same VQ model.
fn text_models() -> [PathBuf; 2] {
    ["t2i/gpt.pt", "t5"].map(|name| root().join("tests/golden").join(name))
}

/// Runs a command and returns what it printed; panics with all of it when it fails.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

#[test]
fn the_header_is_that_of_the_sources() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("the configuration");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["status", "options", "engine", "request"] {
        builder = builder.with_src(root().join("src/capi").join(file).with_extension("rs"));
    }
    let mut header = Vec::new();
    builder.generate().expect("a header").write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let path = root().join("include/smalti.h");
    if env::var_os("SMALTI_UPDATE").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == header, "include/smalti.h is not what src/capi says; run this test with SMALTI_UPDATE=1");
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let exported = run(Command::new("nm").args(["-D", "--defined-only"]).arg(libraries().join("libsmalti.so")));
    let mut exported: Vec<&str> = exported.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    let header = fs::read_to_string(root().join("include/smalti.h")).unwrap();
    let code = header.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut declared: Vec<&str> = code.match_indices("smalti_").filter_map(|(at, _)| function(&code[at..])).collect();
    declared.sort_unstable();
    declared.dedup();
    assert_eq!(exported, declared);
}

/// The name of a function at the beginning of a text: one that its arguments follow.
fn function(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    text[end..].starts_with('(').then_some(&text[..end])
}

#[test]
fn a_c_program_draws_under_the_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let (program, libraries) = (folder.path().join("draw"), libraries());
    run(Command::new("gcc")
        .args(["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=address"])
        .arg(root().join("tests/capi/draw.c"))
        .arg("-I")
        .arg(root().join("include"))
        .arg("-L")
        .arg(&libraries)
        .arg(format!("-Wl,-rpath,{}", libraries.display()))
        .args(["-lsmalti", "-lpthread", "-o"])
        .arg(&program));
    let demo = cfg!(feature = "demo").then_some("demo");
    let said =
        run(Command::new(&program).args(models()).args(text_models()).args(demo).env("ASAN_OPTIONS", "detect_leaks=1"));
    assert!(said.ends_with("all is well\n"), "{said}");
}

#[test]
fn a_c_program_links_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("draw");
    run(Command::new("gcc")
        .args(["-std=c11", "-I"])
        .arg(root().join("include"))
        .args([root().join("tests/capi/draw.c"), libraries().join("libsmalti.a")])
        .args(["-lpthread", "-ldl", "-lm", "-lgcc_s", "-o"])
        .arg(&program));
    assert!(run(Command::new(&program).args(models()).args(text_models())).ends_with("all is well\n"));
}

#[test]
fn the_header_is_c_plus_plus_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("header.cpp");
    fs::write(&source, "#include <smalti.h>\nint main() { return smalti_version() == nullptr; }\n").unwrap();
    let object = folder.path().join("header.o");
    let strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "-o"];
    run(Command::new("g++").args(strict).arg(&object).arg(&source).arg("-I").arg(root().join("include")));
}

#[test]
fn python_draws_by_ctypes() {
    let script = root().join("tests/capi/draw.py");
    let said = run(Command::new("python3").arg(script).arg(libraries().join("libsmalti.so")).args(models()));
    assert!(said.ends_with("all is well\n"), "{said}");
}
