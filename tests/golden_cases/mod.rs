//! One file per kind of case.

pub mod gpt;
pub mod t5;
pub mod vq;
