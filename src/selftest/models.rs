//! The graphs whose ops are checked.

use super::values::Random;
use crate::Result;
use crate::config::{Condition, GptConfig, PRESETS, T5Config, VqConfig};
use crate::graph::{Draw, Elem, Extent, Graph, Load, NO_ROW, Phase, Row};
use crate::models::{GptGraph, GptShape, Pixels, T5Graph, T5Shape, VqDecoder, VqEncoder};

/// Which models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Small enough for kernels that run on a CPU.
    Small,
    /// The released ones.
    Released,
}

/// A model of which a few pictures are under way.
#[derive(Clone, Debug)]
pub struct Model {
    /// For people: `GPT-B, 2 rows`.
    pub name: String,
    kind: Kind,
    /// Pictures at once.
    pictures: usize,
    /// (down, across) codes of a picture.
    latent: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Gpt(GptConfig),
    /// What windows draw and accept.
    Windows(GptConfig),
    /// What a text model does before its steps.
    Prefill(GptConfig),
    T5(T5Config),
    Decoder(VqConfig),
    Encoder(VqConfig),
}

/// Rows of a window.
const WINDOW: usize = 8;

/// Tokens of the texts under way: together as many as one text may have.
const TEXTS: [usize; 2] = [37, 83];

/// Tokens of a text model's longest text.
const CLS_TOKEN_NUM: usize = TEXTS[0] + TEXTS[1];

/// The models of a size.
pub fn models(size: Size) -> Vec<Model> {
    let gpt = |name: &str, config: GptConfig, pictures: usize, latent: usize| Model {
        name: format!("{name}, {} rows", 2 * pictures),
        kind: Kind::Gpt(GptConfig { n_layer: 1, ..config }),
        pictures,
        latent,
    };
    let windows = |name: &str, config: GptConfig| Model {
        name: format!("windows of {name}"),
        kind: Kind::Windows(GptConfig { n_layer: 1, ..config }),
        pictures: 2,
        latent: 16,
    };
    let vq = |name: &str, kind: Kind, latent: usize| Model { name: name.into(), kind, pictures: 1, latent };
    let texts = |name: &str, kind: Kind| Model { name: name.into(), kind, pictures: 2, latent: 12 };
    let text = |caption_dim: usize| Condition::Text { caption_dim, cls_token_num: CLS_TOKEN_NUM };
    match size {
        Size::Small => {
            let condition = Condition::Class { num_classes: 10 };
            let config = |dim, n_head| GptConfig {
                dim,
                n_head,
                hidden_dim: 2 * dim,
                vocab_size: 256,
                ..GptConfig::of_preset(&PRESETS[0], condition.clone())
            };
            let tokenizer = VqConfig {
                codebook_size: 64,
                z_channels: 32,
                ch: 32,
                num_res_blocks: 1,
                ..VqConfig::released(&[1, 2])
            };
            vec![
                gpt("GPT of head_dim 64", config(128, 2), 1, 12),
                gpt("GPT of head_dim 100", config(200, 2), 3, 12),
                windows("256 codes", config(128, 2)),
                vq("VQ decoder", Kind::Decoder(tokenizer.clone()), 4),
                vq("VQ encoder", Kind::Encoder(tokenizer), 4),
                texts("prefill", Kind::Prefill(GptConfig { n_layer: 1, condition: text(48), ..config(128, 2) })),
                texts(
                    "T5",
                    Kind::T5(T5Config { d_model: 64, num_heads: 2, d_ff: 128, num_layers: 1, ..T5Config::xl() }),
                ),
            ]
        }
        Size::Released => {
            let condition = Condition::Class { num_classes: 1000 };
            let names = ["B", "L", "XL", "XXL", "3B"];
            let presets = PRESETS.iter().filter(|preset| names.contains(&preset.name));
            let mut models = vec![windows("GPT-B", GptConfig::of_preset(&PRESETS[0], condition.clone()))];
            for preset in presets {
                let config = GptConfig::of_preset(preset, condition.clone());
                let name = format!("GPT-{}", preset.name);
                models.extend([1, 8].map(|pictures| gpt(&name, config.clone(), pictures, 24)));
                if preset.dim <= 1280 {
                    models.push(gpt(&name, config, 64, 16));
                }
            }
            let tokenizer = VqConfig::released(&[1, 1, 2, 2, 4]);
            for (side, latent) in [(256, 16), (384, 24)] {
                models.push(vq(&format!("VQ-16 decoder, {side} px"), Kind::Decoder(tokenizer.clone()), latent));
            }
            models.push(vq("VQ-16 encoder, 256 px", Kind::Encoder(tokenizer), 16));
            let t5 = T5Config { num_layers: 1, ..T5Config::xl() };
            let xl = PRESETS.iter().find(|preset| preset.name == "XL").expect("a released size");
            let config = GptConfig { n_layer: 1, ..GptConfig::of_preset(xl, text(t5.d_model)) };
            models.push(texts("prefill of GPT-XL, 120 rows", Kind::Prefill(config)));
            models.push(texts("T5-XL, 120 rows", Kind::T5(t5)));
            models
        }
    }
}

