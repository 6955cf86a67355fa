//! From a prompt to the ids of its tokens: LlamaGen's caption cleaning and T5's tokenizer.
//!
//! LlamaGen's text models saw nothing but cleaned captions, so a prompt goes through the same cleaning, twice, as
//! there ([`clean_caption`]), and then through the tokenizer of a Hugging Face T5 folder ([`Tokenizer`]). What
//! LlamaGen borrows from Python for it is here in our own words, to the letter: percent-decoding (`clean`), the text
//! of HTML as Beautiful Soup gives it (`html`), entities (`entities`), what ftfy mends (`fix`), and Python's
//! ideas of a word, a digit and a space in patterns (`pattern`).
//!
//! Depends on `error` alone. Tested by `tests/text`, against what LlamaGen's Python gives for some hundreds of captions
//! (`tests/data/captions.json`) and against its tokens (`tests/golden/t5`).
//!
//! ```
//! assert_eq!(smalti::text::clean_caption("A <b>Fox</b> &amp; a Hen, 1920x1080 https://a.com/x"), "a fox a hen");
//! ```

mod clean;
mod codepage;
mod entities;
mod fix;
mod html;
mod pattern;
mod tokenizer;

pub use clean::clean_caption;
pub use tokenizer::{Tokenizer, Tokens};
