//! Mean and 1 / standard deviation of every group.
//!
//! Rounding: a run of 32 pixels is summed in f32 around its own mean, 33 roundings at most, relative to how far
//! its values lie from that mean (the mean's own error is corrected); all else is f64, and the results are
//! rounded once. On CUDA all is f32, see `check_on_cuda`.

use smalti::graph::ops::{GROUPS, GroupNormStats};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, Random, U};

fn case(pixels: usize, channels: usize, images: usize, value: impl FnMut(usize) -> f32) -> (Case, GroupNormStats) {
    case_of(Elem::F32, pixels, channels, images, value)
}

fn case_of(
    elem: Elem,
    pixels: usize,
    channels: usize,
    images: usize,
    value: impl FnMut(usize) -> f32,
) -> (Case, GroupNormStats) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("group_norm_stats", extent);
    let op = GroupNormStats {
        stats: graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch),
        x: graph.buffer("x", elem, Per::Row, &[pixels, channels], Role::Scratch),
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

/// Three chains of f32 sums follow one another: a thread's own pixels, at most 8192 / 256 or pixels / (256 * 256 / C)
/// of eight channels, what the threads found, and what the blocks found, an eighth of each. A sum of n terms errs by
/// n U times what they are in all: distances from a value of the same channel, twice the deviation on average for
/// the mean, and twice the variance for their squares; the square root halves that. Partial means, which enter the
/// squares as distances within a deviation, are rounded by U |mean|. Then a few roundings of the results.
fn check_on_cuda(what: &str, case: &Case, op: &GroupNormStats) {
    let twin = case.twin();
    let expected = &twin.buffers[op.stats.index()];
    let lanes = 2048 / op.channels;
    let chunk = (8192 / op.channels).max(op.pixels.div_ceil(256));
    let depth = (chunk.div_ceil(lanes) + lanes * op.channels / 32 / 8 + op.pixels.div_ceil(chunk) / 8 + 6) as f64;
    for (device, left) in case.run_on_cuda() {
        compare(&format!("{what} on {device}"), case.values(&left, op.stats), expected, |i| {
            let (mean, rstd) = (expected[i / 2 * 2].abs(), expected[i / 2 * 2 + 1]);
            if i % 2 == 0 {
                2.0 * depth * U / rstd + 3.0 * U * mean
            } else {
                (depth + 4.0 + 2.0 * mean * rstd) * U * rstd
            }
        });
        if case.extent.rows > 1 && device == "simt" {
            case.check_rows_alone_on_cuda(&left, &[op.stats]);
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (channels, pixels) in
            [(32, 1), (32, 2), (64, 33), (96, 300), (128, 1025), (256, 77), (512, 100), (512, 17), (2048, 9)]
        {
            let random = &mut Random::new((channels * pixels) as u64);
            let (case, op) = case_of(elem, pixels, channels, 3, |_| random.normal());
            check_on_cuda(&format!("{pixels} pixels of {channels}"), &case, &op);
        }
    }
}

#[test]
fn a_large_mean_costs_the_variance_nothing_on_cuda() {
    let random = &mut Random::new(5);
    let (case, op) = case(2048, 32, 1, |_| 1000.0 + random.normal());
    check_on_cuda("mean 1000", &case, &op);
}

#[test]
fn a_constant_has_no_variance_on_cuda() {
    for elem in [Elem::F32, Elem::Bf16] {
        let (case, op) = case_of(elem, 100, 64, 1, |_| 3.0);
        for (_, left) in case.run_on_cuda() {
            for pair in case.values(&left, op.stats).chunks_exact(2) {
                assert_eq!(pair, [3.0, f64::from(1e3f32)]);
            }
        }
    }
}
