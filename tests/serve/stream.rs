//! Streams of events: their order, previews, errors in the middle.

use std::io::{Read, Write};

use serde_json::Value;

use super::client::{Server, post};

/// The events of a reply: name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
        if block == "data: [DONE]" {
            events.push(("done".into(), Value::Null));
            continue;
        }
        let (name, data) = block.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        events.push((name.to_string(), data));
    }
    events
}

#[test]
fn previews_and_pictures_come_in_openais_events() {
    let server = Server::start(&[]);
    let whole = server.images(r#"{"prompt": "5", "seed": 2}"#);
    let reply = server.post(r#"{"prompt": "5", "seed": 2, "stream": true, "partial_images": 3}"#);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    let events = events(&reply.text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(names, [partial, partial, partial, "image_generation.completed", "done"]);
    for (number, (name, data)) in events[..4].iter().enumerate() {
        assert_eq!(&data["type"], name);
        for key in ["b64_json", "created_at", "size", "quality", "background", "output_format"] {
            assert!(data.get(key).is_some(), "{key} in {name}");
        }
        assert!(number == 3 || data["partial_image_index"] == number);
    }
    let completed = &events[3].1;
    assert_eq!(completed["b64_json"], whole["data"][0]["b64_json"]);
    assert_eq!((&completed["usage"]["total_tokens"], &completed["seed"]), (&17.into(), &2.into()));
    assert_ne!(events[0].1["b64_json"], events[2].1["b64_json"]);
}

#[test]
fn several_pictures_tell_which_they_are_and_rows_come_where_asked_for() {
    let server = Server::start(&[]);
    let reply = server.post(r#"{"prompt": "5", "n": 3, "stream": true, "progress": true}"#);
    let events = events(&reply.text());
    for index in 0..3 {
        let of_one = events.iter().filter(|(_, data)| data["image_index"] == index);
        let short: Vec<String> = of_one.map(|(name, data)| format!("{name} {}", data["rows"])).collect();
        let (last, rows) = short.split_last().expect("events");
        assert_eq!(last, "image_generation.completed null");
        assert!(rows.last().is_some_and(|row| row == "smalti.progress 4"), "{short:?}");
    }
    assert_eq!(events.iter().filter(|(name, _)| name == "image_generation.completed").count(), 3);
}

#[test]
fn an_error_in_the_middle_is_an_event() {
    let server = Server::with("c2i/gpt.pt", 512, &["--timeout", "1", "--max-images", "1000"]);
    let reply = server.post(r#"{"prompt": "5", "n": 1000, "stream": true}"#);
    assert_eq!(reply.status, 200);
    let events = events(&reply.text());
    let (name, data) = events.last().expect("an event");
    assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &"deadline_exceeded".into()));
    // The same as a reply of its own; the client is told not to try again.
    let reply = server.post(r#"{"prompt": "5", "n": 1000}"#);
    assert_eq!((reply.error().0, reply.header("x-should-retry")), (504, Some("false")));
    server.wait_for("smalti_requests_running", 0.0);
}

#[test]
fn hanging_up_cancels() {
    let server = Server::with("c2i/gpt.pt", 256, &["--batch-size", "1", "--max-images", "100000"]);
    for stream in [true, false] {
        let body = format!(r#"{{"prompt": "5", "n": 100000, "stream": {stream}, "progress": true}}"#);
        let mut connection = server.connect();
        connection.write_all(&post(body.as_bytes(), "")).unwrap();
        if stream {
            connection.read_exact(&mut [0; 400]).unwrap();
        } else {
            server.wait_for("smalti_requests_running", 1.0);
        }
        drop(connection);
        server.wait_for("smalti_requests_running", 0.0);
    }
    server.wait_for("smalti_requests_total{task=\"c2i\",status=\"cancelled\"}", 2.0);
    server.images(r#"{"prompt": "5"}"#);
}
