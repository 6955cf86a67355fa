//! Full queues, loading, draining.

use std::io::Write;
use std::time::{Duration, Instant};

use super::client::{Reply, Server, post};

#[test]
fn a_full_queue_is_429_and_nothing_is_lost() {
    let args = ["--batch-size", "1", "--queue", "2", "--max-images", "100000"];
    let server = Server::with("c2i/gpt.pt", 256, &args);
    // It runs until it hangs up, so that nothing leaves the queue before.
    let mut long = server.connect();
    long.write_all(&post(br#"{"prompt": "5", "n": 100000}"#, "")).unwrap();
    server.wait_for("smalti_requests_running", 1.0);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let body = format!(r#"{{"prompt": "{}", "n": 4, "seed": {number}}}"#, number % 10);
            let server = &server;
            scope.spawn(move || server.post(&body))
        };
        let clients: Vec<_> = (0..12).map(ask).collect();
        server.wait_for("smalti_requests_total{task=\"c2i\",status=\"busy\"}", 10.0);
        drop(long);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (well, busy): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((well.len(), busy.len()), (2, 10));
    for reply in well {
        assert_eq!(reply.json()["data"].as_array().map(Vec::len), Some(4));
    }
    for reply in busy {
        assert_eq!((reply.status, reply.error().1.as_str()), (429, "queue_full"));
        let seconds = reply.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=30).contains(&seconds)));
        assert_eq!(reply.header("x-should-retry"), None);
    }
    assert_eq!(server.figure("smalti_requests_total{task=\"c2i\",status=\"ok\"}"), 2.0);
}

#[test]
fn requests_while_loading_are_503_or_served() {
    let server = Server::loading("c2i/gpt.pt", 64, &[]);
    // It may be ready by now: what must not be is anything else.
    let reply = server.post(r#"{"prompt": "5"}"#);
    if reply.status != 200 {
        assert_eq!(reply.error().1, "loading");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("2")));
    }
}

#[test]
fn a_model_that_does_not_load_ends_the_program() {
    let mut server = Server::loading("c2i/gpt.pt", 64, &["--batch-size", "1000000000"]);
    assert_eq!(server.wait().code(), Some(1));
}

#[test]
fn sigterm_finishes_what_runs() {
    let mut server = Server::with("c2i/gpt.pt", 512, &["--batch-size", "16", "--queue", "8"]);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let body = format!(r#"{{"prompt": "{number}", "n": 2, "stream": {}}}"#, number % 2 == 1);
            let server = &server;
            scope.spawn(move || server.post(&body))
        };
        let clients: Vec<_> = (0..8).map(ask).collect();
        while server.figure("smalti_requests_running") < 8.0 {
            assert!(!clients.iter().any(|client| client.is_finished()), "one was done before all had come");
        }
        server.signal("TERM");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(reply.status, 200, "request {number}");
        let pictures = if number % 2 == 1 {
            reply.text().matches("event: image_generation.completed").count()
        } else {
            reply.json()["data"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(pictures, 2, "request {number}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn while_draining_new_requests_are_503_and_a_second_signal_ends_all() {
    let args = ["--batch-size", "1", "--max-images", "100000"];
    let mut server = Server::with("c2i/gpt.pt", 256, &args);
    let mut long = server.connect();
    long.write_all(&post(br#"{"prompt": "5", "n": 100000}"#, "")).unwrap();
    server.wait_for("smalti_requests_running", 1.0);
    server.signal("TERM");
    while server.get("/health").status == 200 {}
    let reply = server.post(r#"{"prompt": "5"}"#);
    assert_eq!((reply.error().0, reply.error().1.as_str()), (503, "draining"));
    assert_eq!(server.get("/health").error().1, "draining");
    server.signal("INT");
    assert_eq!(Reply::read(&mut long).error().1, "engine_stopped");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_who_never_reads() {
    let mut server = Server::with("c2i/gpt.pt", 512, &["--batch-size", "16", "--max-images", "64"]);
    // More than sockets hold.
    let mut silent = server.connect();
    silent.write_all(&post(br#"{"prompt": "5", "n": 64}"#, "")).unwrap();
    server.wait_for("smalti_requests_total{task=\"c2i\",status=\"ok\"}", 1.0);
    server.signal("TERM");
    // No longer listening, it has nothing but that reply left to do.
    let until = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < until, "it still listens");
    }
    let asked = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    // It would have waited for half a minute.
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
fn a_device_that_fails_ends_the_server() {
    // Some pictures come before it.
    let Some(mut server) = Server::on_card("fault=600") else { return };
    let mut replies = Vec::new();
    while replies.len() < 8 && replies.last().is_none_or(|reply: &Reply| reply.status == 200) {
        replies.push(server.post(r#"{"prompt": "5", "seed": 1}"#));
    }
    let last = replies.pop().expect("a reply");
    assert!(!replies.is_empty(), "no picture came before: {}", last.text());
    let (status, code, _) = last.error();
    assert_eq!((status, code.as_str()), (503, "engine_stopped"), "{}", last.text());
    assert_eq!(server.wait().code(), Some(1));
    let errors = server.errors();
    assert!(errors.contains("error: the session has ended: ") && errors.contains("ILLEGAL_ADDRESS"), "{errors}");
}
