//! The released sizes of the transformer.

/// One released size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// LlamaGen's name without its `GPT-`.
    pub name: &'static str,
    pub n_layer: usize,
    pub n_head: usize,
    pub dim: usize,
}

/// Class-conditional sizes B to XXXL, then text-conditional sizes by their parameters.
pub const PRESETS: [Preset; 8] = [
    Preset { name: "B", n_layer: 12, n_head: 12, dim: 768 },
    Preset { name: "L", n_layer: 24, n_head: 16, dim: 1024 },
    Preset { name: "XL", n_layer: 36, n_head: 20, dim: 1280 },
    Preset { name: "XXL", n_layer: 48, n_head: 24, dim: 1536 },
    Preset { name: "XXXL", n_layer: 48, n_head: 40, dim: 2560 },
    Preset { name: "1B", n_layer: 22, n_head: 32, dim: 2048 },
    Preset { name: "3B", n_layer: 24, n_head: 32, dim: 3200 },
    Preset { name: "7B", n_layer: 32, n_head: 32, dim: 4096 },
];

impl Preset {
    /// The preset of a name: `B`, `GPT-B`, in any case.
    pub fn named(name: &str) -> Option<&'static Self> {
        let bare = match name.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("GPT-") => &name[4..],
            _ => name,
        };
        PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(bare))
    }

    /// The preset of a width and depth; no two share both.
    pub fn of(dim: usize, n_layer: usize) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.dim == dim && preset.n_layer == n_layer)
    }
}
