//! Softmax-weighted mean of the cache. Rounding: a score's sum shifts its weight by the same relative
//! amount; exp is good to 2 ulp; the mix is a sum over the keys.

use smalti::graph::ops::{self, CacheShape};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U};

fn case(elem: Elem, n_head: usize, head_dim: usize, positions: usize, rows: usize) -> (Case, ops::Attention) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("attention", extent);
    let dim = n_head * head_dim;
    let cache = CacheShape { slots: 3, n_head, positions, head_dim, elem };
    let shape = [2, cache.slots, n_head, positions, head_dim];
    let op = ops::Attention {
        out: graph.buffer("out", Elem::F32, Per::Row, &[dim], Role::Scratch),
        q: graph.buffer("q", Elem::F32, Per::Row, &[dim], Role::Scratch),
        k_cache: graph.buffer("k_cache", elem, Per::Plan, &shape, Role::State),
        v_cache: graph.buffer("v_cache", elem, Per::Plan, &shape, Role::State),
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        prefix_log_n: graph.buffer("prefix_log_n", Elem::F32, Per::Plan, &[cache.slots], Role::Input),
        layer: 1,
        cache,
    };
    let phase = graph.phase("step");
    graph.push(phase, "attention", op.clone());
    let random = &mut Random::new((dim + rows + positions) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.q, random.normals(rows * dim));
    case.fill(op.prefix_log_n, vec![0.0, 120f32.ln(), 7f32.ln()]);
    // Rows of a slot are causal: each sees itself and what lies before it; the last row sees all.
    let table: Vec<Row> = (0..rows)
        .map(|r| Row { slot: (r % 3) as u32, position: (positions - 1 - r / 3 % positions) as u32, ..Row::default() })
        .collect();
    let used = |slot: usize| table.iter().filter(|row| row.slot == slot as u32).map(|row| row.position).max();
    let count = case.graph.len_of(op.k_cache);
    for id in [op.k_cache, op.v_cache] {
        let mut values = random.normals(count);
        for (i, value) in values.iter_mut().enumerate() {
            let (slot, position) = (i / (dim * positions) % 3, i / head_dim % positions);
            let read = i / (dim * positions * 3) == 1 && used(slot).is_some_and(|last| position <= last as usize);
            if !read {
                *value = 1e30; // poison: whoever reads this is seen
            }
        }
        case.fill(id, values);
    }
    case.rows = Some((op.rows, table));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (n_head, head_dim, positions) in
            [(2, 64, 257), (2, 100, 37), (1, 128, 17), (3, 16, 10), (1, 64, 1), (2, 4, 577)]
        {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, n_head, head_dim, positions, rows);
                let left = case.run_everywhere();
                // Scores: |q·k| / sqrt(D) stays below ~6 for unit normals, and their sums round D/16 + 5 times.
                let score = (head_dim as f64 / 16.0 + 6.0) * U * 6.0 * (head_dim as f64).sqrt();
                let mix = (positions as f64 + 8.0) * U;
                let expected = case.twin().buffers[op.out.index()].clone();
                compare(
                    &format!("{elem:?} {n_head} x {head_dim}, {positions} keys x {rows}"),
                    case.values(&left, op.out),
                    &expected,
                    |_| (2.0 * score + mix) * 4.0, // |v| < 4
                );
                case.check_rows_alone(&left, &[op.out]);
            }
        }
    }
}

#[test]
fn a_query_of_ten_thousand_picks_its_key() {
    let (mut case, op) = case(Elem::F32, 1, 16, 5, 1);
    let (q, k, v) = (op.q, op.k_cache, op.v_cache);
    let at = op.cache.at(op.layer, 0, 0, 0);
    for (id, values) in &mut case.buffers {
        if *id == q {
            values.fill(0.0);
            values[3] = 1e4;
        } else if *id == k {
            values[at..at + 5 * 16].fill(0.0);
            values[at + 2 * 16 + 3] = 1.0; // only key 2 answers channel 3
        } else if *id == v {
            for j in 0..5 {
                values[at + j * 16..at + (j + 1) * 16].fill(j as f32);
            }
        }
    }
    let left = case.run_everywhere();
    assert_eq!(case.values(&left, op.out), [2.0; 16]);
}

#[test]
fn the_prefix_counts_as_many_as_it_stands_for() {
    // q = 0: all scores 0, so the prefix of n tokens weighs n against 1 for each image token.
    let (mut case, op) = case(Elem::F32, 1, 16, 2, 2);
    let at = op.cache.at(op.layer, 1, 0, 0);
    for (id, values) in &mut case.buffers {
        if *id == op.q {
            values.fill(0.0);
        } else if *id == op.v_cache {
            values[at..at + 16].fill(1.0);
            values[at + 16..at + 32].fill(0.0);
        }
    }
    let left = case.run_everywhere();
    compare("row 1", case.values(&left, op.out)[16..].iter().copied(), &[120.0 / 121.0; 16], |_| 1e-6);
}
