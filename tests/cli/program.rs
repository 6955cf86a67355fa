//! Running the program, and what holds for every command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;

/// A file of the repository's tests.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    path.to_str().expect("a plain path").to_string()
}

/// The golden transformer: 10 classes, 256 codes; its head count must be guessed.
pub fn gpt() -> String {
    fixture("golden/c2i/gpt.pt")
}

/// The golden tokenizer that fits it: 16 pixels per code.
pub fn vq() -> String {
    fixture("golden/vq16/vq.pt")
}

/// How a run ended.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The lines of standard output of a run that went well.
    #[track_caller]
    pub fn lines(&self) -> Vec<&str> {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout.lines().collect()
    }
}

/// An empty folder that programs run in.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program here, untouched by the settings of who runs the tests.
    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with(&[], args)
    }

    /// The same with these variables set.
    pub fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Run {
        let mut command: Command = assert_cmd::cargo::cargo_bin_cmd!("smalti");
        for name in [
            "SMALTI_DEVICE",
            "SMALTI_THREADS",
            "SMALTI_GPT_CKPT",
            "SMALTI_VQ_CKPT",
            "SMALTI_T5_PATH",
            "SMALTI_TEXT_DEVICE",
            "SMALTI_CUDA_EAGER",
            "SMALTI_CUDA_OVERLAP",
            "SMALTI_CUDA_CARVEOUT",
            "SIMT_CARD",
        ] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let output = command.current_dir(&self.0).args(args).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().expect("it ends by itself");
        Run { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// `smalti generate` with the golden models at 64 pixels: 16 tokens.
    pub fn generate(&self, args: &[&str]) -> Run {
        let (gpt, vq) = (gpt(), vq());
        let models = ["generate", "--gpt-ckpt", &gpt, "--vq-ckpt", &vq, "--image-size", "64"];
        self.run(&[&models, args].concat())
    }

    /// All files here and in folders here, with their bytes.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(folder: &Path, root: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    walk(&path, root, files);
                } else {
                    let name = path.strip_prefix(root).expect("below it").to_str().expect("plain").to_string();
                    files.insert(name, std::fs::read(&path).expect("a file"));
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(self.0.path(), self.0.path(), &mut files);
        files
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

const COMMANDS: [&str; 7] = ["generate", "serve", "encode", "decode", "reconstruct", "convert", "inspect"];

#[test]
fn every_command_explains_itself_with_examples() {
    let folder = Folder::new();
    let help = folder.run(&["--help"]);
    for command in COMMANDS {
        assert!(help.stdout.contains(command), "{command} in {}", help.stdout);
        let help = folder.run(&[command, "--help"]);
        assert_eq!(help.code, 0, "{command}");
        assert!(help.stdout.contains("Examples:\n  smalti "), "{}", help.stdout);
    }
}

#[test]
fn the_version_names_commit_kernels_and_processor() {
    let version = Folder::new().run(&["--version"]).stdout;
    for part in [env!("CARGO_PKG_VERSION"), concat!("commit ", env!("SMALTI_COMMIT")), "kernels", "CPU: ", "portable"] {
        assert!(version.contains(part), "{part} in {version}");
    }
}

#[test]
fn wrong_use_is_told_from_failure() {
    let folder = Folder::new();
    if cfg!(not(feature = "demo")) {
        assert_eq!(folder.run(&[]).code, 2);
    }
    assert_eq!(folder.run(&["paint"]).code, 2);
    assert_eq!(folder.run(&["generate", "--colour"]).code, 2);
}
