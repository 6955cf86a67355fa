//! The thread that owns the device: one round after the other, each a few steps of all pictures in flight.
//!
//! A round: those that were cancelled or are late leave; requests enter while there are places; all pictures draw;
//! rows and previews are told; pictures are painted; those that are drawn leave their places.
//!
//! **Painting.** A picture's pixels take as long as tens of steps on a CPU. So at most one is painted a round while
//! others draw, or on a GPU as many as it paints at once: a burst of finished pictures delays the next step of the
//! others by these, never by all. Nothing is gained by waiting longer than that, as a finished picture is nearer to its
//! end than any other. Previews come after finished pictures, one a round, and a later preview takes the place of one
//! that was not painted in time.
//!
//! **Prompts.** The text encoder runs on this thread, at most one request's prompts a round. On the CPU every model
//! runs on all cores, whose threads wait for each other in a spin: a second one beside would make both slower than
//! one after the other. On a GPU there is one stream of work anyhow.

mod round;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::Reply;
use super::model::Model;
use super::options::SessionOptions;
use super::queue::{Queue, State, Stats, Waiting};
use super::request::{Request, Subject, Timings};
use crate::backend::Executor;
use crate::config::{Condition, Sampling};
use crate::generate::{self, Conditioning, Generator, Prompter};
use crate::graph::Elem;
use crate::{Error, Result};

/// Everything that is laid out on the device, and what it is at.
pub(super) struct Worker {
    queue: Arc<Queue>,
    generator: Generator,
    prompter: Option<Prompter>,
    /// P: codes in a row.
    width: usize,
    /// In the order in which they were begun.
    active: Vec<Active>,
    in_flight: Vec<InFlight>,
    /// Drawn and not yet painted.
    drawn: VecDeque<Drawn>,
    next_ticket: u64,
    /// Steps of the next round.
    steps: usize,
    /// Up to when the busy time is counted.
    since: Instant,
    stats: Stats,
}

/// What a worker tells of itself when everything is laid out.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub backend: &'static str,
    /// The device, for people.
    pub device: String,
    /// Bytes of its own memory that the models and their buffers took.
    pub device_memory: Option<u64>,
    /// Pictures at once.
    pub places: usize,
    pub notes: Vec<String>,
}

/// A request that was begun.
struct Active {
    number: u64,
    request: Request,
    sampling: Sampling,
    /// By subject.
    given: Vec<Given>,
    reply: Reply,
    /// Pictures that were begun, and that are done.
    begun: usize,
    done: usize,
    /// When the first was begun, after its submission.
    begun_after: Duration,
    timings: Timings,
}

/// What the model is given of a subject.
struct Given {
    condition: Conditioning,
    /// See [`Image::prompt_cut`](super::Image::prompt_cut).
    prompt_cut: Option<Arc<str>>,
}

/// A picture in a place.
struct InFlight {
    ticket: u64,
    /// Its request's number.
    owner: u64,
    index: usize,
    /// Tokens that it was given steps for.
    asked: usize,
    /// Rows that were seen, previews that were painted.
    rows: usize,
    previews: usize,
    preview_due: bool,
}

struct Drawn {
    owner: u64,
    index: usize,
    codes: Vec<u32>,
}

impl Worker {
    /// Lays everything out.
    pub(super) fn new(
        queue: Arc<Queue>,
        executor: &dyn Executor,
        model: &Model,
        options: &SessionOptions,
    ) -> Result<(Self, About)> {
        if options.vq_precision == Some(Elem::F32) && executor.activations() == Elem::Bf16 {
            return Err(Error::Option {
                option: "vq-precision",
                value: "f32".into(),
                expected: "bf16, the CUDA kernels' type".into(),
                hint: "--device cpu computes in f32".into(),
            });
        }
        let images = if executor.runs_ahead() { 32 } else { 8 };
        let layout = generate::Layout {
            image_size: model.image_size(),
            precision: options.precision,
            vq_precision: options.vq_precision,
            batch_size: options.batch_size,
            images,
            lookahead: options.lookahead,
        };
        let used_before = executor.used_memory();
        let mut notes = Vec::new();
        let prompter = match (model.condition(), model.takes_prompts()) {
            (&Condition::Text { cls_token_num, caption_dim }, true) => {
                let own = match options.text_device.filter(|&device| device != options.device) {
                    Some(device) => {
                        let note = |note: &str| notes.push(note.to_string());
                        Some(device.open(options.threads, Some(options.precision), note)?)
                    }
                    None => None,
                };
                let executor = own.as_deref().unwrap_or(executor);
                model.prompter(executor, (cls_token_num, caption_dim), options.precision)?
            }
            _ => None,
        };
        let generator = Generator::new(executor, model.parts(), &layout)?;
        let places = generator.batch_size();
        let worker = Self {
            queue,
            generator,
            prompter,
            width: model.latent_size(),
            active: Vec::new(),
            in_flight: Vec::with_capacity(places),
            drawn: VecDeque::new(),
            next_ticket: 0,
            steps: 1,
            since: Instant::now(),
            stats: Stats { places, ..Stats::default() },
        };
        worker.queue.tell(&worker.stats);
        let used = executor.used_memory().zip(used_before);
        let device_memory = used.map(|(after, before)| after.saturating_sub(before));
        let (backend, device) = (executor.backend(), executor.describe());
        Ok((worker, About { backend, device, device_memory, places, notes }))
    }

