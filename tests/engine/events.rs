//! What requests are told, in which order, and when pictures are painted.

use smalti::backend::cpu::CpuExecutor;
use smalti::generate::{Canvas, Lookahead, Painter};
use smalti::image::Rgb8;
use smalti::{Error, Event, Request, Session, SessionOptions};

use super::gate::Gate;
use super::models::{ROWS, class_model, expected, gated, options, request};

/// Each event in short: `r2` two rows, `v1` a preview of one row, `i` the picture, `d` the end.
fn told(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let short = |event: Event| match event {
        Event::Rows { index, rows } => format!("{index}r{rows}"),
        Event::Preview { index, rows, .. } => format!("{index}v{rows}"),
        Event::Image(image) => format!("{}i", image.index),
        Event::Done(result) => format!("d{}", u8::from(result.is_ok())),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(short).collect()
}

#[test]
fn rows_previews_picture_and_end_come_in_order() {
    let session = gated(&Gate::default(), 1, 4);
    let plain = told(session.submit(request(3, 1)).unwrap());
    assert_eq!(plain, ["0r1", "0r2", "0r3", "0r4", "0i", "d1"]);
    for (previews, expected) in [
        (1, &["0r1", "0r2", "0v2", "0r3", "0r4", "0i", "d1"][..]),
        (3, &["0r1", "0v1", "0r2", "0v2", "0r3", "0v3", "0r4", "0i", "d1"]),
        (99, &["0r1", "0v1", "0r2", "0v2", "0r3", "0v3", "0r4", "0i", "d1"]),
    ] {
        let request = Request { previews, ..request(3, 1) };
        assert_eq!(told(session.submit(request).unwrap()), expected);
    }
}

#[test]
fn previews_are_the_codes_so_far() {
    let model = class_model();
    let request = Request { previews: 3, ..request(3, 1) };
    let codes = &expected(&model, &request)[0].0;
    let parts = model.parts();
    let canvas = Canvas { latent: (ROWS, ROWS), pictures: 1 };
    let mut painter = Painter::new(&CpuExecutor::new(1), &parts.vq, &parts.vq_config, canvas).unwrap();
    let mut paint = |rows: usize| {
        let begun = &codes[..rows * ROWS];
        let filled = (rows..ROWS).flat_map(|_| &begun[begun.len() - ROWS..]);
        painter.paint(&begun.iter().chain(filled).copied().collect::<Vec<u32>>()).unwrap()
    };
    let wanted: Vec<Rgb8> = (1..ROWS).map(&mut paint).collect();

    let session = gated(&Gate::default(), 1, 4);
    let mut found = Vec::new();
    for event in session.submit(request).unwrap() {
        if let Event::Preview { index, number, picture, .. } = event {
            assert_eq!((index, number), (0, found.len()));
            found.push(picture);
        }
    }
    assert!(found == wanted);
}

#[test]
fn timings_tell_where_the_time_went() {
    let session = gated(&Gate::default(), 1, 4);
    let mut job = session.submit(request(3, 1)).unwrap();
    let Some(Event::Done(Ok(timings))) = job.by_ref().last() else { panic!("it did not end well") };
    assert!(timings.queued <= timings.first_token && timings.first_token < timings.total, "{timings:?}");
    assert!(!timings.painting.is_zero() && timings.encoding.is_zero(), "{timings:?}");
    assert!(!timings.drawing.is_zero() && timings.drawing + timings.painting <= timings.total, "{timings:?}");
    assert!(job.is_done() && job.next().is_none());
    let stats = session.stats();
    assert_eq!((stats.tokens, stats.images, stats.running, stats.waiting), (16, 1, 0, 0));
    assert!(stats.drawing + stats.painting <= stats.busy && stats.overhead() < 1.0, "{stats:?}");
}

#[test]
fn painting_on_a_cpu_never_keeps_others_waiting_for_more_than_one_picture() {
    let gate = Gate::closed();
    let session = gated(&gate, 4, 8);
    // Three are done at once; the fourth, begun later, is in flight all the while.
    let burst: Vec<_> = (0..3).map(|class| session.submit(request(class, 1)).unwrap()).collect();
    gate.wait_blocked();
    gate.pass(8);
    let late = session.submit(Request { previews: 3, ..request(5, 1) }).unwrap();
    gate.open();
    for job in burst {
        assert_eq!(job.wait().unwrap().len(), 1);
    }
    assert_eq!(late.wait().unwrap().len(), 1);
    let trace = gate.trace();
    // While a picture is in flight, every painting is followed by a step; its own comes last.
    assert_eq!(trace.matches('p').count(), 3 + 3 + 1, "{trace}");
    assert!(!trace.contains("pp"), "{trace}");
}

#[test]
fn a_gpu_paints_what_is_drawn_at_once_and_each_request_gets_its_own() {
    let gate = Gate::closed();
    let options = SessionOptions { lookahead: Lookahead::Window(1), ..options(8, 8) };
    let session = Session::on(gate.executor(true), &class_model(), &options).unwrap();
    let first = session.submit(request(1, 1)).unwrap();
    gate.wait_blocked();
    // These join together when the round is over, and are drawn together; one is given up meanwhile.
    let (pair, one) = (Request { count: 2, ..request(2, 7) }, request(3, 9));
    let jobs = [&pair, &one].map(|request| session.submit(request.clone()).unwrap());
    let given_up = session.submit(request(4, 1)).unwrap();
    gate.pass(8 + 8);
    given_up.cancel();
    gate.open();
    let model = class_model();
    for (job, request) in jobs.into_iter().zip([&pair, &one]) {
        let events: Vec<Event> = job.filter(|event| !matches!(event, Event::Rows { .. })).collect();
        let images = events.iter().filter_map(|event| if let Event::Image(image) = event { Some(image) } else { None });
        let found: Vec<(Vec<u32>, Rgb8)> = images.map(|image| (image.codes.clone(), image.picture.clone())).collect();
        assert!(found == expected(&model, request));
        assert_eq!(told(events).last().map(String::as_str), Some("d1"));
    }
    assert!(matches!(given_up.wait(), Err(Error::Cancelled)));
    assert_eq!(first.wait().unwrap().len(), 1);
    let trace = gate.trace();
    assert_eq!(trace.matches('p').count(), 2, "the first, and three at once: {trace}");
    assert_eq!(session.stats().images, 4);
}
