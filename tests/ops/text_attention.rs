//! Softmax over a text's own rows with a bias by distance. Rounding as in `attention`, with scores as large as
//! q · k is, since T5 does not scale them.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::compare;
use crate::harness::{Case, Random, U};

const TOKENS: usize = 40;
const BUCKETS: usize = 8;

/// Texts of these lengths, one behind the other.
fn case(n_head: usize, head_dim: usize, lengths: &[usize]) -> (Case, ops::TextAttention) {
    let rows: usize = lengths.iter().sum();
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("text_attention", extent);
    let dim = n_head * head_dim;
    // Distances -39..=39 on 8 buckets, unlike on both sides.
    let buckets: Vec<f32> = (0..2 * TOKENS - 1).map(|i| (i * i / 3 % BUCKETS) as f32).collect();
    let mut row = |name: &str| graph.buffer(name, Elem::F32, Per::Row, &[dim], Role::Scratch);
    let (out, q, k, v) = (row("out"), row("q"), row("k"), row("v"));
    let op = ops::TextAttention {
        out,
        q,
        k,
        v,
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        bias: graph.weight("bias", Elem::F32, &[BUCKETS, n_head], Source::Tensor),
        buckets: graph.weight("buckets", Elem::F32, &[2 * TOKENS - 1], Source::Constant(buckets.into())),
        tokens: TOKENS,
        n_head,
        head_dim,
    };
    let phase = graph.phase("encode");
    graph.push(phase, "text_attention", op.clone());
    let random = &mut Random::new((dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    for id in [q, k, v] {
        case.fill(id, random.normals(rows * dim));
    }
    let table = lengths
        .iter()
        .zip(0u32..)
        .flat_map(|(&length, slot)| (0..length as u32).map(move |position| Row { slot, position, ..Row::default() }));
    case.rows = Some((op.rows, table.collect()));
    (case, op)
}

#[test]
fn matches_its_twin_and_a_text_alone() {
    for (n_head, head_dim) in [(2, 64), (3, 16), (1, 100), (2, 4)] {
        for lengths in [&[1][..], &[TOKENS], &[3, 1, 17], &[20, 20, 33]] {
            let (case, op) = case(n_head, head_dim, lengths);
            let left = case.run_everywhere();
            // Scores: |q·k| stays below ~6 sqrt(D) for unit normals, and their sums round D/16 + 5 times.
            let score = (head_dim as f64 / 16.0 + 6.0) * U * 6.0 * head_dim as f64;
            let mix = (TOKENS as f64 + 8.0) * U;
            let expected = case.twin().buffers[op.out.index()].clone();
            let what = format!("{n_head} x {head_dim}, {lengths:?}");
            compare(&what, case.values(&left, op.out), &expected, |_| (2.0 * score + mix) * 4.0); // |v| < 4

            let (dim, mut first) = (op.dim(), 0);
            for &length in lengths {
                let (mut alone, _) = self::case(n_head, head_dim, &[length]);
                alone.weights.clone_from(&case.weights);
                for (of_one, (_, of_all)) in alone.buffers.iter_mut().zip(&case.buffers) {
                    of_one.1.copy_from_slice(&of_all[first * dim..(first + length) * dim]);
                }
                let found = alone.values(&alone.run_everywhere(), op.out);
                let among = &case.values(&left, op.out)[first * dim..(first + length) * dim];
                assert!(found == among, "{what}: rows {first}.. depend on the texts beside them");
                first += length;
            }
        }
    }
}

#[test]
fn the_bias_is_of_the_keys_distance() {
    // q = 0: a bias of ln 3 for the bucket of distance +1, at index 40 the 5, weighs such keys threefold; distances
    // 0 and -1 are in buckets 3 and 1.
    let (mut case, op) = case(1, 16, &[2]);
    case.weights[op.bias.index()] = (0..BUCKETS).map(|bucket| if bucket == 5 { 3f32.ln() } else { 0.0 }).collect();
    for (id, values) in &mut case.buffers {
        if *id == op.q {
            values.fill(0.0);
        } else if *id == op.v {
            values[..16].fill(0.0);
            values[16..].fill(1.0);
        }
    }
    let expected: Vec<f64> = [[0.75; 16], [0.5; 16]].concat();
    let left = case.run_everywhere();
    compare("rows 0 and 1", case.values(&left, op.out), &expected, |_| 1e-6);
}
