//! A request on its way: its events on this side, its reply on the engine's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::request::{Event, Image, Timings};
use crate::{Error, Result};

/// Ends a request from any thread; its pictures' places are free at the next step.
#[derive(Clone, Debug)]
pub struct Canceller(pub(super) Arc<AtomicBool>);

impl Canceller {
    /// Asks for the end. [`Event::Done`] still comes, with [`Error::Cancelled`] unless all was done before.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A request that was submitted: an iterator over its events, which ends behind [`Event::Done`].
///
/// Dropping it cancels the request.
pub struct Job {
    pub(super) events: Receiver<Event>,
    pub(super) canceller: Canceller,
    pub(super) done: bool,
}

impl Job {
    /// Waits for the end; the pictures in their order, or the first error.
    pub fn wait(mut self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for event in &mut self {
            match event {
                Event::Image(image) => images.push(image),
                Event::Done(result) => {
                    result?;
                    images.sort_unstable_by_key(|image| image.index);
                    return Ok(images);
                }
                Event::Rows { .. } | Event::Preview { .. } => {}
            }
        }
        Err(Error::Ended { reason: "its events were taken before".into() })
    }

    /// The next event if it comes within `timeout`; `None` also behind the last one.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        if self.done {
            return None;
        }
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(self.note(event)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(self.lost()),
        }
    }

    /// Whether [`Event::Done`] was taken.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Ends the request; see [`Canceller::cancel`].
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// What ends the request from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    fn note(&mut self, event: Event) -> Event {
        self.done |= matches!(event, Event::Done(_));
        event
    }

    /// The engine replies to everything, so this is for a process that is coming apart.
    fn lost(&mut self) -> Event {
        self.note(Event::Done(Err(Error::Ended { reason: "its engine is gone".into() })))
    }
}

impl Iterator for Job {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.done {
            return None;
        }
        Some(match self.events.recv() {
            Ok(event) => self.note(event),
            Err(_) => self.lost(),
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Where a request's events go.
pub(super) type Sink = Box<dyn FnMut(Event) + Send>;

/// The engine's side of a request: whatever becomes of it, it is told the end, once.
pub(super) struct Reply {
    sink: Option<Sink>,
    canceller: Canceller,
    submitted: Instant,
    /// When it must be done, and the time that it was given.
    deadline: Option<(Instant, Duration)>,
}

impl Reply {
    pub(super) fn new(sink: Sink, canceller: Canceller, deadline: Option<Duration>) -> Self {
        let submitted = Instant::now();
        // A time beyond the clock's range is no deadline.
        let deadline = deadline.and_then(|after| Some((submitted.checked_add(after)?, after)));
        Self { sink: Some(sink), canceller, submitted, deadline }
    }

    /// Time since its submission.
    pub(super) fn age(&self) -> Duration {
        self.submitted.elapsed()
    }

    /// Why nothing more is to be done for it, if so.
    pub(super) fn ended(&self, now: Instant) -> Option<Error> {
        match self.deadline {
            _ if self.canceller.is_cancelled() => Some(Error::Cancelled),
            Some((at, after)) if now >= at => Some(Error::Deadline { after }),
            _ => None,
        }
    }

    /// Hands an event out. A receiver that panics has no use for further ones: its request is cancelled.
    pub(super) fn send(&mut self, event: Event) {
        let Some(sink) = &mut self.sink else { return };
        if catch_unwind(AssertUnwindSafe(|| sink(event))).is_err() {
            self.sink = None;
            self.canceller.cancel();
        }
    }

    /// For a request that was never taken: nothing is told.
    pub(super) fn silence(mut self) {
        self.sink = None;
    }

    /// The last event.
    pub(super) fn done(mut self, result: Result<Timings>) {
        self.send(Event::Done(result));
        self.sink = None;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // Only a panic of the engine leaves one behind.
        self.send(Event::Done(Err(Error::Ended { reason: "its engine failed".into() })));
    }
}
