//! What a session is started with.

use crate::backend::Device;
use crate::generate::Lookahead;
use crate::graph::Elem;

/// Where and how a session runs.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    pub device: Device,
    /// Where a text model's encoder runs; by default where all else does.
    pub text_device: Option<Device>,
    /// CPU threads, one per core for 0.
    pub threads: usize,
    /// What the transformer's weights and cache are held as: [`Elem::Bf16`] or [`Elem::F32`].
    pub precision: Elem,
    /// What the VQ decoder multiplies; by default the device's own type.
    pub vq_precision: Option<Elem>,
    /// Pictures at once; by default 8 on a CPU and 32 on a GPU, or as many as memory holds.
    pub batch_size: Option<usize>,
    /// Requests that may wait; another one is [`Error::Busy`](crate::Error::Busy).
    pub queue: usize,
    /// Rows per sequence of a pass while few pictures are drawn; changes how long they take and nothing else.
    pub lookahead: Lookahead,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            text_device: None,
            threads: 0,
            precision: Elem::Bf16,
            vq_precision: None,
            batch_size: None,
            queue: 64,
            lookahead: Lookahead::Auto,
        }
    }
}
