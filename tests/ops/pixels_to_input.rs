//! Bytes to [-1, 1]. Rounding: one division, one subtraction, all 256 values;
//! on CUDA one more, to bf16.

use smalti::graph::ops::PixelsToInput;
use smalti::graph::{Elem, Extent, Graph, Per, Role};

use crate::common::compare;
use crate::harness::{Case, Random, U};

/// All 256 values in two images.
fn case(elem: Elem) -> (Case, PixelsToInput) {
    let extent = Extent { rows: 2, draws: 0 };
    let mut graph = Graph::new("pixels_to_input", extent);
    let op = PixelsToInput {
        x: graph.buffer("x", elem, Per::Row, &[128], Role::Scratch),
        pixels: graph.buffer("pixels", Elem::U8, Per::Row, &[128], Role::Input),
        len: 128,
    };
    let phase = graph.phase("encode");
    graph.push(phase, "pixels_to_input", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(1));
    case.fill(op.pixels, (0..256).map(|i| i as f32).collect());
    (case, op)
}

#[test]
fn matches_its_twin() {
    let (case, op) = case(Elem::F32);
    let found = case.values(&case.run_everywhere(), op.x);
    assert_eq!((found[0], found[255]), (-1.0, 1.0));
    compare("bytes", found, &case.twin().buffers[op.x.index()], |_| 3.0 * U);
}

#[test]
fn matches_its_twin_on_cuda() {
    for elem in [Elem::F32, Elem::Bf16] {
        let (case, op) = case(elem);
        let twin = case.twin();
        let expected = &twin.buffers[op.x.index()];
        for (device, left) in case.run_on_cuda() {
            let found = case.values(&left, op.x);
            assert_eq!((found[0], found[255]), (-1.0, 1.0));
            let last = if elem == Elem::Bf16 { 1.0 / 256.0 } else { 0.0 };
            compare(&format!("bytes on {device}"), found, expected, |i| 3.0 * U + last * expected[i].abs());
        }
    }
}
