//! logits = output · rms_norm(x). Rounding: the norm's, then the product's sum.

use smalti::backend::cuda;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::{compare, simt};
use crate::harness::{Case, ROW_COUNTS, Random, cuda_normed_error, largest_sum, norm_roundings};

fn case(elem: Elem, vocab_size: usize, dim: usize, rows: usize) -> (Case, ops::NormLogits) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_logits", extent);
    let op = ops::NormLogits {
        logits: graph.buffer("logits", Elem::F32, Per::Row, &[vocab_size], Role::Output),
        x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
        norm: graph.weight("norm.weight", Elem::F32, &[dim], Source::Tensor),
        output: graph.weight("output.weight", elem, &[vocab_size, dim], Source::Tensor),
        vocab_size,
        dim,
        eps: 1e-5,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("step");
    graph.push(phase, "norm_logits", op.clone());
    let random = &mut Random::new((vocab_size + dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    // A stream far from unit scale, as late layers have it.
    case.fill(op.x, random.normals(rows * dim).into_iter().map(|x| 30.0 * x).collect());
    case.rows = Some((table, vec![Row::default(); rows]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (vocab_size, dim) in [(300, 200), (16384, 64), (257, 768), (33, 111), (64, 3200)] {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, vocab_size, dim, rows);
                let (before, twin) = (case.twin_before(), case.twin());
                let largest: Vec<f64> = (0..rows)
                    .map(|r| {
                        largest_sum(&before, op.output, &before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps))
                    })
                    .collect();
                for (order, left) in case.run_in_each_order() {
                    compare(
                        &format!("{elem:?} ({vocab_size}, {dim}) x {rows} {order:?}"),
                        case.values(&left, op.logits),
                        &twin.buffers[op.logits.index()],
                        |i| order.sum_error(dim, norm_roundings(dim)) * largest[i / vocab_size],
                    );
                    if vocab_size < 1000 {
                        case.check_rows_alone_in(order, &left, &[op.logits]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_constant_row_normalizes_to_the_weight() {
    let (mut case, op) = case(Elem::F32, 40, 32, 1);
    case.buffers[0].1.fill(1e4);
    let expected: Vec<f64> = case.weights[op.output.index()]
        .chunks_exact(32)
        .map(|row| row.iter().zip(&case.weights[op.norm.index()]).map(|(o, n)| f64::from(o * n)).sum())
        .collect();
    let left = case.run_everywhere();
    compare("constant", case.values(&left, op.logits), &expected, |_| 1e-5);
}

#[test]
fn matches_its_twin_on_cuda() {
    // The widths of B, L, XL and 3B to the full depth; tails of a tile, of a step and of a slice.
    let sizes = [(768, 768, 2), (72, 1024, 9), (72, 1280, 3), (48, 3200, 2), (96, 3200, 33)];
    let odd = [(1, 8, 1), (17, 8, 3), (33, 40, 17), (130, 104, 33), (7, 264, 65), (31, 136, 129)];
    // More groups of columns than there is room for blocks, and slices longer than a block holds at once.
    let groups = [(144, 1288, 2), (288, 1288, 9), (288, 1288, 17)];
    for (vocab_size, dim, rows) in sizes.into_iter().chain(odd).chain(groups) {
        let (case, op) = case(Elem::Bf16, vocab_size, dim, rows);
        let (before, twin) = (case.twin_before(), case.twin());
        let normed: Vec<Vec<f64>> =
            (0..rows).map(|r| before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps)).collect();
        let output = &before.weights[op.output.index()];
        for (place, left) in case.run_on_cuda() {
            compare(
                &format!("{place} ({vocab_size}, {dim}) x {rows}"),
                case.values(&left, op.logits),
                &twin.buffers[op.logits.index()],
                |i| cuda_normed_error(&output[i % vocab_size * dim..][..dim], &normed[i / vocab_size]),
            );
        }
    }
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (vocab_size, dim) in [(312, 104), (48, 768)] {
        for rows in [1, 2, 7, 15, 16, 31, 63, 255] {
            let (case, op) = case(Elem::Bf16, vocab_size, dim, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                if rows < 32 || dim < 200 {
                    case.check_rows_alone_on_cuda(device, &left, &[op.logits]);
                }
            }
        }
    }
}

/// Thin shapes behind `norm_rows`, with several blocks of rows or columns, and slices longer than what is on its way.
/// Beside them one normalizes its rows itself, for a device that has more multiprocessors than there is work.
#[test]
fn cuda_bits_depend_on_no_normalization_ahead() {
    for (vocab_size, dim, rows, multiprocessors, shape, blocks) in [
        (144, 1288, 9, 1, "thin_16", [1, 5]),
        (96, 648, 31, 5, "thin_16", [2, 3]),
        (48, 1288, 31, 4, "thin_16", [2, 2]),
        (96, 1288, 17, 1, "thin_32", [1, 3]),
        (96, 104, 65, 3, "thin_32", [3, 3]),
        (48, 1288, 33, 3, "thin_32", [2, 2]),
    ] {
        let (case, _) = case(Elem::Bf16, vocab_size, dim, rows);
        let op = &case.graph.nodes(case.phase)[0].op;
        let launched =
            cuda::launches(&case.graph, op, case.extent, simt::capacity(multiprocessors)).expect("it can run");
        let names: Vec<_> = launched.iter().map(|launch| launch.kernel.name).collect();
        assert_eq!(names, ["norm_rows".to_string(), format!("norm_logits_{shape}")]);
        assert_eq!(launched[1].grid[..2], blocks, "{vocab_size} x {dim}, {rows} rows");
        case.run_on_cuda_of(&[1 << 20, multiprocessors]);
    }
}

#[test]
fn one_weight_picks_one_column_on_cuda() {
    // Row v of the head is one at column v: the logits are the normalized row, rounded twice as LlamaGen does.
    let (mut case, op) = case(Elem::Bf16, 40, 40, 3);
    case.weights[op.output.index()] = (0..40 * 40).map(|i| if i / 40 == i % 40 { 1.0 } else { 0.0 }).collect();
    let before = case.twin_before();
    let round = |x: f64| f64::from(half::bf16::from_f32(x as f32).to_f32());
    let expected: Vec<f64> = (0..3)
        .flat_map(|r| {
            let x = before.row(op.x, r, 40);
            let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / 40.0 + f64::from(op.eps)).sqrt();
            let norm = &before.weights[op.norm.index()];
            x.iter().zip(norm).map(|(x, norm)| round(round(x * rstd) * norm)).collect::<Vec<_>>()
        })
        .collect();
    for (_, left) in case.run_on_cuda() {
        assert_eq!(case.values(&left, op.logits), expected);
    }
}
