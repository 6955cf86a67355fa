//! The golden models, and what they draw without an engine.

use std::path::{Path, PathBuf};

use smalti::backend::cpu::CpuExecutor;
use smalti::config::Condition;
use smalti::generate::{Conditioning, Generator, Layout, Lookahead, Prompter, requests};
use smalti::graph::Elem;
use smalti::image::Rgb8;
use smalti::{Model, ModelFiles, Request, Session, SessionOptions, Subject};

use super::gate::Gate;

/// Codes of a picture: 64 pixels are 4 rows of 4.
pub const TOKENS: usize = 16;
pub const ROWS: usize = 4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// 10 classes, 256 codes.
pub fn class_model() -> Model {
    model(ModelFiles::new(golden("c2i/gpt.pt"), golden("vq16/vq.pt")))
}

/// A text model with its encoder.
pub fn text_model() -> Model {
    let files = ModelFiles::new(golden("t2i/gpt.pt"), golden("vq16/vq.pt"));
    model(ModelFiles { t5: Some(golden("t5")), ..files })
}

fn model(files: ModelFiles) -> Model {
    Model::open(&ModelFiles { image_size: Some(64), ..files }).expect("a model")
}

/// How the tests' sessions are laid out.
pub fn options(batch_size: usize, queue: usize) -> SessionOptions {
    SessionOptions { batch_size: Some(batch_size), queue, precision: Elem::F32, ..SessionOptions::default() }
}

/// A session of the class model behind a gate; its steps draw one token each.
pub fn gated(gate: &Gate, batch_size: usize, queue: usize) -> Session {
    let options = SessionOptions { lookahead: Lookahead::Window(1), ..options(batch_size, queue) };
    Session::on(gate.executor(false), &class_model(), &options).expect("a session")
}

/// A request for one picture of a class.
pub fn request(class: u32, seed: u64) -> Request {
    let mut request = Request::class(class);
    request.options.seed = seed;
    request
}

/// What a request's pictures are when they are drawn one by one, without an engine: codes and pixels.
pub fn expected(model: &Model, request: &Request) -> Vec<(Vec<u32>, Rgb8)> {
    let executor = CpuExecutor::new(1);
    let (image_size, precision) = (model.image_size(), Elem::F32);
    let (batch_size, lookahead) = (Some(1), Lookahead::Window(1));
    let layout = Layout { image_size, precision, vq_precision: None, batch_size, images: 1, lookahead };
    let mut generator = Generator::new(&executor, model.parts(), &layout).expect("a generator");
    let condition = |subject: &Subject| match subject {
        Subject::Class(class) => Conditioning::Class(*class),
        Subject::Features(features) => Conditioning::Text(features.clone()),
        Subject::Prompt(prompt) => {
            let folder = &golden("t5");
            let &Condition::Text { cls_token_num, caption_dim } = model.condition() else { panic!("a text model") };
            let sizes = (cls_token_num, caption_dim);
            let mut prompter = Prompter::open(&executor, folder, sizes, precision).expect("a prompter");
            Conditioning::Text(prompter.encode(&[prompt]).expect("features")[0].features.clone())
        }
    };
    let conditions: Vec<Conditioning> = request.subjects.iter().map(condition).collect();
    let vocab_size = model.parts().gpt_config.vocab_size;
    let sampling = model.options(&request.options).validate(vocab_size).expect("valid options");
    let requests = requests(&conditions, request.count, request.first_image, sampling);
    let codes = generator.codes(&requests, |_| true).expect("codes");
    codes.into_iter().map(|codes| (codes.clone(), generator.paint(&codes).expect("a picture"))).collect()
}
