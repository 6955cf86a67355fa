//! Between those who ask and the thread that draws: a bounded queue, and what the thread tells of itself.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::job::Reply;
use super::request::Request;
use crate::config::Sampling;
use crate::{Error, Result};

/// A request that was checked and waits.
pub(super) struct Waiting {
    pub request: Request,
    pub sampling: Sampling,
    pub reply: Reply,
}

/// What a session has done by now, and is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests whose pictures are being drawn or painted.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Pictures that it holds at once, and how many it holds now.
    pub places: usize,
    pub places_taken: usize,
    /// Pictures painted for good, and previews.
    pub images: u64,
    pub previews: u64,
    /// Codes drawn, of all pictures.
    pub tokens: u64,
    /// Rounds of steps.
    pub rounds: u64,
    /// Time with anything to do.
    pub busy: Duration,
    /// Of that in the text encoder, in the transformer and in the VQ decoder.
    pub encoding: Duration,
    pub drawing: Duration,
    pub painting: Duration,
}

impl Stats {
    /// The share of the busy time that no model had.
    pub fn overhead(&self) -> f64 {
        let models = self.encoding + self.drawing + self.painting;
        if self.busy.is_zero() {
            return 0.0;
        }
        self.busy.saturating_sub(models).as_secs_f64() / self.busy.as_secs_f64()
    }
}

/// Whether requests are taken and pictures drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// No new requests; those that were taken get done.
    Draining,
    /// Nothing more is drawn.
    Ended(String),
}

struct Inner {
    waiting: VecDeque<Waiting>,
    state: State,
    /// Whether it ended without being asked to.
    failed: bool,
    stats: Stats,
}

/// The queue, shared by all handles and the engine's thread.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    limit: usize,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let inner = Inner { waiting: VecDeque::new(), state: State::Open, failed: false, stats: Stats::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request at the end; one that is refused is not told of it but by the error.
    pub(super) fn put(&self, waiting: Waiting) -> Result<()> {
        let mut inner = self.lock();
        let refused = match &inner.state {
            State::Open if inner.waiting.len() < self.limit => {
                inner.waiting.push_back(waiting);
                drop(inner);
                self.changed.notify_all();
                return Ok(());
            }
            State::Open => Error::Busy { waiting: inner.waiting.len() },
            State::Draining => Error::Ended { reason: "it takes no more requests".into() },
            State::Ended(reason) => Error::Ended { reason: reason.clone() },
        };
        drop(inner);
        waiting.reply.silence();
        Err(refused)
    }

    /// The first request in line.
    pub(super) fn take(&self) -> Option<Waiting> {
        self.lock().waiting.pop_front()
    }

    /// Takes those out for which nothing more is to be done, with the reason.
    pub(super) fn take_ended(&self, now: Instant) -> Vec<(Waiting, Error)> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        let mut at = 0;
        while at < inner.waiting.len() {
            match inner.waiting[at].reply.ended(now) {
                Some(why) => ended.push((inner.waiting.remove(at).expect("it is there"), why)),
                None => at += 1,
            }
        }
        ended
    }

    /// Waits until a request waits or the state is no longer open; the state.
    pub(super) fn wait(&self) -> State {
        let mut inner = self.lock();
        while inner.waiting.is_empty() && inner.state == State::Open {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.state.clone()
    }

    /// Waits until nothing more is drawn; an error, and why, where nobody asked for that.
    pub(super) fn wait_ended(&self) -> Result<()> {
        let mut inner = self.lock();
        loop {
            match &inner.state {
                State::Ended(reason) if inner.failed => return Err(Error::Ended { reason: reason.clone() }),
                State::Ended(_) => return Ok(()),
                _ => inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub(super) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Takes no more requests.
    pub(super) fn drain(&self) {
        let mut inner = self.lock();
        if inner.state == State::Open {
            inner.state = State::Draining;
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Ends everything: those that wait are told, others by the engine.
    pub(super) fn end(&self, reason: &str) {
        self.end_as(reason, false);
    }

    /// The same, though nobody asked for it.
    pub(super) fn fail(&self, reason: &str) {
        self.end_as(reason, true);
    }

    fn end_as(&self, reason: &str, failed: bool) {
        let mut inner = self.lock();
        if !matches!(inner.state, State::Ended(_)) {
            inner.state = State::Ended(reason.into());
            inner.failed = failed;
        }
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        self.changed.notify_all();
        for waiting in waiting {
            waiting.reply.done(Err(Error::Ended { reason: reason.into() }));
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats { waiting: inner.waiting.len(), ..inner.stats }
    }

    pub(super) fn tell(&self, stats: &Stats) {
        self.lock().stats = *stats;
    }
}
