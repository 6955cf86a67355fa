//! The eye: a small classifier of drawn scenes, trained by `tools/train evaluate` on fresh drawings alone.
//!
//! Five convolutions of stride 2 with ReLU, 128 features, and five answers: how things lie, the kinds of the first and
//! of the second, the colours of both.

use std::path::Path;

use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::image::Rgb8;

/// Side of the pictures that it looks at.
const SIDE: usize = 128;

pub struct Eye {
    convolutions: Vec<Layer>,
    hidden: Layer,
    heads: Layer,
    pub kinds: Vec<String>,
    pub colours: Vec<String>,
}

/// What the eye says of a picture. A thing is (kind, colour), as places in the lists of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub layout: Layout,
    /// The only thing, or the left or upper one.
    pub first: (usize, usize),
    /// The right or lower one; nothing of meaning where there is one alone.
    pub second: (usize, usize),
}

/// How things lie, in the order of the eye's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Single,
    Beside,
    Stacked,
}

impl Layout {
    const ALL: [Self; 3] = [Self::Single, Self::Beside, Self::Stacked];
}

struct Layer {
    /// (outputs, inputs) row by row; a convolution's inputs are (channels, 3, 3).
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Eye {
    pub fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eye.safetensors");
        let checkpoint = Checkpoint::open(&path, WeightsChoice::Model).unwrap();
        let values = |name: String| checkpoint.get(&name).expect("the eye has it").to_f32();
        let layer =
            |name: &str| Layer { weight: values(format!("{name}.weight")), bias: values(format!("{name}.bias")) };
        let names = |key: &str| serde_json::from_str(&checkpoint.metadata()[key]).expect("a list of names");
        Self {
            convolutions: (0..5).map(|i| layer(&format!("convs.{i}"))).collect(),
            hidden: layer("hidden"),
            heads: layer("heads"),
            kinds: names("class_names"),
            colours: names("colour_names"),
        }
    }

    pub fn look(&self, picture: &Rgb8) -> Seen {
        assert_eq!((picture.width(), picture.height()), (SIDE, SIDE));
        let pixels = picture.pixels();
        let plane = |channel: usize| pixels[channel..].iter().step_by(3).map(|&byte| byte as f32 / 127.5 - 1.0);
        let mut map: Vec<f32> = (0..3).flat_map(plane).collect();
        let mut side = SIDE;
        for convolution in &self.convolutions {
            map = convolution.slide(&map, side);
            side /= 2;
        }
        let features = self.hidden.apply(&map).into_iter().map(|x| x.max(0.0)).collect::<Vec<_>>();
        let answers = self.heads.apply(&features);
        let mut rest = answers.as_slice();
        let mut best = |count: usize| {
            let of = rest.split_off(..count).expect("an answer for each name");
            (0..count).max_by(|&a, &b| of[a].total_cmp(&of[b])).expect("there are names")
        };
        let layout = Layout::ALL[best(Layout::ALL.len())];
        let kinds = [(); 2].map(|()| best(self.kinds.len()));
        let colours = [(); 2].map(|()| best(self.colours.len()));
        Seen { layout, first: (kinds[0], colours[0]), second: (kinds[1], colours[1]) }
    }
}

impl Layer {
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        rows.map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect()
    }

    /// A 3x3 convolution of stride 2 over (channels, side, side), one zero around it, then ReLU.
    fn slide(&self, x: &[f32], side: usize) -> Vec<f32> {
        let inputs = x.len() / (side * side);
        let half = side / 2;
        let mut out = Vec::with_capacity(self.bias.len() * half * half);
        for (filter, bias) in self.weight.chunks_exact(9 * inputs).zip(&self.bias) {
            for place in 0..half * half {
                let (top, left) = (2 * (place / half), 2 * (place % half));
                let mut sum = *bias;
                for (plane, taps) in x.chunks_exact(side * side).zip(filter.chunks_exact(9)) {
                    for (tap, weight) in taps.iter().enumerate() {
                        // The zero row above and column to the left are at -1; below and right none is reached.
                        let (y, x) = (top + tap / 3, left + tap % 3);
                        if y > 0 && x > 0 {
                            sum += weight * plane[(y - 1) * side + x - 1];
                        }
                    }
                }
                out.push(sum.max(0.0));
            }
        }
        out
    }
}
