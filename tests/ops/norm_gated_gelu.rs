//! out = gelu(wi_0 · n) * (wi_1 · n). Rounding: both products' sums, each passed on by the other factor.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, WeightId, ops};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, cuda_normed_error, largest_sum, norm_roundings};

fn case(elem: Elem, hidden_dim: usize, dim: usize, rows: usize) -> (Case, ops::NormGatedGelu) {
    case_of(elem, Elem::F32, hidden_dim, dim, rows)
}

fn case_of(elem: Elem, out: Elem, hidden_dim: usize, dim: usize, rows: usize) -> (Case, ops::NormGatedGelu) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_gated_gelu", extent);
    let op = ops::NormGatedGelu {
        out: graph.buffer("out", out, Per::Row, &[hidden_dim], Role::Scratch),
        x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
        norm: graph.weight("layer_norm.weight", Elem::F32, &[dim], Source::Tensor),
        wi_0: graph.weight("wi_0.weight", elem, &[hidden_dim, dim], Source::Tensor),
        wi_1: graph.weight("wi_1.weight", elem, &[hidden_dim, dim], Source::Tensor),
        hidden_dim,
        dim,
        eps: 1e-6,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "norm_gated_gelu", op.clone());
    let random = &mut Random::new((hidden_dim + dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * dim).into_iter().map(|x| 5.0 * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (hidden_dim, dim) in [(1280, 512), (96, 48), (31, 33), (2, 16), (513, 128)] {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, hidden_dim, dim, rows);
                let (before, twin) = (case.twin_before(), case.twin());
                let sums: Vec<(f64, f64)> = (0..rows)
                    .map(|r| {
                        let x = before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps);
                        (largest_sum(&before, op.wi_0, &x), largest_sum(&before, op.wi_1, &x))
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
                            // |gelu'| ≤ 1.13 and |gelu(x)| ≤ |x|; exp is good to 2 ulp, division and product to one rounding.
                            let (gate, up) = sums[i / hidden_dim];
                            2.13 * product * gate * up + 8.0 * U * expected[i].abs()
                        },
                    );
                    case.check_rows_alone_in(order, &left, &[op.out]);
                }
            }
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    // T5-XL's width to the full depth, and smaller models'; tails of a tile, of a step and of a slice.
    let sizes = [(72, 2048, 2), (256, 512, 3), (72, 768, 9)];
    let odd = [(1, 8, 1), (17, 8, 3), (33, 40, 17), (130, 104, 33), (7, 264, 65), (31, 136, 129)];
    for (hidden_dim, dim, rows) in sizes.into_iter().chain(odd) {
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
                let ((gate, gate_error), (up, up_error)) = (of(op.wi_0), of(op.wi_1));
                // |gelu'| ≤ 1.13 and |gelu(x)| ≤ |x|; then half of bf16's last place, up to 2^-8, for the store.
                let computed = 1.13 * gate_error * (up.abs() + up_error) + gate.abs() * up_error;
                computed + (1.0 / 256.0 + 8.0 * U) * (expected[i].abs() + computed)
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
