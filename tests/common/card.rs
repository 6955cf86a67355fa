//! A card for programs that are started: the driver of `smalti_simt`, whose card is the SIMT executor.

use smalti::backend::cuda::kernels;
use smalti_simt::driver;

use super::skip;

/// The variables with which a program finds a card of these properties (`tests/simt/driver/driver.h`); `None`, which is
/// told, where there is no driver or the program has no kernels.
pub fn variables<'a>(what: &str, card: &'a str) -> Option<[(&'a str, &'a str); 2]> {
    let found = match kernels::MODULES {
        [] => Err("the program was built without CUDA kernels".into()),
        _ => driver(),
    };
    let driver = found.inspect_err(|reason| skip(what, reason)).ok()?;
    let folder = driver.parent().expect("a folder").to_str().expect("a plain path");
    Some([("LD_LIBRARY_PATH", folder), ("SIMT_CARD", card)])
}
