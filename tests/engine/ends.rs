//! How requests end that are not drawn to the end: cancelled, late, refused, left behind by a dead engine.

use std::sync::Arc;
use std::time::Duration;

use smalti::{Error, Event, Request, Session};

use super::gate::{Fault, Gate};
use super::models::{TOKENS, class_model, expected, gated, options, request};

#[test]
fn cancelling_frees_the_place_at_the_next_step() {
    let gate = Gate::closed();
    let session = gated(&gate, 1, 4);
    let first = session.submit(request(3, 1)).unwrap();
    gate.wait_blocked();
    gate.pass(4);
    let second = session.submit(request(4, 1)).unwrap();
    first.cancel();
    // The step that waits is the last one of the first picture; the 16 behind it make the second.
    gate.pass(1);
    assert!(matches!(first.wait(), Err(Error::Cancelled)));
    assert_eq!(session.stats().places_taken, 0, "as of the last round");
    gate.pass(TOKENS - 1);
    gate.open();
    assert_eq!(second.wait().unwrap()[0].codes, expected(&class_model(), &request(4, 1))[0].0);
    assert_eq!(gate.trace(), "s".repeat(4 + 1 + TOKENS) + "p");
}

#[test]
fn one_that_waits_is_cancelled_too_and_dropping_cancels() {
    let gate = Gate::closed();
    let session = gated(&gate, 1, 4);
    let first = session.submit(request(3, 1)).unwrap();
    gate.wait_blocked();
    let waiting = session.submit(request(4, 1)).unwrap();
    drop(session.submit(request(5, 1)).unwrap());
    waiting.cancel();
    gate.pass(1);
    assert!(matches!(waiting.wait(), Err(Error::Cancelled)));
    assert_eq!(session.stats().waiting, 0);
    gate.open();
    assert_eq!(first.wait().unwrap().len(), 1);
    assert_eq!(session.stats().images, 1);
}

#[test]
fn a_late_request_ends_with_its_deadline() {
    let gate = Gate::closed();
    let session = gated(&gate, 1, 4);
    let after = Duration::from_millis(1);
    let late = |class| Request { deadline: Some(after), ..request(class, 1) };
    let running = session.submit(late(3)).unwrap();
    // It may be late before it was begun; either way the gate's next step belongs to another.
    let waiting = session.submit(late(4)).unwrap();
    let other = session.submit(Request { deadline: Some(Duration::MAX), ..request(5, 1) }).unwrap();
    std::thread::sleep(2 * after);
    gate.open();
    for job in [running, waiting] {
        let result = job.wait();
        assert!(matches!(result, Err(Error::Deadline { after: told }) if told == after), "{result:?}");
    }
    assert_eq!(other.wait().unwrap().len(), 1);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let gate = Gate::closed();
    let session = gated(&gate, 1, 2);
    let mut jobs = vec![session.submit(request(0, 1)).unwrap()];
    gate.wait_blocked();
    jobs.extend([1, 2].map(|class| session.submit(request(class, 1)).unwrap()));
    for _ in 0..3 {
        let refused = session.submit(request(3, 1)).err();
        assert!(matches!(refused, Some(Error::Busy { waiting: 2 })), "{refused:?}");
    }
    gate.open();
    assert_eq!(jobs.into_iter().map(|job| job.wait().unwrap().len()).sum::<usize>(), 3);
    assert_eq!(session.draw(request(3, 1)).unwrap().len(), 1, "there is room again");
}

#[test]
fn draining_finishes_what_was_taken() {
    let gate = Gate::closed();
    let session = gated(&gate, 2, 8);
    let jobs: Vec<_> = (0..5).map(|class| session.submit(request(class, 1)).unwrap()).collect();
    gate.wait_blocked();
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| session.drain());
        while session.ended().is_none() {
            std::thread::yield_now();
        }
        let refused = session.submit(request(6, 1)).err();
        assert!(matches!(refused, Some(Error::Ended { .. })), "{refused:?}");
        assert!(!drained.is_finished());
        let waiting = scope.spawn(|| session.wait_ended());
        gate.open();
        drained.join().unwrap();
        assert!(waiting.join().unwrap().is_ok(), "it was asked to end");
    });
    for job in jobs {
        assert_eq!(job.wait().unwrap().len(), 1);
    }
}

#[test]
fn closing_tells_all_that_are_left() {
    let gate = Gate::closed();
    let session = gated(&gate, 1, 8);
    let jobs: Vec<_> = (0..3).map(|class| session.submit(request(class, 1)).unwrap()).collect();
    gate.wait_blocked();
    std::thread::scope(|scope| {
        scope.spawn(|| session.close());
        while session.ended().is_none() {
            std::thread::yield_now();
        }
        gate.open();
    });
    for job in jobs {
        let result = job.wait();
        assert!(matches!(&result, Err(Error::Ended { reason }) if reason == "it was closed"), "{result:?}");
    }
}

