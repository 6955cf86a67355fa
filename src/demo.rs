//! The model that is part of the program: drawn things of 32 kinds, by class or by prompt.
//!
//! Trained by `tools/train` on pictures that it draws itself; `assets/demo/README.md` tells how good it is. A build
//! without the feature `demo` has none of it, and every function here says so.
//!
//! ```
//! # #[cfg(feature = "demo")] {
//! use smalti::demo::{Half, model};
//!
//! let model = model(Half::Classes)?;
//! assert_eq!(model.gpt_config.vocab_size, model.vq_config.codebook_size);
//! # }
//! # Ok::<(), smalti::Error>(())
//! ```

use std::path::PathBuf;

use clap::ValueEnum;

use crate::backend::Executor;
use crate::checkpoint::Checkpoint;
use crate::config::{GptConfig, VqConfig};
use crate::generate::{Model, Prompter};
use crate::graph::Elem;
use crate::text::Tokenizer;
use crate::{Error, Result};

/// What the program draws when it is asked for nothing.
pub const CLASSES: &str =
    "sun,star,house,castle,sailboat,umbrella,mushroom,crown,tree,balloon,heart,apple,gift,cat,ladybug,rocket";

/// Prompts to measure with, and to show.
pub const PROMPTS: [&str; 8] = [
    "a red sailboat left of a yellow moon at night",
    "an orange cat on a plain blue background",
    "a blue fish by the sea",
    "a white snowman right of a green fir tree in the snow",
    "a purple butterfly above a pink flower in a meadow",
    "a red rocket in a starry night",
    "a yellow star left of a red heart on a checkerboard",
    "a yellow sun above a green tree in the hills",
];

/// Makes a file start where any number may.
#[cfg(feature = "demo")]
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

#[cfg(feature = "demo")]
macro_rules! files {
    ($($name:literal),*) => {
        &[$(($name, {
            static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!("../assets/demo/", $name)));
            &FILE.0
        })),*]
    };
}

/// All files by name.
#[cfg(feature = "demo")]
static FILES: &[(&str, &[u8])] = files!(
    "vq.safetensors",
    "c2i.safetensors",
    "t2i.safetensors",
    "t5/model.safetensors",
    "t5/config.json",
    "t5/tokenizer.json"
);
#[cfg(not(feature = "demo"))]
static FILES: &[(&str, &[u8])] = &[];

/// One of its two transformers, which share a VQ model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Half {
    /// The class-conditional one.
    Classes,
    /// The text-conditional one; [`prompter`] encodes its prompts.
    Prompts,
}

/// A transformer and its VQ model.
pub fn model(half: Half) -> Result<Model> {
    let gpt = match half {
        Half::Classes => "c2i.safetensors",
        Half::Prompts => "t2i.safetensors",
    };
    let (gpt, vq) = (checkpoint(gpt, None)?, checkpoint("vq.safetensors", None)?);
    let (gpt_config, vq_config) = (GptConfig::detect(&gpt, None)?.0, VqConfig::detect(&vq)?);
    Model::new((gpt, gpt_config), (vq, vq_config))
}

/// The text encoder for a transformer that takes `sizes`: tokens, and channels of each.
pub fn prompter(executor: &dyn Executor, sizes: (usize, usize), precision: Elem) -> Result<Prompter> {
    let tokenizer = Tokenizer::parse(label("t5/tokenizer.json"), bytes("t5/tokenizer.json")?)?;
    let checkpoint = checkpoint("t5/model.safetensors", Some(bytes("t5/config.json")?))?;
    Prompter::new(executor, tokenizer, &checkpoint, sizes, precision)
}

fn checkpoint(file: &str, config: Option<&[u8]>) -> Result<Checkpoint> {
    Checkpoint::built_in(&label(file), bytes(file)?, config)
}

/// What stands for a file in errors, and for its checkpoint in a picture's metadata.
fn label(file: &str) -> PathBuf {
    PathBuf::from(format!("demo-{file}"))
}

fn bytes(file: &str) -> Result<&'static [u8]> {
    let found = FILES.iter().find(|(other, _)| *other == file).map(|(_, bytes)| *bytes);
    found.ok_or_else(|| Error::Option {
        option: "gpt-ckpt",
        value: "(missing)".into(),
        expected: "checkpoints, as this build has no demo model".into(),
        hint: "name --gpt-ckpt and --vq-ckpt, or build with the feature demo".into(),
    })
}
