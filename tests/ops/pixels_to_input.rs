//! Bytes to [-1, 1]. Rounding: one division, one subtraction, all 256 values.

use smalti::graph::ops::PixelsToInput;
use smalti::graph::{Elem, Extent, Graph, Per, Role};

use crate::common::compare;
use crate::harness::{Case, Random, U};

#[test]
fn matches_its_twin() {
    let extent = Extent { rows: 2, draws: 0 };
    let mut graph = Graph::new("pixels_to_input", extent);
    let op = PixelsToInput {
        x: graph.buffer("x", Elem::F32, Per::Row, &[128], Role::Scratch),
        pixels: graph.buffer("pixels", Elem::U8, Per::Row, &[128], Role::Input),
        len: 128,
    };
    let phase = graph.phase("encode");
    graph.push(phase, "pixels_to_input", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(1));
    case.fill(op.pixels, (0..256).map(|i| i as f32).collect());
    let found = case.values(&case.run_everywhere(), op.x);
    assert_eq!((found[0], found[255]), (-1.0, 1.0));
    compare("bytes", found, &case.twin().buffers[op.x.index()], |_| 3.0 * U);
}
