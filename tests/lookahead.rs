//! Exact parallel decoding: whatever the window, the guesses and the moment at which they change, the codes are those
//! of one token at a time.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::cuda_executors;
use common::late::Late;
use common::small::Small;
use smalti::Error;
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, Tensor, WeightsChoice};
use smalti::config::{Condition, GenerationOptions, GptConfig, VqConfig};
#[cfg(feature = "demo")]
use smalti::demo::Half;
use smalti::generate::{
    Conditioning, Generator, Lookahead, Passes, Request, Session, TextFeatures, generate, requests,
};
use smalti::graph::Elem;
use smalti::graph::ops::Guess;
use smalti::models::GptShape;

const WINDOWS: [usize; 5] = [2, 4, 8, 16, 32];

/// A model, and pictures to draw with it.
struct Model {
    name: &'static str,
    checkpoint: Checkpoint,
    config: GptConfig,
    latent_size: usize,
    conditions: Vec<Conditioning>,
}

impl Model {
    /// The golden model of a name, `latent_size` codes a side.
    fn golden(name: &'static str, latent_size: usize) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).join("gpt.pt");
        let checkpoint = Checkpoint::open(&file, WeightsChoice::Model).expect("it opens");
        let (config, _) = GptConfig::detect(&checkpoint, Some(2)).expect("a transformer");
        let conditions = match config.condition {
            Condition::Class { .. } => [5, 3, 5].map(Conditioning::Class).to_vec(),
            Condition::Text { caption_dim, .. } => {
                let text = |tokens: usize| {
                    let values = (0..tokens * caption_dim).map(|i| ((i * 7919 % 23) as f32 - 11.0) / 11.0).collect();
                    Conditioning::Text(Arc::new(TextFeatures::new(caption_dim, values)))
                };
                vec![text(3), text(1), text(4)]
            }
        };
        Self { name, checkpoint, config, latent_size, conditions }
    }

    /// A half of the demo model.
    #[cfg(feature = "demo")]
    fn demo(name: &'static str, model: smalti::generate::Model, conditions: Vec<Conditioning>) -> Self {
        let downsample_size = model.vq_config.downsample_size();
        let image_size = smalti::config::default_image_size(&model.gpt, &model.gpt_config.condition, downsample_size);
        let latent_size = image_size / downsample_size;
        Self { name, checkpoint: model.gpt, config: model.gpt_config, latent_size, conditions }
    }

    /// The half that takes classes.
    #[cfg(feature = "demo")]
    fn demo_classes() -> Self {
        let model = smalti::demo::model(Half::Classes).expect("a model");
        Self::demo("demo, classes", model, [9, 2].map(Conditioning::Class).to_vec())
    }

    /// The half that takes prompts.
    #[cfg(feature = "demo")]
    fn demo_prompts() -> Self {
        let model = smalti::demo::model(Half::Prompts).expect("a model");
        let Condition::Text { cls_token_num, caption_dim } = model.gpt_config.condition else { panic!("a text model") };
        let prompter = smalti::demo::prompter(&CpuExecutor::new(1), (cls_token_num, caption_dim), Elem::F32);
        let prompts = prompter.expect("an encoder").encode(&smalti::demo::PROMPTS[..2]).expect("features");
        Self::demo(
            "demo, prompts",
            model,
            prompts.into_iter().map(|prompt| Conditioning::Text(prompt.features)).collect(),
        )
    }

    /// The same with image tokens that hardly tell anything: most draws are right behind wrong guesses too.
    fn forgetful(mut self) -> Self {
        let mut tensors = self.checkpoint.tensors().clone();
        let table = tensors.get_mut("tok_embeddings.weight").expect("the codes' vectors");
        let (values, width) = (table.to_f32(), self.config.dim);
        let like_the_first = |(i, x): (usize, &f32)| values[i % width] + (x - values[i % width]) / 50.0;
        let values: Vec<f32> = values.iter().enumerate().map(like_the_first).collect();
        *table = Tensor::from_f32(table.shape().to_vec(), &values);
        self.checkpoint = Checkpoint::from_tensors("forgetful", tensors, BTreeMap::new());
        self
    }

