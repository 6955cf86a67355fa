//! Running means of v, and each text's last one kept. Rounding: the sum rounds once per row, the division once.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, ops};

use crate::common::compare;
use crate::harness::{Case, Random, U};

const SLOTS: usize = 4;

/// Texts of these lengths in slots 3, 2, 1.
fn case(dim: usize, lengths: &[usize]) -> (Case, ops::PrefixMean) {
    case_of(Elem::F32, dim, lengths, lengths.iter().sum())
}

/// The same in a graph for `room` rows.
fn case_of(out: Elem, dim: usize, lengths: &[usize], room: usize) -> (Case, ops::PrefixMean) {
    let rows: usize = lengths.iter().sum();
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("prefix_mean", Extent { rows: room, draws: 0 });
    let op = ops::PrefixMean {
        out: graph.buffer("out", out, Per::Row, &[dim], Role::Scratch),
        prefixes: graph.buffer("prefixes", Elem::F32, Per::Plan, &[SLOTS, 2, dim], Role::State),
        v: graph.buffer("v", Elem::F32, Per::Row, &[dim], Role::Scratch),
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        layer: 1,
        n_layer: 2,
        dim,
    };
    let phase = graph.phase("prefill");
    graph.push(phase, "prefix_mean", op.clone());
    let random = &mut Random::new((dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.v, random.normals(room * dim));
    // What the op must not touch has a value that would be seen.
    case.fill(op.prefixes, vec![1e4; SLOTS * 2 * dim]);
    let table = lengths.iter().enumerate().flat_map(|(text, &length)| {
        (0..length as u32).map(move |position| Row { slot: (SLOTS - 1 - text) as u32, position, ..Row::default() })
    });
    case.rows = Some((op.rows, table.collect()));
    (case, op)
}

#[test]
fn matches_its_twin_and_touches_nothing_else() {
    for dim in [128, 1280, 100, 65, 1] {
        for lengths in [&[1][..], &[120], &[5, 1, 37], &[20, 20]] {
            let (case, op) = case(dim, lengths);
            let left = case.run_everywhere();
            let twin = case.twin();
            let what = format!("{dim}, {lengths:?}");
            // |v| < 4, so sums stay below 4 per row and their roundings, shared out, below that per row.
            let allowed = |_| (120.0 + 1.0) * U * 4.0;
            compare(&format!("out {what}"), case.values(&left, op.out), &twin.buffers[op.out.index()], allowed);
            let expected = &twin.buffers[op.prefixes.index()];
            compare(&format!("prefixes {what}"), case.values(&left, op.prefixes), expected, |i| {
                if expected[i] == 1e4 { f64::MIN_POSITIVE } else { allowed(i) }
            });

            let mut first = 0;
            for &length in lengths {
                let (mut alone, _) = self::case(dim, &[length]);
                alone.buffers[0].1.copy_from_slice(&case.buffers[0].1[first * dim..(first + length) * dim]);
                let found = alone.values(&alone.run_everywhere(), op.out);
                let among = &case.values(&left, op.out)[first * dim..(first + length) * dim];
                assert!(found == among, "{what}: rows {first}.. depend on the texts beside them");
                first += length;
            }
        }
    }
}

#[test]
fn a_ramp_has_its_middle_as_mean() {
    let (mut case, op) = case(16, &[9]);
    case.buffers[0].1 = (0..9 * 16).map(|i| (i / 16) as f32).collect();
    let left = case.run_everywhere();
    let expected: Vec<f64> = (0..9 * 16).map(|i| (i / 16) as f64 / 2.0).collect();
    assert_eq!(case.values(&left, op.out), expected);
    assert_eq!(case.values(&left, op.prefixes)[(3 * 2 + 1) * 16..], [4.0; 16]);
}

#[test]
fn matches_its_twin_on_cuda_and_touches_nothing_else() {
    // Lengths of which some fill what is loaded ahead and some the laid-out rows; the others leave padding.
    for dim in [768, 128, 130, 2] {
        for lengths in [&[1][..], &[120], &[5, 1, 37], &[8, 16, 8], &[7, 9]] {
            let room = lengths.iter().sum::<usize>().next_power_of_two();
            let (case, op) = case_of(Elem::Bf16, dim, lengths, room);
            let twin = case.twin();
            let (means, kept) = (&twin.buffers[op.out.index()], &twin.buffers[op.prefixes.index()]);
            // As on the CPU, and half of bf16's last place, up to 2^-8, for the store.
            let sum = (120.0 + 1.0) * U * 4.0;
            for (place, left) in case.run_on_cuda() {
                let what = format!("{place} {dim}, {lengths:?}");
                compare(&format!("out {what}"), case.values(&left, op.out), means, |i| {
                    sum + (means[i].abs() + sum) / 256.0
                });
                compare(&format!("prefixes {what}"), case.values(&left, op.prefixes), kept, |i| {
                    if kept[i] == 1e4 { f64::MIN_POSITIVE } else { sum }
                });
                // Sums and quotients are rounded alike on both.
                let (on_cpu, cpu_op) = self::case(dim, lengths);
                assert_eq!(
                    case.values(&left, op.prefixes),
                    on_cpu.values(&on_cpu.run_everywhere(), cpu_op.prefixes),
                    "{what}"
                );
            }
        }
    }
}
