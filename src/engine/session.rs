//! The handle of an engine: starts its thread, hands requests over, ends it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use super::job::{Canceller, Job, Reply};
use super::model::Model;
use super::options::SessionOptions;
use super::queue::{Queue, State, Stats, Waiting};
use super::request::{Event, Image, Request, Subject};
use super::worker::{About, Worker};
use crate::backend::Executor;
use crate::config::Condition;
use crate::generate::Conditioning;
use crate::{Error, Result};

/// A model at work on a device: requests join the pictures that are being drawn at the next step, and leave when
/// they are done. What a request gets does not depend on its company.
///
/// One thread owns the device; the handle is `Send` and `Sync`, and all its functions may be called from anywhere,
/// but for [`Session::wait_ended`] from a receiver of events too. There is no global state: several sessions live side
/// by side. Dropping the handle ends all requests with [`Error::Ended`] and waits for the thread; [`Session::drain`] lets
/// them be done first.
///
/// ```
/// use smalti::{Event, Model, ModelFiles, Request, Session, SessionOptions};
///
/// let mut files = ModelFiles::new("tests/golden/c2i/gpt.pt", "tests/golden/vq16/vq.pt");
/// files.image_size = Some(64);
/// let session = Session::start(&Model::open(&files)?, &SessionOptions::default())?;
///
/// // One picture, and nothing else meanwhile.
/// let images = session.draw(Request::class(7))?;
/// assert_eq!(images[0].picture.width(), 64);
///
/// // Two requests at once, one with progress, the other given up.
/// let mut request = Request::class(3);
/// request.count = 2;
/// let job = session.submit(request)?;
/// let other = session.submit(Request::class(4))?;
/// other.cancel();
/// let mut images = 0;
/// for event in job {
///     match event {
///         Event::Rows { index, rows } => println!("picture {index}: {rows} of 4 rows"),
///         Event::Image(image) => images += usize::from(!image.png(&[])?.is_empty()),
///         Event::Done(result) => println!("all within {:?}", result?.total),
///         _ => {}
///     }
/// }
/// assert_eq!(images, 2);
/// # Ok::<(), smalti::Error>(())
/// ```
pub struct Session {
    queue: Arc<Queue>,
    model: Model,
    thread: Mutex<Option<JoinHandle<()>>>,
    about: About,
}

impl Session {
    /// Opens the device and lays the model out on it; returns when requests can be drawn.
    ///
    /// # Errors
    ///
    /// When the device cannot be used, weights are missing, or memory does not hold it.
    pub fn start(model: &Model, options: &SessionOptions) -> Result<Self> {
        let (device, threads, precision) = (options.device, options.threads, options.precision);
        Self::with(model, options, move |notes| {
            device.open(threads, Some(precision), |note| notes.push(note.to_string()))
        })
    }

    /// As [`Session::start`], on a device that is open; `options.device` and `options.threads` are for the text
    /// encoder alone.
    pub fn on(executor: Box<dyn Executor>, model: &Model, options: &SessionOptions) -> Result<Self> {
        Self::with(model, options, move |_| Ok(executor))
    }

    fn with(
        model: &Model,
        options: &SessionOptions,
        open: impl FnOnce(&mut Vec<String>) -> Result<Box<dyn Executor>> + Send + 'static,
    ) -> Result<Self> {
        for (option, value) in [("batch-size", options.batch_size), ("queue", Some(options.queue))] {
            if value == Some(0) {
                let expected = "1 or more".into();
                return Err(Error::Option { option, value: "0".into(), expected, hint: String::new() });
            }
        }
        let queue = Arc::new(Queue::new(options.queue));
        let (ready, is_ready) = mpsc::channel();
        let own = (queue.clone(), model.clone(), options.clone());
        // Everything of the device is made and dropped on this one thread.
        let run = move || {
            let (queue, model, options) = own;
            let _end = EndAtPanic(queue.clone());
            let mut notes = Vec::new();
            let made = open(&mut notes).and_then(|executor| Worker::new(queue.clone(), &*executor, &model, &options));
            let mut worker = match made {
                Ok((worker, mut about)) => {
                    about.notes.splice(..0, notes);
                    drop(ready.send(Ok(about)));
                    worker
                }
                Err(error) => return drop(ready.send(Err(error))),
            };
            if let Err(error) = worker.run() {
                queue.fail(&error.to_string());
                worker.end(&error.to_string());
            }
        };
        let thread = std::thread::Builder::new().name("smalti-engine".into()).spawn(run);
        let thread = thread.map_err(Error::io("start", "the engine's thread"))?;
        let about = match is_ready.recv() {
            Ok(about) => about?,
            Err(_) => return Err(Error::Ended { reason: FAILED.into() }),
        };
        Ok(Self { queue, model: model.clone(), thread: Mutex::new(Some(thread)), about })
    }