    /// `places` pictures at once, and rows for windows of `window`.
    fn session(&self, executor: &dyn Executor, precision: Elem, places: usize, window: usize) -> Session {
        let shape = GptShape {
            latent_size: self.latent_size,
            slots: 2 * places,
            rows: 2 * places * window,
            pictures: places,
            precision,
            activations: executor.activations(),
        };
        Session::new(executor, &self.checkpoint, &self.config, &shape).expect("a session")
    }

    fn requests(&self, options: &GenerationOptions) -> Vec<Request> {
        requests(&self.conditions, 1, 7, options.validate(self.config.vocab_size).expect("valid options"))
    }

    /// The codes of all requests with a window, and what the passes brought.
    fn codes(&self, session: &mut Session, lookahead: Lookahead, requests: &[Request]) -> (Vec<Vec<u32>>, Passes) {
        session.set_lookahead(lookahead).expect("there is room");
        let codes = generate(session, requests, |_| true).expect("codes");
        (codes, session.take_passes().expect("counted"))
    }

    /// Draws everything with windows of all `widths`, `places` pictures at once, and compares with one token at a time.
    /// Returns tokens per pass of each.
    fn check(
        &self,
        executor: &dyn Executor,
        precision: Elem,
        options: &GenerationOptions,
        (places, widths): (&[usize], &[usize]),
    ) -> Vec<f64> {
        let requests = self.requests(options);
        let mut tokens_per_pass = Vec::new();
        let one_by_one = Lookahead::Window(1);
        let (expected, passes) = self.codes(&mut self.session(executor, precision, 2, 1), one_by_one, &requests);
        // A text's first token takes no pass.
        let drawn = passes.tokens();
        assert_eq!(passes.windows(), drawn, "{}: one token a pass", self.name);
        let widest = widths.iter().copied().max().expect("windows");
        for &places in places {
            let mut session = self.session(executor, precision, places, widest);
            for &window in widths {
                let (found, passes) = self.codes(&mut session, Lookahead::Window(window), &requests);
                let what = format!("{}, window {window}, {places} at once, {options:?}", self.name);
                assert!(found == expected, "{what}: other codes");
                assert_eq!(passes.tokens(), drawn, "{what}: tokens");
                assert_eq!(passes.acceptance().len(), window - 1, "{what}: positions");
                assert!(passes.windows() * window as u64 >= drawn, "{what}: {passes:?}");
                tokens_per_pass.push(passes.tokens_per_pass());
            }
        }
        tokens_per_pass
    }
}

/// Every kind of guidance with every kind of filter.
fn settings() -> impl Iterator<Item = GenerationOptions> {
    [(1.0, -1), (2.5, -1), (4.0, 3), (4.0, 17)].into_iter().flat_map(|(cfg_scale, cfg_interval)| {
        // Few codes to choose from make guesses right; many make them wrong.
        [(0, 1.0, 1.0), (3, 1.0, 1.0), (0, 0.2, 0.7)].map(|(top_k, top_p, temperature)| GenerationOptions {
            cfg_scale: Some(cfg_scale),
            cfg_interval,
            top_k: Some(top_k),
            top_p,
            temperature,
            greedy: false,
            seed: 11,
        })
    })
}

/// All windows and every `stride`-th setting. Returns the least and the most tokens per pass.
fn check_all(model: &Model, precision: Elem, stride: usize) -> (f64, f64) {
    let executor = CpuExecutor::new(1);
    let settings = settings().step_by(stride);
    let tokens_per_pass: Vec<f64> =
        settings.flat_map(|options| model.check(&executor, precision, &options, (&[1, 3], &WINDOWS))).collect();
    let (least, most) = tokens_per_pass.iter().fold((f64::MAX, 0f64), |(min, max), &x| (min.min(x), max.max(x)));
    println!("{}: {least:.2} to {most:.2} tokens a pass", model.name);
    (least, most)
}

