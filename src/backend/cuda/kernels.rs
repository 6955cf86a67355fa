//! The kernels by name, and their machine code; written by `build.rs` from `kernels/*.cu`.
//!
//! A kernel that no file exports has no constant here, so a misspelt name does not compile.

use super::device::Kernel;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
