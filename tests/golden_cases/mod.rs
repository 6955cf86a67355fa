//! One file per kind of case.

pub mod gpt;
mod plain;
pub mod t2i;
pub mod t5;
pub mod vq;