impl Model {
    /// Its graph.
    pub(super) fn graph(&self, activations: Elem) -> Result<Graph> {
        let latent = (self.latent, self.latent);
        let slots = 2 * self.pictures;
        let shape = GptShape {
            latent_size: self.latent,
            slots,
            rows: if let Kind::Windows(_) = self.kind { slots * WINDOW } else { slots },
            pictures: self.pictures,
            precision: Elem::Bf16,
            activations,
        };
        match &self.kind {
            Kind::Gpt(config) => Ok(GptGraph::new(config, &shape).graph),
            Kind::Windows(config) => {
                let gpt = GptGraph::new(config, &shape);
                let pass = gpt.lookahead.expect("there are rows for windows").pass;
                // Up to the draws they are the ops of one-by-one decoding.
                let nodes = gpt.graph.nodes(pass)[gpt.sampling()..].to_vec();
                let name = gpt.graph.phase_name(pass).into();
                Ok(gpt.graph.with_phases(vec![Phase { name, nodes }]))
            }
            Kind::Prefill(config) => {
                let GptGraph { graph, text, .. } = GptGraph::new(config, &shape);
                let text = text.expect("a text model has a text part");
                let phase = |id| Phase { name: graph.phase_name(id).into(), nodes: graph.nodes(id).to_vec() };
                Ok(graph.with_phases(vec![phase(text.prefill), phase(text.set_prefix)]))
            }
            Kind::T5(config) => {
                let shape = T5Shape { rows: CLS_TOKEN_NUM, tokens: CLS_TOKEN_NUM, precision: Elem::Bf16, activations };
                Ok(T5Graph::new(config, &shape).graph)
            }
            Kind::Decoder(config) => {
                Ok(VqDecoder::build(config, latent, self.pictures, Pixels::U8, activations)?.graph)
            }
            Kind::Encoder(config) => {
                let size = latent.0 * config.downsample_size();
                Ok(VqEncoder::build(config, (size, size), self.pictures, Pixels::U8, activations)?.graph)
            }
        }
    }

    /// Codes of a picture, and the codes that there are.
    fn codes(&self) -> (usize, usize) {
        let count = match &self.kind {
            Kind::Gpt(config) | Kind::Windows(config) | Kind::Prefill(config) => config.vocab_size,
            Kind::T5(config) => config.vocab_size,
            Kind::Decoder(config) | Kind::Encoder(config) => config.codebook_size,
        };
        (self.latent * self.latent, count)
    }

    /// What a run carries, for the cost.
    pub(super) fn load(&self) -> Load {
        let extent = match self.kind {
            Kind::Gpt(_) => Extent { rows: 2 * self.pictures, draws: self.pictures },
            Kind::Windows(_) => Extent { rows: 2 * self.pictures * WINDOW, draws: self.pictures * WINDOW },
            Kind::Prefill(_) | Kind::T5(_) => Extent { rows: CLS_TOKEN_NUM, draws: 0 },
            _ => Extent { rows: self.pictures, draws: 0 },
        };
        let rows = self.rows();
        let keys = rows.iter().map(|row| row.position as usize + 1).sum::<usize>() / rows.len().max(1);
        Load { extent, keys }
    }

