//! One file per kind of case.

pub mod gpt;
pub mod vq;
