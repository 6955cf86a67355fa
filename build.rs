//! Build facts for `smalti --version`, and the CUDA kernels.
//!
//! Every `kernels/*.cu` becomes one fatbin, which is built into the program. Variables:
//! - `NVCC`, `CUDA_HOME`: where the compiler is; else the PATH. Without one the program has no kernels and runs
//!   on the CPU.
//! - `SMALTI_CUDA`: `require` makes a missing compiler an error, `off` leaves the kernels out.
//! - `SMALTI_CUDA_ARCHS`: targets such as `90a` or `80,90a`, or `native`; all by default.
//!
//! What is compiled is kept in `target/kernels` for all profiles; `ptxas.txt` there lists registers and spills.

#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/ptxas.rs"]
mod ptxas;

use std::path::Path;
use std::process::Command;

fn main() {
    // The commit, where the source is a git checkout; a tarball has none.
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=SMALTI_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    // The log grows with every commit. A file that is not there would mean a new build each time.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    cuda::build();
}

/// What a git command prints; `None` where it fails or there is no git.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