    /// Submits a request.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when as many wait as may, [`Error::Ended`] after [`Session::drain`] or when the device
    /// failed, and what is wrong with the request itself; all at once, before anything is drawn.
    pub fn submit(&self, request: Request) -> Result<Job> {
        let (send, events) = mpsc::channel();
        // Whoever has dropped the job does not listen.
        let canceller = self.submit_to(request, move |event| drop(send.send(event)))?;
        Ok(Job { events, canceller, done: false })
    }

    /// Submits a request whose events are handed to `receiver`, on the engine's thread: it must not take long, as
    /// nothing is drawn meanwhile. One that panics gets no further events, and its request is cancelled.
    pub fn submit_to(&self, request: Request, receiver: impl FnMut(Event) + Send + 'static) -> Result<Canceller> {
        request.check()?;
        let config = &self.model.parts().gpt_config;
        request.subjects.iter().try_for_each(|subject| self.check(subject))?;
        let sampling = self.model.options(&request.options).validate(config.vocab_size)?;
        let canceller = Canceller(Arc::new(AtomicBool::new(false)));
        let reply = Reply::new(Box::new(receiver), canceller.clone(), request.deadline);
        self.queue.put(Waiting { request, sampling, reply })?;
        Ok(canceller)
    }

    /// Draws a request's pictures and waits for them.
    pub fn draw(&self, request: Request) -> Result<Vec<Image>> {
        self.submit(request)?.wait()
    }

    /// Takes no more requests, and waits until those are done that were taken.
    pub fn drain(&self) {
        self.queue.drain();
        self.join();
    }

    /// Ends all requests with [`Error::Ended`] and waits for the thread; dropping the session does the same.
    pub fn close(&self) {
        self.queue.end("it was closed");
        self.join();
    }

    /// Why it draws no more, if so.
    pub fn ended(&self) -> Option<String> {
        match self.queue.state() {
            State::Open => None,
            State::Draining => Some("it takes no more requests".into()),
            State::Ended(reason) => Some(reason),
        }
    }

    /// Waits until it takes and draws nothing more. Not from a receiver of events: there it would wait for itself.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] when it ended though it was neither drained nor closed: the device failed.
    pub fn wait_ended(&self) -> Result<()> {
        self.queue.wait_ended()
    }

    /// What it has done by now, and is doing.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// What it draws.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device's kind in a word: `cpu`, `cuda`.
    pub fn backend(&self) -> &'static str {
        self.about.backend
    }

    /// The device, for people.
    pub fn device(&self) -> &str {
        &self.about.device
    }

    /// Bytes of the device's own memory that the models and their buffers took, a text encoder on it included; `None`
    /// where its memory is the host's.
    pub fn device_memory(&self) -> Option<u64> {
        self.about.device_memory
    }

    /// Pictures at once.
    pub fn batch_size(&self) -> usize {
        self.about.places
    }

    /// Lines for the user about how the device was chosen.
    pub fn notes(&self) -> &[String] {
        &self.about.notes
    }

    fn check(&self, subject: &Subject) -> Result<()> {
        let config = &self.model.parts().gpt_config;
        match subject {
            Subject::Class(class) => Conditioning::Class(*class).check(config),
            Subject::Features(features) => Conditioning::Text(features.clone()).check(config),
            Subject::Prompt(prompt) => match config.condition {
                Condition::Class { .. } => Err(Error::Option {
                    option: "prompt",
                    value: prompt.chars().take(30).collect(),
                    expected: "a class: the model is class-conditional (c2i)".into(),
                    hint: String::new(),
                }),
                Condition::Text { .. } if !self.model.takes_prompts() => Err(Error::Option {
                    option: "t5-path",
                    value: "(missing)".into(),
                    expected: "the folder of a T5 encoder, for prompts".into(),
                    hint: "LlamaGen's text models were trained with flan-t5-xl".into(),
                }),
                Condition::Text { .. } => Ok(()),
            },
        }
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A receiver that drops the session runs on the thread itself, which ends by itself then.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // How it ended, its requests were told.
            drop(thread.join());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why a session ends that was not asked to.
const FAILED: &str = "its engine failed";

/// However the thread ends, nothing waits for it any longer.
struct EndAtPanic(Arc<Queue>);

impl Drop for EndAtPanic {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => self.0.fail(FAILED),
            false => self.0.end("it was drained"),
        }
    }
}