#[test]
fn a_dead_engine_is_told_to_all() {
    for (fault, told) in [(Fault::Error, "the gate: it broke down"), (Fault::Panic, "its engine failed")] {
        let gate = Gate::closed();
        let session = gated(&gate, 2, 8);
        let jobs: Vec<_> = (0..4).map(|class| session.submit(request(class, 1)).unwrap()).collect();
        gate.wait_blocked();
        gate.break_down(fault);
        for job in jobs {
            let result = job.wait();
            assert!(matches!(&result, Err(Error::Ended { reason }) if reason == told), "{result:?}");
        }
        session.drain();
        let refused = session.submit(request(0, 1)).err();
        assert!(matches!(&refused, Some(Error::Ended { reason }) if reason == told), "{refused:?}");
        assert_eq!(session.ended().as_deref(), Some(told));
        let ended = session.wait_ended();
        assert!(matches!(&ended, Err(Error::Ended { reason }) if reason == told), "{ended:?}");
    }
}

#[test]
fn a_device_that_cannot_be_laid_out_is_an_error_at_the_start() {
    let refused = Session::start(&class_model(), &options(0, 1)).err();
    assert!(matches!(refused, Some(Error::Option { option: "batch-size", .. })), "{refused:?}");
    let mut far = options(1, 1);
    far.threads = 1_000_000;
    let refused = Session::start(&class_model(), &far).err();
    assert!(matches!(refused, Some(Error::Option { option: "threads", .. })), "{refused:?}");
}

#[test]
fn requests_that_cannot_be_are_refused_before_they_wait() {
    let session = gated(&Gate::default(), 1, 1);
    let refused = |change: fn(&mut Request)| {
        let mut request = request(3, 1);
        change(&mut request);
        match session.submit(request) {
            Err(Error::Option { option, .. }) => option,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was taken"),
        }
    };
    assert_eq!(refused(|request| request.count = 0), "count");
    assert_eq!(refused(|request| request.count = usize::MAX), "count");
    assert_eq!(refused(|request| request.subjects.clear()), "count");
    assert_eq!(refused(|request| request.first_image = u64::MAX), "first-image");
    assert_eq!(refused(|request| request.options.top_p = 2.0), "top-p");
    assert_eq!(refused(|request| *request = Request::class(10)), "class");
    assert_eq!(refused(|request| *request = Request::prompt("a tree")), "prompt");
}

#[test]
fn a_receiver_that_panics_ends_its_request_alone() {
    let gate = Gate::closed();
    let session = gated(&gate, 2, 4);
    let canceller = session.submit_to(request(3, 1), |_| panic!("as this test wants")).unwrap();
    let other = session.submit(request(4, 1)).unwrap();
    gate.open();
    assert_eq!(other.wait().unwrap().len(), 1);
    canceller.cancel();
    assert_eq!(session.draw(request(5, 1)).unwrap().len(), 1);
    // The first one left after its first row.
    assert_eq!(session.stats().images, 2);
}

#[test]
fn a_receiver_may_use_and_drop_the_session() {
    let session = Arc::new(gated(&Gate::default(), 1, 4));
    let (send, received) = std::sync::mpsc::channel();
    let held = session.clone();
    let mut first = true;
    session
        .submit_to(request(3, 1), move |event| {
            if std::mem::take(&mut first) {
                let send = send.clone();
                let tell = move |event| {
                    let ended = matches!(event, Event::Done(Err(Error::Ended { .. })));
                    _ = send.send(ended);
                };
                held.submit_to(request(4, 1), tell).unwrap();
            }
            if matches!(event, Event::Done(_)) {
                held.close();
            }
        })
        .unwrap();
    assert_eq!(received.recv(), Ok(true), "the second was ended by the first");
    drop(session);
}

#[test]
fn a_session_is_dropped_while_requests_wait() {
    let session: Session = gated(&Gate::default(), 1, 8);
    let jobs: Vec<_> = (0..8).map(|class| session.submit(request(class, 1)).unwrap()).collect();
    drop(session);
    let ends: Vec<_> = jobs.into_iter().map(|job| job.wait()).collect();
    assert!(ends.iter().all(|end| matches!(end, Ok(_) | Err(Error::Ended { .. }))), "{ends:?}");
    assert!(ends.last().is_some_and(Result::is_err), "it did not wait for all");
}
