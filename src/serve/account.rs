//! One request as it is counted.

use std::sync::Arc;
use std::time::Instant;

use super::app::App;
use super::metrics::Counted;
use crate::engine::Timings;

/// One request, counted once, however it ends: dropped without a word, its client was gone.
pub struct Account {
    pub app: Arc<App>,
    started: Instant,
    ended: bool,
}

impl Account {
    pub fn new(app: Arc<App>) -> Self {
        app.metrics.begin();
        Self { app, started: Instant::now(), ended: false }
    }

    /// What stands for an account that was handed on.
    pub fn told(app: Arc<App>) -> Self {
        Self { app, started: Instant::now(), ended: true }
    }

    pub fn end(&mut self, status: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.app.metrics.end(status);
        }
    }

    /// All its pictures were made.
    pub fn end_well(&mut self, timings: &Timings, images: usize, condition_tokens: usize) {
        self.end("ok");
        let model = &self.app.model;
        let counted = Counted {
            images,
            prompt_tokens: condition_tokens,
            generation_tokens: images * model.latent_size().pow(2),
            text: model.num_classes().is_none(),
        };
        self.app.metrics.observe_request(self.started.elapsed(), timings, counted);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end("cancelled");
    }
}
