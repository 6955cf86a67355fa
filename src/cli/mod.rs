//! The command line: parse, check, call the library, tell. One file per command.
//!
//! Sees the crate's public face alone. Results go to standard output, everything else to standard error;
//! exit code 0 is success, 1 failure, 2 wrong use.

mod bench;
mod device;
mod generate;
mod output;
mod progress;

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::backend::cpu::simd::Isa;
use crate::{Error, Result};

/// Makes images with LlamaGen on a CPU.
#[derive(Parser)]
#[command(name = "smalti", version = VERSION.as_str(), about, max_term_width = 100)]
#[command(after_help = "Every command explains itself: smalti generate --help")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Args),
    Bench(bench::Args),
}

/// Runs the program; what `main` returns.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// Version and build facts: commit, kernels, and what this processor offers.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    format!(
        "{} (commit {}; CUDA kernels: none; CPU: {}, using {})",
        env!("CARGO_PKG_VERSION"),
        env!("SMALTI_COMMIT"),
        isas.join(" "),
        Isa::detect().name()
    )
});

/// Text that the user must see but that is no failure.
fn note(text: &str) {
    eprintln!("note: {text}");
}

/// An option that is out of its range.
fn wrong_option(option: &'static str, value: impl ToString, expected: impl Into<String>, hint: &str) -> Error {
    Error::Option { option, value: value.to_string(), expected: expected.into(), hint: hint.into() }
}
