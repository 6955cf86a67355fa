//! Many requests on one device: continuous batching, and the types that a program embeds smalti by.
//!
//! [`Model`] is what was loaded, [`Session`] a device at work on it, [`Request`] what is asked of it, [`Job`] a
//! request on its way, [`Image`] what comes back. All of these are exported at the crate's root; the server and the
//! C interface are built on them alone.
//!
//! ```text
//! Session ──Request──▶ queue ──▶ worker: generate::Session steps, generate::Painter paints ──Event──▶ Job
//!  (any thread)       (bounded)  (one thread, owns the device)                                   (any thread)
//! ```
//!
//! Above the room of [`crate::generate`], whose [`Session`](crate::generate::Session) is the places and tables of
//! one plan and knows of no threads. Tested by `tests/engine`.

mod job;
mod model;
mod options;
mod queue;
mod request;
mod session;
mod worker;

pub use job::{Canceller, Job};
pub use model::{Model, ModelFiles};
pub use options::SessionOptions;
pub use queue::Stats;
pub use request::{Event, Image, Request, Subject, Timings};
pub use session::Session;
