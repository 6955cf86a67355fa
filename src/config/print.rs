//! Configurations for people: what the model is, and its sizes by LlamaGen's names.

use std::fmt;

use super::{Condition, GptConfig, ModelConfig, Preset, T5Config, VqConfig};

impl ModelConfig {
    /// What the model is in a few words; a released size by its name.
    pub fn title(&self) -> String {
        match self {
            Self::Gpt(config) => gpt_title(config),
            Self::Vq(config) => vq_title(config),
            Self::T5(config) if *config == (T5Config { embedding: config.embedding, ..T5Config::xl() }) => {
                "T5-XL encoder".into()
            }
            Self::T5(_) => "T5 encoder".into(),
        }
    }
}

fn gpt_title(config: &GptConfig) -> String {
    let GptConfig { dim, n_layer, n_head, .. } = *config;
    let preset = Preset::of(dim, n_layer).filter(|preset| preset.n_head == n_head);
    let size = preset.map_or("GPT of no released size".into(), |preset| format!("GPT-{}", preset.name));
    match config.condition {
        Condition::Class { .. } => format!("{size}, class-conditional (c2i)"),
        Condition::Text { .. } => format!("{size}, text-conditional (t2i)"),
    }
}

fn vq_title(config: &VqConfig) -> String {
    let down = config.downsample_size();
    let released = [&[1, 1, 2, 2, 4][..], &[1, 2, 2, 4]].into_iter().any(|ch_mult| {
        let released = VqConfig::released(ch_mult);
        released == *config || VqConfig { encoder_ch_mult: None, ..released } == *config
    });
    let name = if released { format!("VQ-{down} as released") } else { "VQ model of no released size".into() };
    match config.encoder_ch_mult {
        Some(_) => format!("{name}, decoder and encoder"),
        None => format!("{name}, decoder only"),
    }
}

/// The title, then one indented line per size.
impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        let mut sizes = self.metadata();
        sizes.remove("smalti.kind");
        match self {
            Self::Gpt(config) => sizes.insert("head_dim".into(), config.head_dim().to_string()),
            Self::Vq(config) => sizes.insert("downsample_size".into(), config.downsample_size().to_string()),
            Self::T5(_) => None,
        };
        let width = sizes.keys().map(String::len).max().unwrap_or(0).max(19);
        sizes.iter().try_for_each(|(name, value)| writeln!(f, "  {name:<width$} {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_models_have_their_names() {
        let gpt = GptConfig::of_preset(Preset::named("XL").unwrap(), Condition::Class { num_classes: 1000 });
        assert_eq!(ModelConfig::Gpt(gpt.clone()).title(), "GPT-XL, class-conditional (c2i)");
        let other = GptConfig { n_head: 10, ..gpt };
        assert_eq!(ModelConfig::Gpt(other).title(), "GPT of no released size, class-conditional (c2i)");

        let vq = VqConfig { encoder_ch_mult: None, ..VqConfig::released(&[1, 2, 2, 4]) };
        assert_eq!(ModelConfig::Vq(vq.clone()).title(), "VQ-8 as released, decoder only");
        let other = VqConfig { codebook_size: 4096, ..vq };
        assert_eq!(ModelConfig::Vq(other).title(), "VQ model of no released size, decoder only");
    }

    #[test]
    fn sizes_are_printed_by_name() {
        let gpt = GptConfig::of_preset(Preset::named("B").unwrap(), Condition::Class { num_classes: 1000 });
        let text = ModelConfig::Gpt(gpt).to_string();
        let line = |name: &str, value: &str| text.contains(&format!("\n  {name:<19} {value}\n"));
        assert!(line("dim", "768") && line("head_dim", "64"), "{text}");
    }
}
