//! Mean and 1 / standard deviation of every group.
//!
//! Rounding: on the CPU all is f64, and the results are rounded once. On CUDA all is f32, see `check_on_cuda`.

use smalti::graph::ops::{GROUPS, GroupNormStats, Patches};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, Random, U};

/// Moments of `mean` and `variance`, one after the other.
fn case(
    patches: Patches,
    channels: usize,
    images: usize,
    mut mean: impl FnMut() -> f32,
    mut variance: impl FnMut() -> f32,
) -> (Case, GroupNormStats) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("group_norm_stats", extent);
    let shape = [patches.count(), channels, 2];
    let op = GroupNormStats {
        stats: graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch),
        moments: graph.buffer("moments", Elem::F32, Per::Row, &shape, Role::Scratch),
        patches,
        channels,
        eps: 1e-6,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("decode");
    graph.push(phase, "group_norm_stats", op.clone());
    let mut case = Case::new(graph, phase, extent, &mut Random::new(1));
    case.fill(op.moments, (0..images * patches.count() * channels).flat_map(|_| [mean(), variance()]).collect());
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

fn random(patches: Patches, channels: usize, images: usize, mean: f32) -> (Case, GroupNormStats) {
    let seed = (channels * patches.pixels()) as u64;
    let (mut means, mut variances) = (Random::new(seed), Random::new(seed + 1));
    case(patches, channels, images, || mean + means.normal(), || 0.5 + variances.uniform())
}

const SIZES: [(usize, usize); 6] = [(1, 1), (2, 16), (3, 17), (5, 40), (24, 24), (33, 70)];

fn check(what: &str, case: &Case, op: &GroupNormStats) {
    let (left, twin) = (case.run_everywhere(), case.twin());
    let expected = &twin.buffers[op.stats.index()];
    compare(what, case.values(&left, op.stats), expected, |i| 1.01 * U * expected[i].abs());
    if case.extent.rows > 1 {
        case.check_rows_alone(&left, &[op.stats]);
    }
}

#[test]
fn matches_its_twin() {
    for channels in [32, 64, 128, 512] {
        for size in SIZES {
            for repeat in [1, 2] {
                let (case, op) = random(Patches { size, repeat }, channels, 2, 0.0);
                check(&format!("{size:?} in {repeat}, {channels} channels"), &case, &op);
            }
        }
    }
}

#[test]
fn a_large_mean_costs_the_variance_nothing() {
    let (case, op) = random(Patches { size: (32, 64), repeat: 1 }, 32, 1, 1000.0);
    check("mean 1000", &case, &op);
}

#[test]
fn a_constant_has_no_variance() {
    let (case, op) = case(Patches { size: (10, 10), repeat: 1 }, 64, 1, || 3.0, || 0.0);
    let found = case.values(&case.run_everywhere(), op.stats);
    for pair in found.chunks_exact(2) {
        assert_eq!(pair, [3.0, f64::from(1e3f32)]);
    }
}

/// Three chains of f32 sums follow one another: a thread's own patches of eight channels, what the threads found, and
/// what the blocks found, an eighth of each. A sum of n terms errs by n U times what they are in all: distances
/// from a mean of the same channel, twice the deviation on average for the mean, and twice the variance for their
/// squares; the square root halves that. Partial means, which enter the squares as distances within a deviation, are
/// rounded by U |mean|. Then a few roundings of the results.
fn check_on_cuda(what: &str, case: &Case, op: &GroupNormStats) {
    let twin = case.twin();
    let expected = &twin.buffers[op.stats.index()];
    let (lanes, patches) = (2048 / op.channels, op.patches.count());
    let chunk = (4096 / op.channels).max(patches.div_ceil(256)).max(1);
    let depth = (chunk.div_ceil(lanes) + lanes * op.channels / 32 / 8 + patches.div_ceil(chunk) / 8 + 6) as f64;
    for (device, left) in case.run_on_cuda() {
        compare(&format!("{what} on {device}"), case.values(&left, op.stats), expected, |i| {
            let (mean, rstd) = (expected[i / 2 * 2].abs(), expected[i / 2 * 2 + 1]);
            if i % 2 == 0 {
                2.0 * depth * U / rstd + 3.0 * U * mean
            } else {
                (depth + 4.0 + 2.0 * mean * rstd) * U * rstd
            }
        });
        if case.extent.rows > 1 {
            case.check_rows_alone_on_cuda(&device, &left, &[op.stats]);
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    for (channels, sizes) in
        [(32, &SIZES[..]), (96, &SIZES[2..4]), (128, &SIZES[4..]), (512, &SIZES[1..5]), (2048, &SIZES[3..4])]
    {
        for &size in sizes {
            for repeat in [1, 2] {
                let (case, op) = random(Patches { size, repeat }, channels, 3, 0.0);
                check_on_cuda(&format!("{size:?} in {repeat}, {channels} channels"), &case, &op);
            }
        }
    }
}

#[test]
fn a_large_mean_costs_the_variance_nothing_on_cuda() {
    let (case, op) = random(Patches { size: (32, 64), repeat: 1 }, 32, 1, 1000.0);
    check_on_cuda("mean 1000", &case, &op);
}

#[test]
fn a_constant_has_no_variance_on_cuda() {
    let (case, op) = case(Patches { size: (10, 10), repeat: 1 }, 64, 1, || 3.0, || 0.0);
    for (_, left) in case.run_on_cuda() {
        for pair in case.values(&left, op.stats).chunks_exact(2) {
            assert_eq!(pair, [3.0, f64::from(1e3f32)]);
        }
    }
}
