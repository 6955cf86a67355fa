//! out = silu(w1 · n) * (w3 · n). Rounding: both products' sums, each passed on by the other factor.

use smalti::backend::cpu::CpuExecutor;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, WeightId, ops};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, cuda_normed_error, largest_sum, norm_roundings};

fn case(elem: Elem, hidden_dim: usize, dim: usize, rows: usize) -> (Case, ops::NormSwiglu) {
    case_of(elem, Elem::F32, hidden_dim, dim, rows)
}

fn case_of(elem: Elem, out: Elem, hidden_dim: usize, dim: usize, rows: usize) -> (Case, ops::NormSwiglu) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_swiglu", extent);
    let op = ops::NormSwiglu {
        out: graph.buffer("out", out, Per::Row, &[hidden_dim], Role::Scratch),
        x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
        norm: graph.weight("ffn_norm.weight", Elem::F32, &[dim], Source::Tensor),
        w1: graph.weight("w1.weight", elem, &[hidden_dim, dim], Source::Tensor),
        w3: graph.weight("w3.weight", elem, &[hidden_dim, dim], Source::Tensor),
        hidden_dim,
        dim,
        eps: 1e-5,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "norm_swiglu", op.clone());
    let random = &mut Random::new((hidden_dim + dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * dim).into_iter().map(|x| 5.0 * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (hidden_dim, dim) in [(2048, 768), (768, 200), (31, 33), (2, 16), (513, 128)] {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, hidden_dim, dim, rows);
                let (before, twin) = (case.twin_before(), case.twin());
                let sums: Vec<(f64, f64)> = (0..rows)
                    .map(|r| {
                        let x = before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps);
                        (largest_sum(&before, op.w1, &x), largest_sum(&before, op.w3, &x))
                    })
                    .collect();
                let expected = &twin.buffers[op.out.index()];
                for (order, left) in case.run_in_each_order() {
                    let product = order.sum_error(dim, norm_roundings(dim));
                    compare(
                        &format!("{elem:?} ({hidden_dim}, {dim}) x {rows} {order:?}"),
                        case.values(&left, op.out),
                        expected,
                        |i| {
                            // |silu'| ≤ 1.1 and |silu(x)| ≤ |x|; exp is good to 2 ulp, division and product to one rounding.
                            let (gate, up) = sums[i / hidden_dim];
                            2.1 * product * gate * up + 8.0 * U * expected[i].abs()
                        },
                    );
                    case.check_rows_alone_in(order, &left, &[op.out]);
                }
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_who_prepares_them() {
    // Sixteen rows: every one of two members prepares all for itself, of three a few for all.
    for elem in [Elem::F32, Elem::Bf16] {
        let (case, op) = case(elem, 70, 111, 16);
        for (order, left) in case.run_in_each_order() {
            case.check_rows_alone_in(order, &left, &[op.out]);
            for isa in order.instruction_sets() {
                let shared = case.run(&CpuExecutor::with_isa(3, isa));
                assert_eq!(case.values(&shared, op.out), case.values(&left, op.out), "{elem:?}, {isa:?}");
            }
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    // The widths of B, L, XL and 3B to the full depth; tails of a tile, of a step and of a slice.
    let sizes = [(256, 768, 2), (72, 1024, 9), (72, 1280, 3), (32, 3200, 2)];
    let odd = [(1, 8, 1), (17, 8, 3), (33, 40, 17), (130, 104, 33), (7, 264, 65), (31, 136, 129)];
    // More groups of columns than there is room for blocks, and slices longer than a block holds at once.
    let groups = [(144, 1288, 2), (144, 1288, 9)];
    for (hidden_dim, dim, rows) in sizes.into_iter().chain(odd).chain(groups) {
        let (case, op) = case_of(Elem::Bf16, Elem::Bf16, hidden_dim, dim, rows);
        let (before, twin) = (case.twin_before(), case.twin());
        let normed: Vec<Vec<f64>> =
            (0..rows).map(|r| before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps)).collect();
        let expected = &twin.buffers[op.out.index()];
        for (place, left) in case.run_on_cuda() {
            let what = format!("{place} ({hidden_dim}, {dim}) x {rows}");
            compare(&what, case.values(&left, op.out), expected, |i| {
                let y = &normed[i / hidden_dim];
                let of = |weight: WeightId| {
                    let row = &before.weights[weight.index()][i % hidden_dim * dim..][..dim];
                    (row.iter().zip(y).map(|(w, y)| w * y).sum::<f64>(), cuda_normed_error(row, y))
                };
                let ((gate, gate_error), (up, up_error)) = (of(op.w1), of(op.w3));
                // |silu'| ≤ 1.1 and |silu(x)| ≤ |x|; then half a unit of bf16's eight bits for the store.
                let computed = 1.1 * gate_error * (up.abs() + up_error) + gate.abs() * up_error;
                computed + (1.0 / 512.0 + 8.0 * U) * (expected[i].abs() + computed)
            });
        }
    }
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (hidden_dim, dim) in [(156, 104), (24, 768)] {
        for rows in [1, 2, 7, 15, 16, 31, 63, 255] {
            let (case, op) = case_of(Elem::Bf16, Elem::Bf16, hidden_dim, dim, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                if rows < 32 || dim < 200 {
                    case.check_rows_alone_on_cuda(device, &left, &[op.out]);
                }
            }
        }
    }
}
