//! The model that is part of the program: drawn things of 32 kinds, by class.
//!
//! Trained by `tools/train` on pictures that it draws itself; `assets/demo/README.md` tells how good it is. A build
//! without the feature `demo` has none of it, and says so.
//!
//! ```
//! # #[cfg(feature = "demo")] {
//! let model = smalti::demo::model()?;
//! assert_eq!(model.gpt_config.vocab_size, model.vq_config.codebook_size);
//! # }
//! # Ok::<(), smalti::Error>(())
//! ```

use std::path::PathBuf;

use crate::checkpoint::Checkpoint;
use crate::config::{GptConfig, VqConfig};
use crate::generate::Model;
use crate::{Error, Result};

/// What the program draws when it is asked for nothing.
pub const CLASSES: &str =
    "sun,star,house,castle,sailboat,umbrella,mushroom,crown,tree,balloon,heart,apple,gift,cat,ladybug,rocket";

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
static FILES: &[(&str, &[u8])] = files!("vq.safetensors", "c2i.safetensors");
#[cfg(not(feature = "demo"))]
static FILES: &[(&str, &[u8])] = &[];

/// The transformer and its VQ model.
pub fn model() -> Result<Model> {
    let (gpt, vq) = (checkpoint("c2i.safetensors")?, checkpoint("vq.safetensors")?);
    let (gpt_config, vq_config) = (GptConfig::detect(&gpt, None)?.0, VqConfig::detect(&vq)?);
    Model::new((gpt, gpt_config), (vq, vq_config))
}

fn checkpoint(file: &str) -> Result<Checkpoint> {
    Checkpoint::built_in(&label(file), bytes(file)?)
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
