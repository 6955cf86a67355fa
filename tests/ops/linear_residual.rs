//! x += weight · input. Rounding: the product's sum, then one addition.

use std::collections::BTreeSet;

use smalti::backend::cuda;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::{compare, simt};
use crate::harness::{Case, ROW_COUNTS, Random, U, cuda_sum_error, largest_sum};

fn case(elem: Elem, width: usize, depth: usize, rows: usize) -> (Case, ops::LinearResidual) {
    case_of(elem, Elem::F32, width, depth, rows)
}

fn case_of(elem: Elem, input: Elem, width: usize, depth: usize, rows: usize) -> (Case, ops::LinearResidual) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("linear_residual", extent);
    let op = ops::LinearResidual {
        x: graph.buffer("x", Elem::F32, Per::Row, &[width], Role::Scratch),
        input: graph.buffer("input", input, Per::Row, &[depth], Role::Scratch),
        weight: graph.weight("weight", elem, &[width, depth], Source::Tensor),
        width,
        depth,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "linear_residual", op.clone());
    let random = &mut Random::new((width * depth + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * width));
    case.fill(op.input, random.normals(rows * depth));
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    // The true widths of B and 3B (wo, w2), and odd ones: tails of the tile and of the vector.
    let sizes = [(768, 768), (768, 2048), (3200, 3200), (128, 384), (1, 1), (5, 31), (7, 33), (18, 111), (200, 200)];
    for elem in [Elem::F32, Elem::Bf16] {
        for (width, depth) in sizes {
            for rows in ROW_COUNTS {
                if width * depth * rows > 40_000_000 {
                    continue; // 3B with 17 rows says nothing that 3 rows do not
                }
                let (case, op) = case(elem, width, depth, rows);
                let (before, twin) = (case.twin_before(), case.twin());
                let expected = &twin.buffers[op.x.index()];
                let largest: Vec<f64> =
                    (0..rows).map(|r| largest_sum(&before, op.weight, before.row(op.input, r, depth))).collect();
                for (order, left) in case.run_in_each_order() {
                    let what = format!("{elem:?} ({width}, {depth}) x {rows} {order:?}");
                    compare(&what, case.values(&left, op.x), expected, |i| {
                        order.sum_error(depth, 0.0) * largest[i / width] + U * expected[i].abs()
                    });
                    if width < 1000 {
                        case.check_rows_alone_in(order, &left, &[op.x]);
                    }
                }
            }
        }
    }
}

#[test]
fn an_identity_adds_the_input() {
    let (mut case, op) = case(Elem::Bf16, 48, 48, 3);
    case.weights[op.weight.index()] = (0..48 * 48).map(|i| if i / 48 == i % 48 { 1.0 } else { 0.0 }).collect();
    let left = case.run_everywhere();
    let sum: Vec<f64> =
        case.buffers[0].1.iter().zip(&case.buffers[1].1).map(|(x, input)| f64::from(x + input)).collect();
    assert_eq!(case.values(&left, op.x), sum);
}

#[test]
fn matches_its_twin_on_cuda() {
    // wo and w2 of B, w2 of L, XL and 3B to the full depth; tails of a tile, of a step and of a slice.
    let sizes = [(768, 768, 2), (40, 2048, 9), (24, 2816, 3), (24, 3456, 3), (32, 8704, 2)];
    let odd = [(1, 8, 1), (17, 8, 3), (33, 40, 17), (130, 104, 33), (7, 264, 65), (31, 136, 129)];
    // Slices longer than a block holds at once; parts of K.
    let long = [(144, 2304, 2), (288, 1280, 9), (288, 1280, 17), (72, 4104, 65), (136, 4104, 33), (40, 2568, 17)];
    for (width, depth, rows) in sizes.into_iter().chain(odd).chain(long) {
        let (case, op) = case_of(Elem::Bf16, Elem::Bf16, width, depth, rows);
        let (before, twin) = (case.twin_before(), case.twin());
        let expected = &twin.buffers[op.x.index()];
        let largest: Vec<f64> =
            (0..rows).map(|r| largest_sum(&before, op.weight, before.row(op.input, r, depth))).collect();
        for (place, left) in case.run_on_cuda() {
            compare(&format!("{place} ({width}, {depth}) x {rows}"), case.values(&left, op.x), expected, |i| {
                cuda_sum_error(depth) * largest[i / width] + U * expected[i].abs()
            });
        }
    }
}

/// Devices whose multiprocessors outnumber a product's blocks split K: into two, three or four parts, in every wide shape.
/// Beside the split one runs a thin shape, for a device that has more multiprocessors than there are columns.
#[test]
fn cuda_bits_depend_on_no_parts_of_k() {
    let mut split = BTreeSet::new();
    // N, K, rows, and multiprocessors.
    for (width, depth, rows, multiprocessors) in [
        (168, 4104, 17, 2),
        (40, 4104, 17, 3),
        (40, 2568, 17, 4),
        (40, 8200, 33, 1),
        (40, 2568, 33, 3),
        (40, 2568, 33, 2),
        (16, 4104, 97, 2),
        (40, 2568, 97, 3),
        (40, 2568, 65, 4),
        (72, 6152, 65, 2),
        (72, 3080, 65, 3),
        (72, 4104, 65, 4),
        (136, 2056, 33, 2),
        (136, 6152, 65, 3),
        (136, 4104, 33, 4),
    ] {
        let (case, _) = case_of(Elem::Bf16, Elem::Bf16, width, depth, rows);
        let op = &case.graph.nodes(case.phase)[0].op;
        let launched =
            cuda::launches(&case.graph, op, case.extent, simt::capacity(multiprocessors)).expect("it can run");
        split.insert((launched[0].kernel.name, launched[0].grid[2]));
        case.run_on_cuda_of(&[1 << 20, multiprocessors]);
    }
    let wide = ["64x32", "64x64", "64x128", "128x128", "160x128"].map(|shape| format!("linear_residual_wide_{shape}"));
    let all: BTreeSet<_> = wide.iter().flat_map(|name| [2, 3, 4].map(|parts| (name.as_str(), parts))).collect();
    assert_eq!(split, all);
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (width, depth) in [(312, 104), (48, 768)] {
        for rows in [1, 2, 7, 15, 16, 31, 63, 255] {
            let (case, op) = case_of(Elem::Bf16, Elem::Bf16, width, depth, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                if rows < 32 || depth < 200 {
                    case.check_rows_alone_on_cuda(device, &left, &[op.x]);
                }
            }
        }
    }
}