#[test]
fn a_class_models_codes_do_not_depend_on_the_window() {
    let (least, most) = check_all(&Model::golden("c2i", 6), Elem::F32, 1);
    assert!(least < 1.2 && most > 1.2, "guesses were wrong and right: {least} to {most} tokens a pass");
}

#[test]
fn long_runs_of_right_guesses_change_no_code() {
    let (least, most) = check_all(&Model::golden("c2i", 6).forgetful(), Elem::F32, 5);
    assert!(least > 1.2 && most > 4.0, "guesses were right: {least} to {most} tokens a pass");
}

#[test]
fn a_class_models_codes_in_bf16_do_not_depend_on_the_window() {
    check_all(&Model::golden("c2i-head100-bf16", 6), Elem::Bf16, 1);
}

#[test]
fn a_text_models_codes_do_not_depend_on_the_window() {
    check_all(&Model::golden("t2i", 6), Elem::F32, 1);
}

/// The demo model at its own settings and at others.
#[cfg(feature = "demo")]
#[test]
fn the_demo_models_codes_do_not_depend_on_the_window() {
    let executor = CpuExecutor::new(1);
    for model in [Model::demo_classes(), Model::demo_prompts()] {
        let own =
            GenerationOptions { seed: 3, ..Default::default() }.of_model(&model.checkpoint, &model.config.condition);
        let per_pass = model.check(&executor, Elem::Bf16, &own, (&[1, 2], &WINDOWS));
        println!("{}: {per_pass:.2?} tokens a pass", model.name);
        // At 16 a window, alone: half the passes, or fewer.
        assert!(per_pass[3] >= 2.0, "{}: {per_pass:.2?} tokens a pass", model.name);
        for options in settings().step_by(5) {
            model.check(&executor, Elem::Bf16, &options, (&[2], &[4, 16]));
        }
    }
}

/// Settings at which some guesses are right and others wrong.
fn few_codes() -> GenerationOptions {
    GenerationOptions { cfg_scale: Some(2.5), cfg_interval: 20, top_k: Some(3), seed: 5, ..Default::default() }
}

#[test]
fn guesses_change_no_code() {
    let (model, executor) = (Model::golden("c2i", 6), CpuExecutor::new(1));
    let requests = model.requests(&few_codes());
    let mut session = model.session(&executor, Elem::F32, 2, 16);
    let (expected, _) = model.codes(&mut session, Lookahead::Window(1), &requests);
    let mut passes = Vec::new();
    for guess in Guess::ALL {
        session.set_guess(guess);
        // Wider than a row of the picture, so that guesses stand above guesses.
        let (found, counted) = model.codes(&mut session, Lookahead::Window(16), &requests);
        assert!(found == expected, "{guess:?}");
        passes.push(counted);
    }
    assert!(passes[0] != passes[1] && passes[1] != passes[2], "the strategies differ: {passes:?}");
}

