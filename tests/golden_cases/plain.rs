//! LlamaGen's text-conditional transformer as the paper draws it, in f64: every place of the text has its row,
//! padding too, every row its query and key, and one mask says who sees whom.

use smalti::checkpoint::Checkpoint;
use smalti::config::{Condition, GptConfig};
use smalti::models::gpt::freqs_cis;

/// A matrix, row after row.
struct Matrix {
    values: Vec<f64>,
    depth: usize,
}

impl Matrix {
    fn times(&self, x: &[f64]) -> Vec<f64> {
        self.values.chunks_exact(self.depth).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn row(&self, r: usize) -> &[f64] {
        &self.values[r * self.depth..(r + 1) * self.depth]
    }
}

/// A transformer's weights and sizes.
pub struct Model<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a GptConfig,
    /// (1 + N, D/2, 2)
    freqs_cis: Vec<f32>,
}

impl<'a> Model<'a> {
    pub fn new(checkpoint: &'a Checkpoint, config: &'a GptConfig, latent_size: usize) -> Self {
        let freqs_cis = freqs_cis(latent_size, config.head_dim(), config.rope_base);
        Self { checkpoint, config, freqs_cis }
    }

    fn matrix(&self, name: &str) -> Matrix {
        let tensor = self.checkpoint.get(&format!("{name}.weight")).expect("a weight");
        let values = tensor.to_f32().into_iter().map(f64::from).collect();
        Matrix { values, depth: *tensor.shape().last().expect("a dimension") }
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.matrix(name).values;
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let rstd = 1.0 / (mean + f64::from(self.config.norm_eps)).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * rstd * w).collect()
    }

    /// The logits that say tokens 0 to codes.len(), for `caption` (n, caption_dim) at the last of `places` places.
    pub fn logits(&self, caption: &[f32], places: usize, codes: &[usize]) -> Vec<f64> {
        let Condition::Text { caption_dim, .. } = self.config.condition else { panic!("a text model") };
        let padding = places - caption.len() / caption_dim;
        let (fc1, fc2) = (self.matrix("cls_embedding.cap_proj.fc1"), self.matrix("cls_embedding.cap_proj.fc2"));
        let gelu = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        };
        let project = |place: usize| {
            let from = place.checked_sub(padding).map(|valid| &caption[valid * caption_dim..][..caption_dim]);
            let vector: Vec<f64> = from.map_or(vec![0.0; caption_dim], |v| v.iter().map(|&x| f64::from(x)).collect());
            fc2.times(&fc1.times(&vector).into_iter().map(gelu).collect::<Vec<_>>())
        };
        let embeddings = self.matrix("tok_embeddings");
        let mut x: Vec<Vec<f64>> = (0..places).map(project).collect();
        x.extend(codes.iter().map(|&code| embeddings.row(code).to_vec()));
        let sees = |row: usize, key: usize| row == key || (padding..row).contains(&key);
        for layer in 0..self.config.n_layer {
            self.block(&format!("layers.{layer}"), &mut x, places, &sees);
        }
        let output = self.matrix("output");
        x[places - 1..].iter().flat_map(|x| output.times(&self.norm("norm", x))).collect()
    }

    fn block(&self, at: &str, x: &mut [Vec<f64>], places: usize, sees: &dyn Fn(usize, usize) -> bool) {
        let (dim, d) = (self.config.dim, self.config.head_dim());
        let (wqkv, wo) = (self.matrix(&format!("{at}.attention.wqkv")), self.matrix(&format!("{at}.attention.wo")));
        let qkv: Vec<Vec<f64>> = (0..x.len())
            .map(|row| {
                let mut qkv = wqkv.times(&self.norm(&format!("{at}.attention_norm"), &x[row]));
                // The text's places all have row 0 of the table, which is zero.
                let position = (row + 1).saturating_sub(places);
                for (i, pair) in qkv[..2 * dim].chunks_exact_mut(2).enumerate() {
                    let angle = (position * (d / 2) + i % (d / 2)) * 2;
                    let (cos, sin) = (f64::from(self.freqs_cis[angle]), f64::from(self.freqs_cis[angle + 1]));
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
                }
                qkv
            })
            .collect();
        for (row, x) in x.iter_mut().enumerate() {
            let mut heads = vec![0.0; dim];
            for (head, out) in heads.chunks_exact_mut(d).enumerate() {
                let part = |part: usize, row: usize| &qkv[row][part * dim + head * d..][..d];
                let weights: Vec<(usize, f64)> = (0..=row)
                    .filter(|&key| sees(row, key))
                    .map(|key| {
                        let score: f64 = part(0, row).iter().zip(part(1, key)).map(|(q, k)| q * k).sum();
                        (key, (score / (d as f64).sqrt()).exp())
                    })
                    .collect();
                let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
                for (key, weight) in weights {
                    out.iter_mut().zip(part(2, key)).for_each(|(out, v)| *out += weight / sum * v);
                }
            }
            add(x, &wo.times(&heads));
        }
        let [w1, w2, w3] = ["w1", "w2", "w3"].map(|name| self.matrix(&format!("{at}.feed_forward.{name}")));
        for x in x {
            let normed = self.norm(&format!("{at}.ffn_norm"), x);
            let gate = w1.times(&normed).into_iter().map(|gate| gate / (1.0 + (-gate).exp()));
            let hidden: Vec<f64> = gate.zip(w3.times(&normed)).map(|(gate, up)| gate * up).collect();
            add(x, &w2.times(&hidden));
        }
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