    /// Draws until the queue says that it is over; an error is the device's, and the end of all requests.
    pub(super) fn run(&mut self) -> Result<()> {
        loop {
            let idle = self.active.is_empty();
            let state = if idle { self.queue.wait() } else { self.queue.state() };
            if let State::Ended(reason) = state {
                self.end(&reason);
                return Ok(());
            }
            self.since = Instant::now();
            self.leave(self.since);
            self.admit();
            if self.active.is_empty() {
                self.tell();
                if state == State::Draining && self.queue.stats().waiting == 0 {
                    return Ok(());
                }
                continue;
            }
            self.begin()?;
            self.draw()?;
            self.look()?;
            self.paint_next()?;
            self.collect()?;
            self.tell();
        }
    }

    /// Tells the figures as they are now.
    fn tell(&mut self) {
        let now = Instant::now();
        self.stats.busy += now - self.since;
        self.since = now;
        self.stats.running = self.active.len();
        self.stats.places_taken = self.in_flight.len();
        self.queue.tell(&self.stats);
    }

    /// Ends all requests that were begun.
    pub(super) fn end(&mut self, reason: &str) {
        for active in self.active.drain(..) {
            active.reply.done(Err(Error::Ended { reason: reason.into() }));
        }
    }

    /// Lets those go that were cancelled or are late.
    fn leave(&mut self, now: Instant) {
        for (waiting, why) in self.queue.take_ended(now) {
            waiting.reply.done(Err(why));
        }
        let ended = |active: &Active| Some((active.number, active.reply.ended(now)?));
        let ended: Vec<_> = self.active.iter().filter_map(ended).collect();
        for (number, why) in ended {
            self.drop_request(number, Err(why));
        }
    }

    /// Ends a request that was begun: its places are free.
    fn drop_request(&mut self, number: u64, result: Result<Timings>) {
        let (session, _) = self.generator.parts();
        self.in_flight.retain(|picture| {
            let stays = picture.owner != number;
            if !stays {
                session.drop_one(picture.ticket);
            }
            stays
        });
        self.drawn.retain(|drawn| drawn.owner != number);
        if let Some(at) = self.active.iter().position(|active| active.number == number) {
            // Whoever is told may look at the figures.
            let active = self.active.remove(at);
            self.tell();
            active.reply.done(result);
        }
    }

    /// Takes requests while places would stay free; at most one whose prompts must be encoded.
    fn admit(&mut self) {
        let mut encoded = false;
        loop {
            let unbegun: usize = self.active.iter().map(|active| active.request.images() - active.begun).sum();
            if encoded || self.generator.parts().0.free() <= unbegun {
                return;
            }
            let Some(Waiting { request, sampling, reply }) = self.queue.take() else { return };
            let mut timings = Timings { queued: reply.age(), ..Timings::default() };
            encoded = request.subjects.iter().any(|subject| matches!(subject, Subject::Prompt(_)));
            let started = Instant::now();
            let given = self.given(&request.subjects);
            if encoded {
                timings.encoding = started.elapsed();
                self.stats.encoding += timings.encoding;
            }
            match given {
                Ok(given) => {
                    let number = self.next_ticket;
                    self.next_ticket += 1;
                    let (begun, done, begun_after) = (0, 0, Duration::ZERO);
                    let active = Active { number, request, sampling, given, reply, begun, done, begun_after, timings };
                    self.active.push(active);
                }
                Err(error) => reply.done(Err(error)),
            }
        }
    }

    fn given(&mut self, subjects: &[Subject]) -> Result<Vec<Given>> {
        let mut prompts: Vec<&str> = Vec::new();
        for subject in subjects {
            if let Subject::Prompt(prompt) = subject {
                prompts.push(prompt);
            }
        }
        let mut encoded = match &mut self.prompter {
            Some(prompter) if !prompts.is_empty() => prompter.encode(&prompts)?.into_iter(),
            _ => Vec::new().into_iter(),
        };
        let given = |subject: &Subject| match subject {
            Subject::Class(class) => Given { condition: Conditioning::Class(*class), prompt_cut: None },
            Subject::Features(features) => Given { condition: Conditioning::Text(features.clone()), prompt_cut: None },
            Subject::Prompt(_) => {
                let prompt = encoded.next().expect("one a prompt");
                let prompt_cut = prompt.cut_at.map(|at| prompt.cleaned[at..].into());
                Given { condition: Conditioning::Text(prompt.features), prompt_cut }
            }
        };
        Ok(subjects.iter().map(given).collect())
    }

    /// Gives pictures places, in the order of the requests.
    fn begin(&mut self) -> Result<()> {
        let (session, _) = self.generator.parts();
        for active in &mut self.active {
            while active.begun < active.request.images() {
                let index = active.begun;
                let request = generate::Request {
                    condition: active.given[index / active.request.count].condition.clone(),
                    image: active.request.first_image + index as u64,
                    sampling: active.sampling,
                };
                let ticket = self.next_ticket;
                if !session.start(ticket, &request)? {
                    return Ok(());
                }
                self.next_ticket += 1;
                if index == 0 {
                    active.begun_after = active.reply.age();
                }
                active.begun += 1;
                let (owner, preview_due) = (active.number, false);
                let (asked, rows, previews) = (0, 0, 0);
                self.in_flight.push(InFlight { ticket, owner, index, asked, rows, previews, preview_due });
            }
        }
        Ok(())
    }
}
