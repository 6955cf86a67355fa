//! A plan's launches without a device: what would run, for people.

use super::device::{Capacity, Launch, Ptr};
use super::lower::{Lowering, lower};
use super::plan::bucket;
use crate::graph::{Extent, Graph, Op};

/// An op's launches at `extent` on a card of that capacity, or why there are none. Addresses are null.
pub fn launches(graph: &Graph, op: &Op, extent: Extent, capacity: Capacity) -> Result<Vec<Launch>, String> {
    let op = lower(op);
    op.check(graph)?;
    let buffers = vec![Ptr::NULL; graph.buffers().len()];
    let weights = vec![Ptr::NULL; graph.weights().len()];
    Ok(op.launches(&Lowering {
        graph,
        buffers: &buffers,
        weights: &weights,
        scratch: Ptr::NULL,
        counters: Ptr::NULL,
        extent: bucket(graph, extent),
        capacity,
    }))
}
