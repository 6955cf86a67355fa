//! out = rms_norm(x). Rounding: the squares' sum, the root, the division and two products.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, norm_roundings};

fn case(dim: usize, rows: usize, scale: f32) -> (Case, ops::NormRows) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_rows", extent);
    let op = ops::NormRows {
        out: graph.buffer("out", Elem::F32, Per::Row, &[dim], Role::Output),
        x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
        norm: graph.weight("norm.weight", Elem::F32, &[dim], Source::Tensor),
        dim,
        eps: 1e-6,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "norm_rows", op.clone());
    let random = &mut Random::new((dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * dim).into_iter().map(|x| scale * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for dim in [2048, 48, 111, 31, 1] {
        for (rows, scale) in ROW_COUNTS.into_iter().flat_map(|rows| [(rows, 1.0), (rows, 1e4)]) {
            let (case, op) = case(dim, rows, scale);
            let left = case.run_everywhere();
            let expected = case.twin().buffers[op.out.index()].clone();
            compare(&format!("{dim} x {rows} of {scale}"), case.values(&left, op.out), &expected, |i| {
                norm_roundings(dim) * U * expected[i].abs() + f64::MIN_POSITIVE
            });
            case.check_rows_alone(&left, &[op.out]);
        }
    }
}

#[test]
fn equal_channels_become_their_weights() {
    let (mut case, op) = case(64, 2, 1.0);
    case.buffers[0].1.fill(7.0);
    let weights: Vec<f64> = case.weights[op.norm.index()].iter().map(|&w| f64::from(w)).collect();
    let left = case.run_everywhere();
    compare("7s", case.values(&left, op.out), &[&weights[..], &weights].concat(), |i| 4.0 * U * weights[i % 64].abs());
}

/// Rounding of the CUDA kernel, in units of [`U`]: of the squares' sum, where a lane adds four for each step of one of
/// eight slices, then come the row's four lanes and the slices; of its mean, twice. The root halves these. Then the
/// root itself and two products.
fn cuda_roundings(dim: usize) -> f64 {
    let sum = dim.div_ceil(16).div_ceil(8) * 4 + 2 + 8;
    (sum + 2) as f64 / 2.0 + 3.0
}

#[test]
fn matches_its_twin_on_cuda() {
    for dim in [3200, 2056, 2048, 768, 48, 264, 8] {
        for (rows, scale) in [(1, 1.0), (2, 1e4), (9, 1.0), (33, 1.0)] {
            let (case, op) = case(dim, rows, scale);
            let expected = case.twin().buffers[op.out.index()].clone();
            for (place, left) in case.run_on_cuda() {
                compare(&format!("{place} {dim} x {rows} of {scale}"), case.values(&left, op.out), &expected, |i| {
                    cuda_roundings(dim) * U * expected[i].abs() + f64::MIN_POSITIVE
                });
                case.check_rows_alone_on_cuda(&place, &left, &[op.out]);
            }
        }
    }
}
