//! The kernels by name, and their machine code; written by `build.rs` from `kernels/*.cu`.
//!
//! A kernel that no file exports has no constant here, so a misspelt name does not compile.

use super::device::Kernel;

/// The driver reads machine code in words.
#[allow(dead_code)] // a program without kernels has none to align
#[repr(align(16))]
struct Aligned<const N: usize>([u8; N]);

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