/// Pictures come and go between passes, windows change in the middle, and all look at what is there by then.
#[test]
fn windows_change_at_any_time_and_what_shows_is_final() {
    let (model, executor) = (Model::golden("c2i", 6), CpuExecutor::new(1));
    let one = |request: &Request| {
        let mut session = model.session(&executor, Elem::F32, 1, 1);
        generate(&mut session, std::slice::from_ref(request), |_| true).expect("codes").remove(0)
    };
    let requests: Vec<Request> = (0..3).flat_map(|_| model.requests(&few_codes())).collect();
    let expected: Vec<Vec<u32>> = requests[..3].iter().map(one).collect();
    let lookaheads = [Lookahead::Window(4), Lookahead::Window(1), Lookahead::Auto, Lookahead::Window(8)];
    let mut session = model.session(&executor, Elem::F32, 3, 8);
    let (mut next, mut done, mut drawn) = (0, 0, 0);
    for round in 0.. {
        assert!(round < 1000, "{done} of {} are done", requests.len());
        session.set_lookahead(lookaheads[round / 3 % 4]).expect("there is room");
        // At most one more a round, so that pictures are at different tokens.
        if next < requests.len() && session.start(next as u64, &requests[next]).expect("started") {
            next += 1;
        }
        drawn += session.advance([1, 2, 5][round % 3]).expect("advanced");
        for ticket in 0..requests.len() {
            let codes = session.peek(ticket as u64).expect("peeked");
            assert_eq!(codes, expected[ticket % 3][..codes.len()], "picture {ticket} in round {round}");
        }
        session
            .finish(|finished| {
                assert_eq!(finished.codes, expected[finished.ticket as usize % 3]);
                done += 1;
            })
            .expect("finished");
        if done == requests.len() {
            break;
        }
    }
    assert_eq!(drawn, requests.len() * 36);
}

#[test]
fn windows_without_room_are_refused() {
    let (model, executor) = (Model::golden("c2i", 4), CpuExecutor::new(1));
    for (window, room) in [(1, 1), (5, 5), (100, 16)] {
        let mut session = model.session(&executor, Elem::F32, 2, window);
        session.set_lookahead(Lookahead::Window(room)).expect("there is room");
        for wrong in [0, room + 1] {
            let refused = session.set_lookahead(Lookahead::Window(wrong)).expect_err("there is no room");
            let expected = format!("--lookahead {wrong}: expected auto or 1 to {room}, for which there is room");
            assert!(matches!(refused, Error::Option { .. }) && refused.to_string() == expected, "{refused}");
        }
    }
}

/// The kernels: a covering set of windows, batches, guidance and filters.
#[test]
fn the_kernels_codes_do_not_depend_on_the_window() {
    /// Setting, pictures at once, windows.
    type Runs = &'static [(usize, &'static [usize], &'static [usize])];
    let settings: Vec<GenerationOptions> = settings().collect();
    let sets: [(Model, Runs); 3] = [
        (Model::golden("c2i", 4), &[(4, &[1], &[2, 16]), (8, &[2], &[4]), (0, &[3], &[8])]),
        (Model::golden("c2i-head100-bf16", 3), &[(7, &[3], &[4, 9]), (2, &[1], &[2])]),
        (Model::golden("t2i", 3), &[(5, &[2], &[2, 4]), (10, &[1], &[8]), (3, &[3], &[3])]),
    ];
    for (device, executor) in cuda_executors("windows") {
        for (model, runs) in &sets {
            for &(setting, places, widths) in *runs {
                let options = &settings[setting];
                let found = model.check(executor.as_ref(), Elem::Bf16, options, (places, widths));
                println!("{device}: {}, setting {setting}: {found:.2?} tokens a pass", model.name);
            }
        }
        // Tokens that tell little: long runs.
        let model = Model::golden("c2i", 4).forgetful();
        let found = model.check(executor.as_ref(), Elem::Bf16, &settings[5], (&[2], &[8]));
        assert!(found[0] > 1.5, "{device}: {found:?} tokens a pass");
    }
}

