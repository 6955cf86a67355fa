//! out = some rows of weight · rms_norm(x). Rounding: the norm's and the product's sum.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, cuda_normed_error, largest_sum, norm_roundings};

fn case(elem: Elem, (first, width, of): (usize, usize, usize), depth: usize, rows: usize) -> (Case, ops::NormLinear) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_linear", extent);
    let op = ops::NormLinear {
        out: graph.buffer("out", Elem::F32, Per::Row, &[width], Role::Scratch),
        x: graph.buffer("x", Elem::F32, Per::Row, &[depth], Role::Scratch),
        norm: graph.weight("norm.weight", Elem::F32, &[depth], Source::Tensor),
        weight: graph.weight("weight", elem, &[of, depth], Source::Tensor),
        first,
        width,
        depth,
        eps: 1e-6,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "norm_linear", op.clone());
    let random = &mut Random::new((first + width * depth + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * depth).into_iter().map(|x| 5.0 * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    // v of GPT-B's wqkv, T5-XL's q, the golden models', and odd ones.
    let sizes = [
        ((1536, 768, 2304), 768),
        ((0, 2048, 2048), 2048),
        ((0, 48, 48), 48),
        ((5, 7, 13), 33),
        ((20, 60, 100), 48),
        ((1, 1, 2), 1),
    ];
    for elem in [Elem::F32, Elem::Bf16] {
        for (part, depth) in sizes {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, part, depth, rows);
                let (before, twin) = (case.twin_before(), case.twin());
                let largest: Vec<f64> = (0..rows)
                    .map(|r| {
                        largest_sum(&before, op.weight, &before.rms_norm(op.norm, before.row(op.x, r, depth), op.eps))
                    })
                    .collect();
                for (order, left) in case.run_in_each_order() {
                    let what = format!("{elem:?} {part:?} of {depth} x {rows} {order:?}");
                    compare(&what, case.values(&left, op.out), &twin.buffers[op.out.index()], |i| {
                        order.sum_error(depth, norm_roundings(depth)) * largest[i / op.width]
                    });
                    case.check_rows_alone_in(order, &left, &[op.out]);
                }
            }
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    // v of wqkv: all of GPT-B's to the full depth, and what lies at the same place of L's and XL's; T5-XL's q. Tails of
    // a tile, of a step and of a slice, in the middle of a weight too.
    let sizes = [((1536, 768, 2304), 768, 2), ((2048, 48, 3072), 1024, 9), ((64, 24, 100), 1280, 3)];
    let odd = [((0, 40, 40), 2048, 2), ((0, 1, 1), 8, 1), ((16, 17, 40), 8, 3), ((48, 33, 81), 40, 17)];
    let many = [((112, 130, 250), 104, 33), ((16, 7, 23), 264, 65), ((32, 31, 99), 136, 129)];
    // More groups of columns than there is room for blocks, and slices longer than a block holds at once.
    let groups = [((32, 144, 176), 1288, 2), ((0, 288, 288), 1288, 9), ((0, 288, 300), 1288, 17)];
    for (part, depth, rows) in sizes.into_iter().chain(odd).chain(many).chain(groups) {
        let (case, op) = case(Elem::Bf16, part, depth, rows);
        let (before, twin) = (case.twin_before(), case.twin());
        let expected = &twin.buffers[op.out.index()];
        let normed: Vec<Vec<f64>> =
            (0..rows).map(|r| before.rms_norm(op.norm, before.row(op.x, r, depth), op.eps)).collect();
        for (place, left) in case.run_on_cuda() {
            compare(&format!("{place} {part:?} of {depth} x {rows}"), case.values(&left, op.out), expected, |i| {
                let weights = &before.weights[op.weight.index()][(op.first + i % op.width) * depth..][..depth];
                cuda_normed_error(weights, &normed[i / op.width])
            });
        }
    }
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (part, depth) in [((112, 312, 424), 104), ((96, 48, 144), 768)] {
        for rows in [1, 2, 7, 15, 16, 31, 63, 255] {
            let (case, op) = case(Elem::Bf16, part, depth, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                if rows < 32 || depth < 200 {
                    case.check_rows_alone_on_cuda(device, &left, &[op.out]);
                }
            }
        }
    }
}
