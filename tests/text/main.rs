//! From prompts to tokens: what LlamaGen's Python makes of captions, and T5's tokenizer.

#[path = "../common/mod.rs"]
mod common;

mod cleaning;
mod tokens;
