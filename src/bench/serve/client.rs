//! One request to a server of pictures, and what of its reply counts.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Instant;

use serde_json::{Value, json};

use super::ServeLoad;
use crate::{Error, Result, demo};

/// Sends requests of one load.
pub struct Client<'a> {
    load: &'a ServeLoad,
    agent: ureq::Agent,
}

/// What is served.
pub struct Served {
    /// The load's name for it, else the server's first.
    pub model: String,
    /// What can be asked for where the load names nothing: classes of a class model, the demo's prompts of a text model.
    pub prompts: Vec<String>,
}

/// Classes that are asked for of a server that does not tell how many it has: ImageNet's.
const CLASSES: u64 = 1000;

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// Seconds from the request to each event of a stream; one time, the last byte's, of a plain reply.
    pub events: Vec<f64>,
    pub images: usize,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Seconds in the server's queue and in all of its engine, where a plain reply tells, as smalti's do.
    pub queued: Option<f64>,
    pub engine: Option<f64>,
}

impl Reply {
    /// Of a stream of `latency` seconds; `None` where nothing lies between its events.
    pub fn seconds_per_token(&self, latency: f64) -> Option<f64> {
        let several = self.events.len() > 1 && self.output_tokens > 1;
        several.then(|| (latency - self.events[0]) / (self.output_tokens - 1) as f64)
    }
}

impl<'a> Client<'a> {
    pub fn new(load: &'a ServeLoad) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(load.timeout))
            .http_status_as_error(false)
            .max_idle_connections_per_host(load.max_concurrency.unwrap_or(load.requests).max(1))
            .build();
        Self { load, agent: config.new_agent() }
    }

    /// What is measured. Errors when there is no server.
    pub fn served(&self) -> Result<Served> {
        let path = format!("{}/v1/models", self.load.url);
        let request = self.authorized(self.agent.get(&path));
        let mut response = request.call().map_err(|error| Error::io("reach", &path)(io_error(error)))?;
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let listed: Value = serde_json::from_str(&text).unwrap_or_default();
        let first = &listed["data"][0];
        let named = self.load.model.clone().or(first["id"].as_str().map(String::from));
        let prompts = match first["task"].as_str() {
            Some("t2i") => demo::PROMPTS.map(String::from).to_vec(),
            _ => {
                let classes = first["num_classes"].as_u64().filter(|&classes| classes > 0).unwrap_or(CLASSES);
                (0..classes).map(|class| format!("class:{class}")).collect()
            }
        };
        Ok(Served { model: named.unwrap_or_else(|| "unknown".into()), prompts })
    }

    /// Asks for the pictures of request number `request`, which was `sent` now.
    pub fn generate(&self, request: u64, prompt: &str, sent: Instant) -> Result<Reply, String> {
        let load = self.load;
        let mut body = json!({
            "prompt": prompt,
            "n": load.n,
            "seed": load.seed + request,
            "response_format": "b64_json",
        });
        let mut set = |key: &str, value: Option<Value>| value.into_iter().for_each(|value| body[key] = value);
        set("model", load.model.clone().map(Value::from));
        set("size", load.size.clone().map(Value::from));
        if load.partial_images > 0 {
            set("stream", Some(true.into()));
            set("partial_images", Some(load.partial_images.into()));
        }
        let path = format!("{}/v1/images/generations", load.url);
        let post = self.authorized(self.agent.post(&path)).header("content-type", "application/json");
        let mut response = post.send(body.to_string()).map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let streams = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let reader = response.body_mut().as_reader();
        match status {
            200 if streams => read_stream(BufReader::new(reader), sent),
            200 => read_whole(reader, sent),
            _ => Err(format!("status {status}: {}", message(reader))),
        }
    }

