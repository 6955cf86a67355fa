//! A request's pictures do not depend on its company.

use std::collections::BTreeMap;

use smalti::checkpoint::Tensor;
use smalti::config::GenerationOptions;
use smalti::{Error, Image, Model, ModelFiles, Request, Session, Subject};

use super::gate::Gate;
use super::models::{TOKENS, class_model, expected, gated, options, request, text_model};

fn check(found: &[Image], expected: &[(Vec<u32>, smalti::image::Rgb8)]) {
    let found: Vec<_> = found.iter().map(|image| (image.codes.clone(), image.picture.clone())).collect();
    assert!(found == expected);
}

/// Requests that differ in everything that a row of a batch can differ in.
fn mixed() -> Vec<Request> {
    let with = |change: fn(&mut GenerationOptions)| {
        let mut options = GenerationOptions::default();
        change(&mut options);
        options
    };
    let all = [
        with(|_| {}),
        with(|options| options.cfg_scale = Some(1.0)),
        with(|options| (options.cfg_scale, options.seed) = (Some(2.5), 7)),
        with(|options| (options.cfg_interval, options.seed) = (4, 8)),
        with(|options| (options.top_k, options.top_p) = (Some(20), 0.9)),
        with(|options| options.greedy = true),
        with(|options| (options.temperature, options.seed) = (0.5, u64::MAX)),
    ];
    let of = |(number, options)| {
        let (class, first_image) = ((number % 10) as u32, 5 * number as u64);
        let subjects = vec![Subject::Class(class), Subject::Class(9 - class)];
        Request { options, first_image, count: 1 + number % 2, ..Request::new(subjects) }
    };
    all.into_iter().enumerate().map(of).collect()
}

#[test]
fn alone_and_in_a_full_batch_are_equal() {
    let model = class_model();
    let requests = mixed();
    let alone: Vec<_> = requests.iter().map(|request| expected(&model, request)).collect();
    assert!(alone.iter().flatten().all(|(codes, _)| codes.len() == TOKENS));
    for (batch_size, ahead) in [(1, false), (3, false), (32, false), (5, true)] {
        let gate = Gate::default();
        let session = Session::on(gate.executor(ahead), &model, &options(batch_size, 64)).unwrap();
        let jobs: Vec<_> = requests.iter().map(|request| session.submit(request.clone()).unwrap()).collect();
        for (job, alone) in jobs.into_iter().zip(&alone) {
            check(&job.wait().unwrap(), alone);
        }
        assert_eq!(session.stats().images, 20);
    }
}

#[test]
fn one_joins_in_the_middle_of_another() {
    let model = class_model();
    let (first, second) = (request(3, 1), request(5, 2));
    let gate = Gate::closed();
    let session = gated(&gate, 4, 4);
    let one = session.submit(first.clone()).unwrap();
    gate.wait_blocked();
    gate.pass(5);
    let other = session.submit(second.clone()).unwrap();
    // The step that waits has one picture; those behind it have both: the first is done after 16 of its own.
    gate.pass(11);
    assert_eq!(gate.trace(), "s".repeat(16));
    assert_eq!(session.stats().places_taken, 1);
    gate.open();
    check(&one.wait().unwrap(), &expected(&model, &first));
    check(&other.wait().unwrap(), &expected(&model, &second));
    assert_eq!(session.stats().rounds, 6 + 16);
}

#[test]
fn prompts_are_encoded_and_drawn() {
    let model = text_model();
    let prompts = ["a red square", "a tree", "A <b>red</b> square"];
    let session = Session::on(Gate::default().executor(false), &model, &options(3, 8)).unwrap();
    let jobs: Vec<_> = prompts.iter().map(|prompt| session.submit(Request::prompt(*prompt)).unwrap()).collect();
    for (job, prompt) in jobs.into_iter().zip(prompts) {
        check(&job.wait().unwrap(), &expected(&model, &Request::prompt(prompt)));
    }
    let class = session.submit(Request::class(1)).err();
    assert!(matches!(class, Some(Error::Mismatch { .. })), "{class:?}");

    let without = Model::from_checkpoints(
        model.parts().gpt.clone(),
        model.parts().vq.clone(),
        &ModelFiles { image_size: Some(64), ..ModelFiles::default() },
    );
    let session = Session::on(Gate::default().executor(false), &without.unwrap(), &options(1, 1)).unwrap();
    let refused = session.submit(Request::prompt("a tree")).err();
    assert!(matches!(refused, Some(Error::Option { option: "t5-path", .. })), "{refused:?}");
}

#[test]
fn a_class_whose_logits_are_no_numbers_fails_alone() {
    let model = class_model();
    let mut tensors: BTreeMap<String, Tensor> = model.parts().gpt.tensors().clone();
    let table = tensors.get_mut("cls_embedding.embedding_table.weight").expect("the table");
    let mut values = table.to_f32();
    let width = table.shape()[1];
    values[3 * width..4 * width].fill(f32::NAN);
    *table = Tensor::from_f32(table.shape().to_vec(), &values);
    let gpt = smalti::checkpoint::Checkpoint::from_tensors("damaged", tensors, BTreeMap::new());
    let files = ModelFiles { image_size: Some(64), n_head: Some(2), ..ModelFiles::default() };
    let damaged = Model::from_checkpoints(gpt, model.parts().vq.clone(), &files).unwrap();
    let session = Session::on(Gate::default().executor(false), &damaged, &options(3, 8)).unwrap();

    let jobs: Vec<_> = [5, 3, 6].map(|class| session.submit(request(class, 1)).unwrap()).into();
    let results: Vec<_> = jobs.into_iter().map(|job| job.wait()).collect();
    check(results[0].as_ref().unwrap(), &expected(&model, &request(5, 1)));
    assert!(matches!(&results[1], Err(Error::Mismatch { found, .. }) if found == "NaN"), "{:?}", results[1]);
    check(results[2].as_ref().unwrap(), &expected(&model, &request(6, 1)));
    check(&session.draw(request(7, 2)).unwrap(), &expected(&model, &request(7, 2)));
}

#[test]
fn sessions_live_side_by_side_and_serve_any_thread() {
    fn shared<T: Send + Sync>() {}
    shared::<Model>();
    shared::<Session>();
    shared::<smalti::Canceller>();
    fn sent<T: Send>() {}
    sent::<smalti::Job>();
    sent::<smalti::Event>();
    sent::<Error>();

    let model = class_model();
    let sessions = [1, 2].map(|batch_size| {
        Session::on(Gate::default().executor(false), &model, &options(batch_size, 64)).expect("a session")
    });
    let alone: Vec<_> = (0..4).map(|class| expected(&model, &request(class, 3))).collect();
    std::thread::scope(|scope| {
        for (number, alone) in alone.iter().enumerate() {
            let session = &sessions[number % 2];
            scope.spawn(move || check(&session.draw(request(number as u32, 3)).unwrap(), alone));
        }
    });
}
