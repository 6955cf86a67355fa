//! The program `smalti`: a thin shell around the library's public face.

fn main() -> std::process::ExitCode {
    smalti::cli::main()
}
