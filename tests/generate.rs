//! Sessions beyond the golden cases: several plans of one checkpoint alive, damaged weights; and which texts stay encoded.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::late::Late;
use common::small::Small;
use smalti::backend::Executor;
use smalti::backend::cpu::CpuExecutor;
use smalti::checkpoint::{Checkpoint, Tensor, WeightsChoice};
use smalti::config::{GenerationOptions, GptConfig, T5Config, VqConfig};
use smalti::generate::{Canvas, Conditioning, Painter, Prompter, Request, Session, generate, generate_each};
use smalti::graph::{Elem, Extent, Load};
use smalti::image::Rgb8;
use smalti::models::{GptShape, Pixels, T5Graph, T5Shape, VqDecoder};
use smalti::{Error, Result};

fn open() -> (Checkpoint, GptConfig) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/c2i/gpt.pt");
    let checkpoint = Checkpoint::open(&file, WeightsChoice::Model).expect("it opens");
    let (config, _) = GptConfig::detect(&checkpoint, Some(2)).expect("a transformer");
    (checkpoint, config)
}

fn session(executor: &dyn Executor, model: &(Checkpoint, GptConfig), latent_size: usize) -> Session {
    let shape = GptShape { latent_size, slots: 4, rows: 4, pictures: 2, precision: Elem::F32, activations: Elem::F32 };
    Session::new(executor, &model.0, &model.1, &shape).expect("a session")
}

fn codes(session: &mut Session, options: &GenerationOptions) -> Result<Vec<Vec<u32>>> {
    let sampling = options.validate(256).expect("valid options");
    let requests: Vec<Request> =
        (0..3).map(|image| Request { condition: Conditioning::Class(5), image, sampling }).collect();
    generate(session, &requests, |_| true)
}

#[test]
fn plans_of_two_sizes_live_side_by_side() {
    let model = open();
    let options = GenerationOptions::default();
    let alone = |size| codes(&mut session(&CpuExecutor::new(2), &model, size), &options).expect("codes");
    let (small, large) = (alone(3), alone(6));
    let executor = CpuExecutor::new(2);
    let mut first = session(&executor, &model, 3);
    let mut second = session(&executor, &model, 6);
    assert_eq!(codes(&mut second, &options).expect("codes"), large);
    assert_eq!(codes(&mut first, &options).expect("codes"), small);
}

#[test]
fn pictures_are_taken_beside_the_next_ones_steps_where_the_device_runs_ahead() {
    let model = open();
    let options = GenerationOptions::default();
    let sampling = options.validate(256).expect("valid options");
    let requests: Vec<Request> =
        (0..5).map(|image| Request { condition: Conditioning::Class(5), image, sampling }).collect();
    let expected = generate(&mut session(&CpuExecutor::new(1), &model, 6), &requests, |_| true).expect("codes");

    let mut taken: Vec<(usize, Vec<u32>)> = Vec::new();
    // At each look: tokens drawn and pictures taken.
    let mut looks = Vec::new();
    let take = |drawn| {
        taken.extend(drawn);
        Ok(())
    };
    let look = |progress: smalti::generate::Progress| {
        looks.push((progress.tokens_done, progress.images_done));
        true
    };
    generate_each(&mut session(&Late(CpuExecutor::new(1)), &model, 6), &requests, 1, take, look).expect("codes");
    taken.sort_unstable();
    let codes: Vec<Vec<u32>> = taken.iter().map(|(_, codes)| codes.clone()).collect();
    assert_eq!(codes, expected);
    // Two places, 36 tokens, 16 at a time: the first pair is done after 72 tokens in all, and taken one by one
    // beside the steps of the second pair.
    assert_eq!(looks[2], (72, 0), "{looks:?}");
    assert_eq!(looks[3], (72 + 32, 1), "{looks:?}");
    assert_eq!(looks[4], (72 + 64, 2), "{looks:?}");
    assert_eq!(looks.last(), Some(&(5 * 36, 5)), "{looks:?}");
}

#[test]
fn pictures_painted_together_are_those_painted_alone() {
    const PICTURES: usize = 11;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vq16/vq.pt");
    let vq = Checkpoint::open(&file, WeightsChoice::Model).expect("it opens");
    let config = VqConfig::detect(&vq).expect("a VQ model");
    let canvas = |pictures| Canvas { latent: (2, 3), pictures };
    let codes: Vec<Vec<u32>> =
        (0..PICTURES as u32).map(|i| (6 * i..6 * i + 6).map(|i| i * 37 % 256).collect()).collect();
    let mut alone = Painter::new(&CpuExecutor::new(2), &vq, &config, canvas(PICTURES)).expect("a painter");
    assert_eq!(alone.together(), 1);
    let expected: Vec<Rgb8> = codes.iter().map(|codes| alone.paint(codes).expect("a picture")).collect();

    let device = |free| Small(Late(CpuExecutor::new(2)), free);
    let four = VqDecoder::build(&config, (2, 3), 4, Pixels::U8, Elem::F32).expect("a decoder").graph.bytes() as u64;
    for (free, pictures, together) in [(u64::MAX, PICTURES, 8), (u64::MAX, 3, 3), (4 * four, PICTURES, 4), (four, 2, 1)]
    {
        let mut painter = Painter::new(&device(free), &vq, &config, canvas(pictures)).expect("a painter");
        assert_eq!(painter.together(), together);
        assert!(painter.paint_all(&codes).expect("pictures") == expected, "{together} at once");
        assert!(painter.paint(&codes[9]).expect("a picture") == expected[9]);
    }
    let mut painter = Painter::new(&device(u64::MAX), &vq, &config, canvas(2)).expect("a painter");
    let wrong = [codes[0].clone(), vec![256; 6]];
    assert!(matches!(painter.paint_all(&wrong), Err(Error::Mismatch { what, .. }) if what == "code"));
}

