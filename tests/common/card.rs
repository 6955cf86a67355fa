//! A card where there is none: the driver of `smalti_simt`, whose card is the SIMT executor.

use std::path::Path;

use smalti::backend::cuda::kernels;
use smalti_simt::driver;

use super::skip;

/// Properties (`tests/simt/driver/driver.h`) of a card that this program's kernels run on: Hopper, or else what the last
/// target is for; with a driver as young as the compiler.
pub fn properties() -> String {
    let number = |target: &str| target.trim_end_matches(char::is_alphabetic).parse::<u32>().expect("a target");
    let targets = || kernels::TARGETS.iter().map(|target| number(target));
    let target = targets().find(|&target| target == 90).or_else(|| targets().next_back()).unwrap_or(90);
    let (major, minor) = kernels::TOOLKIT;
    format!("driver={} major={} minor={}", 1000 * major + 10 * minor, target / 10, target % 10)
}

/// The driver's file; `None`, which is told, where the program has no kernels or no compiler made the driver.
pub fn available(what: &str) -> Option<&'static Path> {
    let found = match kernels::MODULES {
        [] => Err("the program was built without CUDA kernels".into()),
        _ => driver(),
    };
    found.inspect_err(|reason| skip(what, reason)).ok()
}

/// The variables with which a program finds a card that has these properties beside [`properties`].
pub fn variables(what: &str, card: &str) -> Option<[(&'static str, String); 2]> {
    let folder = available(what)?.parent().expect("a folder").to_str().expect("a plain path");
    let path = match std::env::var("LD_LIBRARY_PATH") {
        Ok(others) if !others.is_empty() => format!("{folder}:{others}"),
        _ => folder.into(),
    };
    Some([("LD_LIBRARY_PATH", path), ("SIMT_CARD", format!("{} {card}", properties()))])
}
