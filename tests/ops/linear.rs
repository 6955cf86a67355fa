//! out = activation(weight · input). Rounding: the product's sum, which GELU passes on no larger than 1.13 times.

use smalti::graph::ops::{self, Activation};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, largest_sum, sum_error};

fn case(elem: Elem, activation: Activation, width: usize, depth: usize, rows: usize) -> (Case, ops::Linear) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("linear", extent);
    let op = ops::Linear {
        out: graph.buffer("out", Elem::F32, Per::Row, &[width], Role::Scratch),
        input: graph.buffer("input", Elem::F32, Per::Row, &[depth], Role::Scratch),
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
            for (width, depth) in [(1280, 2048), (128, 48), (1, 1), (7, 33), (18, 111)] {
                for rows in ROW_COUNTS {
                    let (case, op) = case(elem, activation, width, depth, rows);
                    let (left, before, twin) = (case.run_everywhere(), case.twin_before(), case.twin());
                    let expected = &twin.buffers[op.out.index()];
                    let largest: Vec<f64> =
                        (0..rows).map(|r| largest_sum(&before, op.weight, before.row(op.input, r, depth))).collect();
                    let what = format!("{elem:?} {activation:?} ({width}, {depth}) x {rows}");
                    compare(&what, case.values(&left, op.out), expected, |i| {
                        // GELU itself: exp to 2 ulp, the exponent's roundings, a division.
                        1.13 * sum_error(depth, 0.0) * largest[i / width] + 8.0 * U * expected[i].abs()
                    });
                    case.check_rows_alone(&left, &[op.out]);
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