/// The kernels on the demo model: the first two rows of two pictures.
#[cfg(feature = "demo")]
#[test]
fn the_kernels_begin_the_demo_models_pictures_alike() {
    const ROWS: usize = 2;
    for (device, executor) in cuda_executors("windows of the demo model") {
        for model in [Model::demo_classes(), Model::demo_prompts()] {
            let own = GenerationOptions::default().of_model(&model.checkpoint, &model.config.condition);
            let requests = model.requests(&own);
            let first = |window: usize| {
                let mut session = model.session(executor.as_ref(), Elem::Bf16, requests.len(), window);
                session.set_lookahead(Lookahead::Window(window)).expect("there is room");
                for (ticket, request) in (0..).zip(&requests) {
                    assert!(session.start(ticket, request).expect("started"));
                }
                loop {
                    session.advance(1).expect("advanced");
                    let codes = (0..requests.len()).map(|ticket| session.peek(ticket as u64).expect("peeked"));
                    let rows: Option<Vec<Vec<u32>>> =
                        codes.map(|codes| Some(codes.get(..ROWS * model.latent_size)?.to_vec())).collect();
                    if let Some(rows) = rows {
                        return rows;
                    }
                }
            };
            let expected = first(1);
            for window in [4, 16] {
                assert!(first(window) == expected, "{device}: {}, window {window}: other codes", model.name);
            }
        }
    }
}

/// The session sees late how far windows are, and enqueues passes that find nothing left to draw.
#[test]
fn a_device_that_runs_ahead_draws_the_same_codes() {
    let executor = Late(CpuExecutor::new(1));
    for (model, settings) in [
        (Model::golden("c2i", 6), [few_codes(), GenerationOptions { cfg_interval: 3, ..few_codes() }]),
        (Model::golden("c2i", 6).forgetful(), [few_codes(), GenerationOptions::default()]),
        (Model::golden("t2i", 6), [few_codes(), GenerationOptions { cfg_interval: -1, ..few_codes() }]),
    ] {
        for options in settings {
            model.check(&executor, Elem::F32, &options, (&[1, 2, 3], &[2, 8, 32]));
            let requests = model.requests(&options);
            let mut session = model.session(&executor, Elem::F32, 2, 8);
            let (expected, _) = model.codes(&mut session, Lookahead::Window(1), &requests);
            let (found, _) = model.codes(&mut session, Lookahead::Auto, &requests);
            assert!(found == expected, "{}: auto changes codes", model.name);
            // All tokens are told of, once.
            let mut told = 0;
            session.set_lookahead(Lookahead::Window(8)).expect("there is room");
            for (ticket, request) in (0..).zip(&requests[..2]) {
                assert!(session.start(ticket, request).expect("started"));
            }
            let mut done = 0;
            while done < 2 {
                told += session.advance(3).expect("advanced");
                session.finish(|_| done += 1).expect("finished");
            }
            assert_eq!(told, 2 * 36);
        }
    }
}

/// With the memory that a window of five takes, six are refused, and the error says five.
#[test]
fn an_error_says_the_widest_window_that_memory_holds() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let vq = Checkpoint::open(&golden.join("vq16/vq.pt"), WeightsChoice::Model).expect("it opens");
    let vq_config = VqConfig::detect(&vq).expect("a VQ model");
    let gpt = Model::golden("c2i", 6);
    let model = smalti::generate::Model::new((gpt.checkpoint, gpt.config), (vq, vq_config)).expect("a pair");
    let generator = |free: u64, window: usize| {
        let lookahead = Lookahead::Window(window);
        let layout = smalti::generate::Layout {
            image_size: 96,
            precision: Elem::F32,
            vq_precision: None,
            batch_size: Some(2),
            images: 2,
            lookahead,
        };
        Generator::new(&Small(CpuExecutor::new(1), free), &model, &layout)
    };
    let needs = |window| match generator(0, window) {
        Err(Error::OutOfMemory { needed_bytes, .. }) => needed_bytes,
        _ => panic!("there is no memory at all"),
    };
    generator(needs(5), 5).expect("five fit");
    let refused = generator(needs(5), 6).err().expect("six do not fit");
    assert!(refused.to_string().starts_with("a batch of 2 with a lookahead of 6 needs"), "{refused}");
    assert_eq!(refused.hint(), Some("--lookahead 5 would fit"));
    let refused = generator(u64::MAX, 37).err().expect("there are 36 tokens");
    assert!(refused.to_string().contains("--lookahead 37: expected auto or 1 to 36"), "{refused}");
}