#[test]
fn weights_that_are_no_numbers_are_an_error() {
    let (checkpoint, config) = open();
    let mut tensors: BTreeMap<String, Tensor> = checkpoint.tensors().clone();
    let output = tensors.get_mut("output.weight").expect("the head");
    *output = Tensor::from_f32(output.shape().to_vec(), &vec![f32::NAN; output.len()]);
    let model = (Checkpoint::from_tensors("damaged", tensors, BTreeMap::new()), config);
    // With an interval the tables are written anew in the middle of the picture.
    for cfg_interval in [-1, 3] {
        let options = GenerationOptions { cfg_interval, ..Default::default() };
        let refused = codes(&mut session(&CpuExecutor::new(2), &model, 4), &options);
        assert!(matches!(&refused, Err(Error::Mismatch { found, .. }) if found == "NaN"), "{refused:?}");
    }
}

#[test]
fn a_picture_in_flight_shows_the_codes_it_has() {
    let model = open();
    let sampling = GenerationOptions::default().validate(256).expect("valid options");
    let request = |image| Request { condition: Conditioning::Class(5), image, sampling };
    let expected = generate(&mut session(&CpuExecutor::new(1), &model, 4), &[request(0), request(1)], |_| true);
    let expected = expected.expect("codes");
    let mut session = session(&CpuExecutor::new(1), &model, 4);
    // The second round has the places of the first, whose codes must not show.
    for round in 0..2 {
        assert!(session.start(7, &request(round)).expect("started"));
        assert!(session.peek(7).expect("peeked").is_empty(), "nothing is drawn yet");
        for steps in [5, 11] {
            let before = session.peek(7).expect("peeked").len();
            session.advance(steps).expect("drawn");
            let codes = session.peek(7).expect("peeked");
            assert_eq!(codes, expected[round as usize][..before + steps]);
        }
        assert!(session.peek(8).expect("peeked").is_empty(), "no picture has this ticket");
        session.finish(|finished| assert_eq!(finished.codes, expected[round as usize])).expect("finished");
        assert!(session.peek(7).expect("peeked").is_empty(), "it is no longer in flight");
    }
}

/// The CPU enters its team anew after 256 of them.
#[test]
fn hundreds_of_steps_at_once_draw_what_a_hundred_do() {
    const TOKENS: usize = 18 * 18;
    let model = open();
    let sampling = GenerationOptions::default().validate(256).expect("valid options");
    let request = Request { condition: Conditioning::Class(5), image: 0, sampling };
    let draw = |at_once: usize| {
        let mut session = session(&CpuExecutor::new(2), &model, 18);
        assert!(session.start(0, &request).expect("started"));
        let calls = (0..10).take_while(|_| session.advance(at_once).expect("drawn") > 0).count();
        (calls, session.peek(0).expect("peeked"))
    };
    let [(few, at_once), (many, by_hundreds)] = [TOKENS, 100].map(draw);
    assert!(few < many && at_once.len() == TOKENS, "{} codes in {few} calls, not {many}", at_once.len());
    assert_eq!(at_once, by_hundreds);
}

#[test]
fn a_text_is_encoded_once_while_it_is_among_the_latest() {
    let executor = CpuExecutor::new(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5");
    let config = T5Config::detect(&Checkpoint::open(&folder, WeightsChoice::Model).unwrap()).unwrap();
    let mut prompter = Prompter::open(&executor, &folder, (120, config.d_model), Elem::F32).unwrap();
    let mut features = |prompt: &str| prompter.encode(&[prompt]).unwrap().remove(0).features;
    let tree = features("a tree");
    assert!(Arc::ptr_eq(&tree, &features("A <b>Tree</b>")), "the same once cleaned");
    let twice = prompter.encode(&["two trees", "a tree", "two  trees"]).unwrap();
    assert!(Arc::ptr_eq(&twice[0].features, &twice[2].features) && Arc::ptr_eq(&twice[1].features, &tree));
    let mut features = |prompt: &str| prompter.encode(&[prompt]).unwrap().remove(0).features;
    for other in 2..Prompter::KEPT {
        features(&format!("{other} trees"));
    }
    assert!(Arc::ptr_eq(&tree, &features("a tree")), "the oldest of those that are kept");
    for other in 0..Prompter::KEPT {
        features(&format!("{other} houses"));
    }
    let again = features("a tree");
    assert!(!Arc::ptr_eq(&tree, &again) && again == tree, "encoded anew, to the same features");
}

/// A pass computes the rows that it has, and no padding to the longest text: by what ops tell of their own cost.
#[test]
fn a_short_text_costs_as_much_as_it_has_tokens() {
    let config = T5Config { num_layers: 2, ..T5Config::xl() };
    let shape = T5Shape { rows: 120, tokens: 120, precision: Elem::Bf16, activations: Elem::F32 };
    let encoder = T5Graph::new(&config, &shape);
    let flops = |tokens: usize| {
        let load = Load { extent: Extent { rows: tokens, draws: 0 }, keys: tokens };
        encoder.graph.cost(encoder.encode, &load).flops as f64
    };
    let share = flops(20) / flops(120);
    assert!((0.15..0.17).contains(&share), "20 tokens cost {share} of 120");
}
