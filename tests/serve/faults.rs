//! Clients that do not keep to the rules: the server answers what it can and goes on for all others.

use std::io::{Read, Write};
use std::time::Duration;

use super::client::{IMAGES, Reply, Server, post};

/// It still serves, and nothing is left over.
#[track_caller]
fn unharmed(server: &Server) {
    server.images(r#"{"prompt": "5"}"#);
    server.wait_for("smalti_requests_running", 0.0);
    assert_eq!(server.get("/load").json()["server_load"], 0);
}

#[test]
fn half_a_body_and_then_nothing() {
    let server = Server::start(&[]);
    for half in [&b""[..], b"{", br#"{"prompt": "#] {
        let mut connection = server.connect();
        let head = format!(
            "POST {IMAGES} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(half).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        // Either an error or nothing at all; never a picture.
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).ok();
        assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&reply));
    }
    unharmed(&server);
}

#[test]
fn slow_bodies_keep_nobody_waiting() {
    let server = Server::start(&[]);
    let body = br#"{"prompt": "5", "seed": 1}"#;
    let whole = post(body, "");
    let (head, rest) = whole.split_at(whole.len() - body.len());
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    slow.iter_mut().for_each(|connection| connection.write_all(head).unwrap());
    for byte in rest {
        for connection in &mut slow {
            connection.write_all(&[*byte]).unwrap();
        }
        assert_eq!(server.get("/health").status, 200);
        std::thread::sleep(Duration::from_millis(2));
    }
    for connection in &mut slow {
        assert_eq!(Reply::read(connection).status, 200);
    }
    unharmed(&server);
}

#[test]
fn a_body_that_never_ends_is_408() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let head = format!(
        "POST {IMAGES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    let mut writer = connection.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        // One byte a second until nobody reads any longer.
        while writer.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    assert_eq!(Reply::read(&mut connection).error().1, "body_timeout");
    connection.shutdown(std::net::Shutdown::Both).ok();
    trickle.join().unwrap();
    unharmed(&server);
}

#[test]
fn a_hundred_megabytes_are_refused_unread() {
    let server = Server::start(&[]);
    let megabyte = vec![b' '; 1 << 20];
    // With its length told, and in chunks without.
    for framing in ["Content-Length: 104857600\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        let mut connection = server.connect();
        let head =
            format!("POST {IMAGES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n");
        connection.write_all(format!("{head}{framing}").as_bytes()).unwrap();
        let mut writer = connection.try_clone().unwrap();
        let chunked = framing.starts_with('T');
        let feed = megabyte.clone();
        let sent = std::thread::spawn(move || {
            let chunk = if chunked { [b"100000\r\n", &feed[..], b"\r\n"].concat() } else { feed };
            (0..100).take_while(|_| writer.write_all(&chunk).is_ok()).count()
        });
        assert_eq!(Reply::read(&mut connection).error(), (413, "body_too_large".into(), serde_json::Value::Null));
        drop(connection);
        assert!(sent.join().unwrap() < 100, "it read all of it");
    }
    unharmed(&server);
}

#[test]
fn bytes_that_are_no_text_and_brackets_without_end() {
    let server = Server::start(&[]);
    let deep = [&b"["[..]; 100_000].concat();
    let deeper = [br#"{"prompt": "#, &[&b"[{\"a\":"[..]; 50_000].concat()[..]].concat();
    for body in [&b"{\"prompt\": \"\xff\xfe\"}"[..], b"\0\0\0\0", b"", &deep, &deeper, b"{\"prompt\": \"\\ud800\"}"] {
        let reply = server.exchange(&post(body, ""));
        assert_eq!(reply.error(), (400, "invalid_json".into(), serde_json::Value::Null));
    }
    // Numbers beyond any type, names without end, the same name twice.
    let long = format!(r#"{{"prompt": "1", "{}": 1}}"#, "x".repeat(100_000));
    for body in [r#"{"prompt": "1", "seed": 1e999}"#, r#"{"prompt": "1", "seed": 99999999999999999999}"#, &long] {
        let reply = server.post(body);
        assert_eq!(reply.status, 400);
        assert!(reply.body.len() < 1000, "an error is a line, not an echo");
    }
    server.images(r#"{"prompt": "x", "prompt": "1"}"#);
    unharmed(&server);
}

#[test]
fn heads_that_are_none() {
    let server = Server::start(&[]);
    for head in [
        &b"\r\n\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        &[b'A'; 1 << 20],
    ] {
        let mut connection = server.connect();
        connection.write_all(head).ok();
        connection.shutdown(std::net::Shutdown::Write).ok();
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).ok();
        assert!(!reply.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&reply));
    }
    unharmed(&server);
}

#[test]
fn clients_that_come_and_go() {
    let server = Server::with("c2i/gpt.pt", 256, &["--batch-size", "2", "--queue", "64"]);
    std::thread::scope(|scope| {
        for number in 0..40 {
            let server = &server;
            scope.spawn(move || {
                let body = format!(r#"{{"prompt": "{}", "n": 2, "stream": {}}}"#, number % 10, number % 2 == 0);
                let mut connection = server.connect();
                connection.write_all(&post(body.as_bytes(), "")).ok();
                if number % 4 == 3 {
                    assert_eq!(Reply::read(&mut connection).status, 200);
                }
            });
        }
    });
    server.wait_for("smalti_requests_waiting", 0.0);
    unharmed(&server);
}
