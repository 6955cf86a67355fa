//! A bar on a terminal, plain lines elsewhere, nothing when quiet.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::generate::Progress;

/// Shows how far a generation is, on standard error.
pub struct Display {
    kind: Kind,
    started: Cell<Instant>,
}

enum Kind {
    Quiet,
    Bar(ProgressBar),
    Lines { last: Cell<Instant>, images_done: Cell<usize> },
}

/// Time between plain lines while no picture gets done.
const EVERY: Duration = Duration::from_secs(10);

impl Display {
    pub fn new(quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Quiet
        } else if std::io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template("{bar:32} {pos}/{len} tokens, {msg}, {eta} left").expect("a template");
            Kind::Bar(ProgressBar::no_length().with_style(style))
        } else {
            Kind::Lines { last: Cell::new(Instant::now()), images_done: Cell::new(0) }
        };
        Self { kind, started: Cell::new(Instant::now()) }
    }

    /// A line of its own, above the bar.
    pub fn say(&self, line: &str) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => bar.println(line),
            Kind::Lines { .. } => eprintln!("{line}"),
        }
    }

    /// Something that the user should know and that is no failure.
    pub fn note(&self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    /// Does something that writes to the terminal itself, without the bar in its way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.kind {
            Kind::Bar(bar) => bar.suspend(write),
            Kind::Quiet | Kind::Lines { .. } => write(),
        }
    }

    /// Rates count from here on.
    pub fn start(&self) {
        self.started.set(Instant::now());
    }

    /// Every few tokens.
    pub fn step(&self, progress: Progress) {
        let rate = progress.tokens_done as f64 / self.started.get().elapsed().as_secs_f64().max(1e-9);
        let Progress { images_done, images, tokens_done, tokens } = progress;
        let text = format!("{images_done}/{images} images, {rate:.1} tokens/s");
        match &self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                bar.set_length(tokens as u64);
                bar.set_position(tokens_done as u64);
                bar.set_message(text);
            }
            Kind::Lines { last, images_done: told } => {
                if images_done > told.get() || last.get().elapsed() >= EVERY {
                    eprintln!("{tokens_done}/{tokens} tokens, {text}");
                    last.set(Instant::now());
                    told.set(images_done);
                }
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}
