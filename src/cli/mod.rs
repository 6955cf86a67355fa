//! The command line: parse, check, call the library, tell. One file per command.
//!
//! Sees the crate's public face alone. Results go to standard output, everything else to standard error;
//! exit code 0 is success, 1 failure, 2 wrong use.

mod bench;
mod convert;
mod decode;
mod device;
mod encode;
mod generate;
mod inspect;
mod model;
mod output;
mod parameters;
mod pictures;
mod progress;
mod reconstruct;
mod selftest;
#[cfg(feature = "server")]
mod serve;
mod subjects;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::backend::cpu::simd::Isa;
use crate::backend::cuda::kernels;
use crate::generate::Lookahead;
use crate::image::MAX_SIDE;
use crate::{Error, Result};

/// Make images with LlamaGen: a transformer draws codes, a VQ decoder paints them
#[derive(Parser)]
#[command(name = "smalti", version = VERSION.as_str(), max_term_width = 100)]
#[command(
    after_help = "Without a command it draws with the demo model, where that is built in and SMALTI_GPT_CKPT names no other, to smalti.png.
Every command explains itself: smalti generate --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<generate::Args>),
    Encode(encode::Args),
    Decode(decode::Args),
    Reconstruct(reconstruct::Args),
    Convert(convert::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Selftest(selftest::Args),
    #[cfg(feature = "server")]
    Serve(Box<serve::Args>),
}

/// Runs the program; what `main` returns.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command.unwrap_or_else(showcase)) {
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

/// What the program does when it is asked for nothing.
fn showcase() -> Command {
    let Cli { command } = Cli::parse_from(["smalti", "generate", "--show", "--output", "smalti.png"]);
    command.expect("it is spelt right")
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(&args),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::run(&args),
    }
}

/// Version and build facts: commit, kernels, and what this processor offers.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let kernels = match kernels::TARGETS {
        [] => "none".into(),
        targets => format!("sm_{} by nvcc {}.{}", targets.join(" sm_"), kernels::TOOLKIT.0, kernels::TOOLKIT.1),
    };
    format!(
        "{} (commit {}; CUDA kernels: {kernels}; CPU: {}, using {})",
        env!("CARGO_PKG_VERSION"),
        env!("SMALTI_COMMIT"),
        isas.join(" "),
        Isa::detect().name()
    )
});

/// A result, on standard output. A reader that went away (`| head`) is no failure: files still get written.
fn tell(line: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::io("write to", "standard output")),
    }
}

/// `1 image`, `2 images`.
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Checks `--image-size` against what pictures can be and what the VQ model divides by.
fn check_image_size(size: usize, downsample_size: usize) -> Result<()> {
    if (1..=MAX_SIDE).contains(&size) && size.is_multiple_of(downsample_size) {
        return Ok(());
    }
    let expected = format!("a multiple of {downsample_size}, the VQ model's down-sampling, up to {MAX_SIDE}");
    let near = (size.min(MAX_SIDE) / downsample_size).max(1) * downsample_size;
    Err(wrong_option("image-size", size, expected, &format!("{near} fits")))
}

/// Reads `--lookahead` for pictures of `tokens` tokens.
fn parse_lookahead(text: &str, tokens: usize) -> Result<Lookahead> {
    match text.parse() {
        Ok(lookahead) if !matches!(lookahead, Lookahead::Window(window) if window > tokens) => Ok(lookahead),
        _ => Err(wrong_option("lookahead", text, format!("auto or 1 to {tokens}, the tokens of a picture"), "")),
    }
}

/// An option that is out of its range.
fn wrong_option(option: &'static str, value: impl ToString, expected: impl Into<String>, hint: &str) -> Error {
    Error::Option { option, value: value.to_string(), expected: expected.into(), hint: hint.into() }
}