    /// A code for a buffer of them.
    pub(super) fn code(&self, random: &mut Random) -> u32 {
        random.below(self.codes().1) as u32
    }

    /// The rows: one picture at its condition, one at its first token, the others between there and the last; of
    /// texts, all tokens, one text behind the other.
    pub(super) fn rows(&self) -> Vec<Row> {
        let (tokens, vocab_size) = self.codes();
        if let Kind::Prefill(_) | Kind::T5(_) = self.kind {
            let text = |(slot, &tokens): (usize, &usize)| {
                let row = move |position: usize| Row {
                    slot: slot as u32,
                    position: position as u32,
                    token: ((31 * position + slot) % vocab_size) as u32,
                    settled: 0,
                };
                (0..tokens).map(row)
            };
            return TEXTS.iter().enumerate().flat_map(text).collect();
        }
        if let Kind::Windows(_) = self.kind {
            // Of each slot a window, which begins at a token of its own.
            let row = |slot: usize, j: usize| Row {
                slot: slot as u32,
                position: (slot / 2 + j) as u32,
                token: ((31 * slot + j) % vocab_size) as u32,
                settled: (slot / 2) as u32,
            };
            return (0..2 * self.pictures).flat_map(|slot| (0..WINDOW).map(move |j| row(slot, j))).collect();
        }
        let row = |r: usize| {
            let position = match r / 2 {
                0 => tokens / 2,
                1 => 0,
                2 => 1,
                3 => tokens - 1,
                picture => picture * 7919 % tokens,
            };
            // At the condition a token is a class; 5 is one of every model.
            let token = if position == 0 { 5 } else { (r * 31) % vocab_size };
            // All before the row's own is there: kernels read it early.
            Row { slot: r as u32, position: position as u32, token: token as u32, settled: position as u32 }
        };
        (0..2 * self.pictures).map(row).collect()
    }

    /// The draws: guided and not, greedy and not, with several ways of leaving codes out. Token 0, so that there is
    /// room for every run of the clock.
    pub(super) fn draws(&self) -> Vec<Draw> {
        let vocab_size = self.codes().1 as u32;
        let draw = |i: usize| Draw {
            seed: 7,
            image: i as u64,
            cond_row: 2 * i as u32,
            uncond_row: if i % 3 == 2 { NO_ROW } else { 2 * i as u32 + 1 },
            token: 0,
            picture: i as u32,
            cfg_scale: 1.5 + i as f32 / 4.0,
            temperature: if i % 4 == 3 { 0.5 } else { 1.0 },
            top_p: if i % 5 == 4 { 0.9 } else { 1.0 },
            top_k: if i.is_multiple_of(2) { vocab_size.min(2000) } else { vocab_size },
            greedy: (i % 7 == 6).into(),
            ..Draw::default()
        };
        if let Kind::Windows(_) = self.kind {
            return self.windows_draws(draw);
        }
        (0..self.pictures).map(draw).collect()
    }

    /// The draws of windows, for as many as there is room: those of no window draw nothing.
    fn windows_draws(&self, draw: impl Fn(usize) -> Draw) -> Vec<Draw> {
        let of_window = |i: usize| {
            let (picture, j) = (i / WINDOW, i % WINDOW);
            let cond_row = (2 * picture * WINDOW + j) as u32;
            Draw {
                image: picture as u64,
                cond_row,
                uncond_row: cond_row + WINDOW as u32,
                token: (picture + j) as u32,
                picture: picture as u32,
                // Guidance ends within the first windows.
                guidance_end: WINDOW as u32 / 2,
                window: if j == 0 { WINDOW as u32 } else { 0 },
                ..draw(i)
            }
        };
        let nothing = Draw { cond_row: NO_ROW, uncond_row: NO_ROW, ..Draw::default() };
        let windows = self.pictures * WINDOW;
        (0..windows).map(of_window).chain(std::iter::repeat_n(nothing, windows)).collect()
    }
}
