//! An executor that says how much memory is free.

use std::sync::Arc;

use smalti::Error;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::Checkpoint;
use smalti::graph::{Elem, Graph};

/// An executor, and the bytes that it says are free.
pub struct Small<E>(pub E, pub u64);

impl<E: Executor> Executor for Small<E> {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn activations(&self) -> Elem {
        self.0.activations()
    }

    fn free_memory(&self) -> u64 {
        self.1
    }

    fn runs_ahead(&self) -> bool {
        self.0.runs_ahead()
    }

    fn plan(&self, graph: Arc<Graph>, checkpoint: &Checkpoint) -> Result<Box<dyn Plan>, Error> {
        self.0.plan(graph, checkpoint)
    }
}
