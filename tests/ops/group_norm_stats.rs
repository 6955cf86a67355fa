//! Mean and 1 / standard deviation of every group.
//!
//! Rounding: a run of 32 pixels is summed in f32 around its own mean, 33 roundings at most, relative to how far
//! its values lie from that mean (the mean's own error is corrected); all else is f64, and the results are
//! rounded once.

use smalti::graph::ops::{GROUPS, GroupNormStats};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, Random, U};

fn case(pixels: usize, channels: usize, images: usize, value: impl FnMut(usize) -> f32) -> (Case, GroupNormStats) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("group_norm_stats", extent);
    let op = GroupNormStats {
        stats: graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch),
        x: graph.buffer("x", Elem::F32, Per::Row, &[pixels, channels], Role::Scratch),
        pixels,
        channels,
        eps: 1e-6,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("decode");
    graph.push(phase, "group_norm_stats", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(1));
    case.fill(op.x, (0..images * pixels * channels).map(value).collect());
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

fn check(what: &str, case: &Case, op: &GroupNormStats) {
    let (left, twin) = (case.run_everywhere(), case.twin());
    let expected = &twin.buffers[op.stats.index()];
    compare(what, case.values(&left, op.stats), expected, |i| {
        let (mean, rstd) = (expected[i / 2 * 2].abs(), expected[i / 2 * 2 + 1]);
        if i % 2 == 0 { 33.0 * U / rstd + U * mean } else { (33.0 / 2.0 + 1.0) * U * rstd }
    });
    if case.extent.rows > 1 {
        case.check_rows_alone(&left, &[op.stats]);
    }
}

#[test]
fn matches_its_twin() {
    for channels in [32, 64, 128, 512] {
        for pixels in [1, 2, 31, 33, 256, 1025, 3000] {
            let random = &mut Random::new((channels * pixels) as u64);
            let (case, op) = case(pixels, channels, 2, |_| random.normal());
            check(&format!("{pixels} pixels of {channels}"), &case, &op);
        }
    }
}

#[test]
fn a_large_mean_costs_the_variance_nothing() {
    let random = &mut Random::new(5);
    let (case, op) = case(2048, 32, 1, |_| 1000.0 + random.normal());
    check("mean 1000", &case, &op);
}

#[test]
fn a_constant_has_no_variance() {
    let (case, op) = case(100, 64, 1, |_| 3.0);
    let found = case.values(&case.run_everywhere(), op.stats);
    for pair in found.chunks_exact(2) {
        assert_eq!(pair, [3.0, f64::from(1e3f32)]);
    }
}
