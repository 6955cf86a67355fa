//! A server under load: requests for pictures over HTTP, as many at a time or as many a second as asked for.
//!
//! The route is OpenAI's, `POST /v1/images/generations`, which other servers of pictures have too. The record has the
//! keys of `vllm bench serve`; its "tokens" are what the server's `usage` says. With `partial_images` pictures come
//! as a stream, and the first event's time stands for the time to the first token.

mod client;
mod goal;
mod record;
mod schedule;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::client::{Client, Reply};
pub use self::goal::Goal;
pub use self::record::ServeRecord;
use self::schedule::arrivals;
use crate::Result;

/// A load and where it goes.
#[derive(Clone, Debug)]
pub struct ServeLoad {
    /// `http://host:port`, what stands before `/v1`.
    pub url: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// The server's own if none is named.
    pub model: Option<String>,
    /// Taken in turn; if there are none, classes or prompts that the server's model knows.
    pub prompts: Vec<String>,
    /// `256x256`, or what the server prefers.
    pub size: Option<String>,
    /// Pictures per request.
    pub n: usize,
    /// Previews per picture, 0..=3; above 0 replies are streams.
    pub partial_images: usize,
    pub requests: usize,
    /// Requests before that do not count, one after the other.
    pub warmups: usize,
    /// Requests under way at most; `None` for all.
    pub max_concurrency: Option<usize>,
    /// Requests per second on average, with exponential gaps; infinite for as soon as may be.
    pub request_rate: f64,
    /// Of the gaps, and of the first request's pictures.
    pub seed: u64,
    /// A request that takes longer has failed.
    pub timeout: Duration,
    /// What a request must meet to count in `request_goodput`.
    pub goodput: Vec<Goal>,
    /// What the record calls the run.
    pub label: Option<String>,
}

/// One request's fate. Times in seconds.
#[derive(Clone, Debug)]
struct Outcome {
    /// After the first request could begin.
    started: f64,
    latency: f64,
    reply: Result<Reply, String>,
}

/// Sends the load. Errors when the server cannot be reached; requests that fail are counted.
pub fn drive(load: &ServeLoad) -> Result<ServeRecord> {
    let client = Client::new(load);
    let served = client.served()?;
    let prompts = if load.prompts.is_empty() { &served.prompts } else { &load.prompts };
    let ask = |request: usize, sent: Instant| client.generate(request as u64, &prompts[request % prompts.len()], sent);
    for warmup in 0..load.warmups {
        let _ = ask(warmup, Instant::now());
    }
    let arrivals = arrivals(load.requests, load.request_rate, load.seed);
    let (next, under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let outcomes: Mutex<Vec<Outcome>> = Mutex::new(Vec::with_capacity(load.requests));
    let begun = Instant::now();
    let work = || {
        loop {
            let request = next.fetch_add(1, Ordering::Relaxed);
            let Some(arrival) = arrivals.get(request) else { return };
            std::thread::sleep(Duration::from_secs_f64(*arrival).saturating_sub(begun.elapsed()));
            most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let sent = Instant::now();
            let reply = ask(request, sent);
            let outcome =
                Outcome { started: (sent - begun).as_secs_f64(), latency: sent.elapsed().as_secs_f64(), reply };
            under_way.fetch_sub(1, Ordering::Relaxed);
            outcomes.lock().expect("nobody panicked").push(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..load.max_concurrency.unwrap_or(load.requests).min(load.requests) {
            scope.spawn(work);
        }
    });
    let duration = begun.elapsed().as_secs_f64();
    let mut outcomes = outcomes.into_inner().expect("nobody panicked");
    outcomes.sort_by(|a, b| a.started.total_cmp(&b.started));
    Ok(ServeRecord::new(load, served.model, duration, most.into_inner(), &outcomes))
}
