//! out = activation(weight · input). Rounding: the product's sum, which GELU passes on no larger than 1.13 times.

use smalti::graph::ops::{self, Activation};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, cuda_sum_error, largest_sum};

fn case(elem: Elem, activation: Activation, width: usize, depth: usize, rows: usize) -> (Case, ops::Linear) {
    case_of([elem, Elem::F32, Elem::F32], activation, width, depth, rows)
}

/// With the types of weight, input and out.
fn case_of(
    [elem, input, out]: [Elem; 3],
    activation: Activation,
    width: usize,
    depth: usize,
    rows: usize,
) -> (Case, ops::Linear) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("linear", extent);
    let op = ops::Linear {
        out: graph.buffer("out", out, Per::Row, &[width], Role::Scratch),
        input: graph.buffer("input", input, Per::Row, &[depth], Role::Scratch),
        weight: graph.weight("weight", elem, &[width, depth], Source::Tensor),
        width,
        depth,
        activation,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "linear", op.clone());
    let random = &mut Random::new((width * depth + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.input, random.normals(rows * depth).into_iter().map(|x| 3.0 * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    // The projector's true sizes for GPT-XL, and odd ones.
    for elem in [Elem::F32, Elem::Bf16] {
        for activation in [Activation::Identity, Activation::GeluTanh] {
            for (width, depth) in [(1280, 2048), (128, 48), (1, 1), (7, 33), (18, 111), (20, 300)] {
                // Passes of every height, alone and beside others: of what is quickly done.
                let more: &[usize] =
                    if width * depth < 10_000 { &[4, 5, 6, 7, 8, 9, 10, 11, 13, 16, 23, 29, 33] } else { &[] };
                for rows in ROW_COUNTS.iter().chain(more).copied() {
                    let (case, op) = case(elem, activation, width, depth, rows);
                    let (before, twin) = (case.twin_before(), case.twin());
                    let expected = &twin.buffers[op.out.index()];
                    let largest: Vec<f64> =
                        (0..rows).map(|r| largest_sum(&before, op.weight, before.row(op.input, r, depth))).collect();
                    let what = format!("{elem:?} {activation:?} ({width}, {depth}) x {rows}");
                    for (order, left) in case.run_in_each_order() {
                        compare(&format!("{what} {order:?}"), case.values(&left, op.out), expected, |i| {
                            // GELU itself: exp to 2 ulp, the exponent's roundings, a division.
                            1.13 * order.sum_error(depth, 0.0) * largest[i / width] + 8.0 * U * expected[i].abs()
                        });
                        case.check_rows_alone_in(order, &left, &[op.out]);
                    }
                }
            }
        }
    }
}

#[test]
fn an_identity_gives_the_input_and_its_gelu() {
    for (activation, expected) in [(Activation::Identity, -1.0), (Activation::GeluTanh, -0.158_808)] {
        let (mut case, op) = case(Elem::F32, activation, 20, 20, 2);
        case.weights[op.weight.index()] = (0..400).map(|i| if i / 20 == i % 20 { 1.0 } else { 0.0 }).collect();
        case.buffers[0].1.fill(-1.0);
        let left = case.run_everywhere();
        compare("gelu(-1)", case.values(&left, op.out), &[expected; 40], |_| 1e-6);
    }
}

/// What the two products of the projector are on CUDA, and what neither is.
const CUDA_FORMS: [(Activation, Elem); 4] = [
    (Activation::GeluTanh, Elem::Bf16),
    (Activation::Identity, Elem::F32),
    (Activation::GeluTanh, Elem::F32),
    (Activation::Identity, Elem::Bf16),
];

#[test]
fn matches_its_twin_on_cuda() {
    // The projector's widths for B, L and XL to the full depth; tails of a tile, of a step and of a slice.
    let sizes = [(64, 2048, 2), (768, 768, 3), (40, 1024, 9), (24, 1280, 3)];
    let odd = [(1, 8, 1), (17, 8, 3), (33, 40, 17), (130, 104, 33), (7, 264, 65), (31, 136, 129)];
    // Slices longer than a block holds at once.
    let long = [(144, 2304, 2), (288, 1280, 9), (288, 1280, 17)];
    for (i, (width, depth, rows)) in sizes.into_iter().chain(odd).chain(long).enumerate() {
        // Each size in two of the forms.
        for (activation, out) in [CUDA_FORMS[i % 4], CUDA_FORMS[(i + 1) % 4]] {
            let (case, op) = case_of([Elem::Bf16, Elem::Bf16, out], activation, width, depth, rows);
            let (before, twin) = (case.twin_before(), case.twin());
            let expected = &twin.buffers[op.out.index()];
            let largest: Vec<f64> =
                (0..rows).map(|r| largest_sum(&before, op.weight, before.row(op.input, r, depth))).collect();
            // Half of bf16's last place, up to 2^-8, for the store.
            let store = if out == Elem::Bf16 { 1.0 / 256.0 } else { 0.0 };
            for (place, left) in case.run_on_cuda() {
                let what = format!("{place} {activation:?} {out:?} ({width}, {depth}) x {rows}");
                compare(&what, case.values(&left, op.out), expected, |i| {
                    let computed = 1.13 * cuda_sum_error(depth) * largest[i / width];
                    computed + (store + 8.0 * U) * (expected[i].abs() + computed)
                });
            }
        }
    }
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (width, depth) in [(312, 104), (48, 768)] {
        for (i, rows) in [1, 2, 7, 15, 16, 31, 63, 255].into_iter().enumerate() {
            let (activation, out) = CUDA_FORMS[i % 2];
            let (case, op) = case_of([Elem::Bf16, Elem::Bf16, out], activation, width, depth, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                if rows < 32 || depth < 200 {
                    case.check_rows_alone_on_cuda(device, &left, &[op.out]);
                }
            }
        }
    }
}