    fn authorized<Any>(&self, request: ureq::RequestBuilder<Any>) -> ureq::RequestBuilder<Any> {
        match &self.load.api_key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

fn io_error(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// What an error's body says: OpenAI's message, else its beginning.
fn message(mut reader: impl Read) -> String {
    let mut text = String::new();
    let _ = reader.read_to_string(&mut text);
    let found = serde_json::from_str::<Value>(&text).ok();
    match found.as_ref().and_then(|value| value["error"]["message"].as_str()) {
        Some(message) => message.into(),
        None => text.chars().take(200).collect(),
    }
}

/// Adds the tokens of a `usage` object.
fn add_usage(reply: &mut Reply, usage: &Value) {
    reply.input_tokens += usage["input_tokens"].as_u64().unwrap_or(0);
    reply.output_tokens += usage["output_tokens"].as_u64().unwrap_or(0);
}

fn read_whole(mut reader: impl Read, sent: Instant) -> Result<Reply, String> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let at = sent.elapsed().as_secs_f64();
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| format!("not JSON: {error}"))?;
    let images = value["data"].as_array().map_or(0, Vec::len);
    if images == 0 {
        return Err("the reply has no pictures".into());
    }
    let timings = &value["timings"];
    let (queued, engine) = (timings["queued"].as_f64(), timings["total"].as_f64());
    let mut reply = Reply { events: vec![at], images, queued, engine, ..Reply::default() };
    add_usage(&mut reply, &value["usage"]);
    Ok(reply)
}

/// Reads server-sent events until the stream's end, or `[DONE]`.
fn read_stream(reader: impl BufRead, sent: Instant) -> Result<Reply, String> {
    let mut reply = Reply::default();
    for line in reader.lines() {
        let line = line.map_err(|error| error.to_string())?;
        let Some(data) = line.strip_prefix("data:") else { continue };
        let data = data.trim();
        if data == "[DONE]" {
            break;
        }
        let at = sent.elapsed().as_secs_f64();
        let event: Value = serde_json::from_str(data).map_err(|error| format!("not JSON: {error}"))?;
        if !event["error"].is_null() {
            return Err(event["error"]["message"].as_str().unwrap_or("an error without a message").into());
        }
        reply.events.push(at);
        if event["type"].as_str().is_some_and(|kind| kind.ends_with(".completed")) {
            reply.images += 1;
            add_usage(&mut reply, &event["usage"]);
        }
    }
    if reply.images == 0 { Err("the stream ended without a picture".into()) } else { Ok(reply) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> Result<Reply, String> {
        read_stream(text.as_bytes(), Instant::now())
    }

    #[test]
    fn streams_are_read_event_by_event() {
        let partial = "event: image_generation.partial_image\n\
            data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"x\"}\n\n";
        let done = "event: image_generation.completed\r\n\
            data:{\"type\":\"image_generation.completed\",\"usage\":{\"input_tokens\":1,\"output_tokens\":256}}\r\n\r\n";
        let reply = stream(&format!("{partial}: a comment\n{partial}{done}data: [DONE]\n\n{done}")).expect("a picture");
        assert_eq!((reply.events.len(), reply.images, reply.input_tokens, reply.output_tokens), (3, 1, 1, 256));
        let error = stream(&format!("{partial}data: {{\"error\":{{\"message\":\"no room\"}}}}\n\n"));
        assert_eq!(error, Err("no room".into()));
        assert!(stream(partial).expect_err("unfinished").contains("without a picture"));
        assert!(stream("data: {\n").expect_err("cut off").contains("not JSON"));
    }

    #[test]
    fn plain_replies_have_pictures_and_usage() {
        let text = br#"{"created":1,"data":[{"b64_json":"x"},{"b64_json":"y"}],"usage":{"output_tokens":512},
            "timings":{"queued":0.5,"total":2.25}}"#;
        let reply = read_whole(&text[..], Instant::now()).expect("pictures");
        assert_eq!((reply.images, reply.output_tokens, reply.events.len()), (2, 512, 1));
        assert_eq!((reply.queued, reply.engine), (Some(0.5), Some(2.25)));
        assert!(read_whole(&b"{\"data\":[]}"[..], Instant::now()).is_err());
        assert_eq!(message(&br#"{"error":{"message":"queue full"}}"#[..]), "queue full");
    }
}
