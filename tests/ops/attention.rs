//! Softmax-weighted mean of the cache. Rounding: a score's sum shifts its weight by the same relative
//! amount; exp is good to 2 ulp; the mix is a sum over the keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use smalti::backend::Executor;
use smalti::checkpoint::Checkpoint;
use smalti::graph::ops::{self, CacheShape};
use smalti::graph::{Elem, Extent, Graph, NO_SLOT, Per, Role, Row};
use smalti_simt::Build;

use crate::common::{compare, simt, skip};
use crate::harness::{Case, ROW_COUNTS, Random, U};

fn case(elem: Elem, n_head: usize, head_dim: usize, positions: usize, rows: usize) -> (Case, ops::Attention) {
    // Rows of a slot are causal: each sees itself and what lies before it; the last row sees all.
    let place = |r: usize| ((r % 3) as u32, (positions - 1 - r / 3 % positions) as u32);
    let table: Vec<(u32, u32)> = (0..rows).map(place).collect();
    case_of(elem, Elem::F32, [n_head, head_dim, positions], &table)
}

/// Rows at these slots and positions, heads and cache of the shape (H, D, S); what no row may read is poison.
fn case_of(
    elem: Elem,
    out: Elem,
    [n_head, head_dim, positions]: [usize; 3],
    table: &[(u32, u32)],
) -> (Case, ops::Attention) {
    let rows = table.len();
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("attention", extent);
    let dim = n_head * head_dim;
    let cache = CacheShape { slots: 3, n_head, positions, head_dim, elem };
    let shape = [2, cache.slots, n_head, positions, head_dim];
    let op = ops::Attention {
        out: graph.buffer("out", out, Per::Row, &[dim], Role::Scratch),
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
    // Some rows were there before the run, all but the row's own, or none.
    let settled = |r: usize, position: u32| [position, 0, position / 2][r % 3];
    let row =
        |(r, &(slot, position)): (usize, &(u32, u32))| Row { slot, position, token: 0, settled: settled(r, position) };
    let table: Vec<Row> = table.iter().enumerate().map(row).collect();
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
fn rows_of_no_slot_are_passed_over() {
    let case = |[first, second]: [(u32, u32); 2]| {
        case_of(Elem::Bf16, Elem::F32, [3, 64, 100], &[(0, 40), first, (2, 99), second])
    };
    let ((all, op), (some, _)) = (case([(1, 7), (1, 3)]), case([(NO_SLOT, 0); 2]));
    let (all, some) = (all.values(&all.run_everywhere(), op.out), some.values(&some.run_everywhere(), op.out));
    for (r, (all, some)) in all.chunks_exact(3 * 64).zip(some.chunks_exact(3 * 64)).enumerate() {
        match r % 2 {
            0 => assert_eq!(all, some, "row {r}"),
            _ => assert!(all.iter().all(|&x| x != 0.0) && some.iter().all(|&x| x == 0.0), "row {r}: {some:?}"),
        }
    }
}

/// The kernels: a score is four chains of D / 4 multiply-adds, two sums and a product; the mix of a warp's 32 keys
/// is at most 32 multiply-adds and two sums, then come the eight warps and the parts, for the weights' sum too.
#[test]
fn the_kernels_match_the_twin() {
    for ([n_head, head_dim, positions], out) in [
        ([2, 64, 577], Elem::Bf16),
        ([2, 64, 577], Elem::F32),
        ([3, 100, 300], Elem::Bf16),
        ([2, 128, 300], Elem::F32),
        ([1, 4, 1025], Elem::F32),
        ([1, 36, 7], Elem::Bf16),
        ([1, 256, 140], Elem::F32),
    ] {
        let last = positions as u32 - 1;
        // Ends of warps and of parts, the prefix alone, and rows that share a slot.
        let ends = [0, 31, 32, 127, 128, 255, 256, last].map(|position| (1, position.min(last)));
        for table in [&[(2, last)][..], &ends, &[(0, last / 2), (1, 0), (2, last / 3)]] {
            let (case, op) = case_of(Elem::Bf16, out, [n_head, head_dim, positions], table);
            let score = (head_dim as f64 / 4.0 + 4.0) * U * 6.0 * (head_dim as f64).sqrt();
            let parts = positions as f64 / 128.0 + 1.0;
            let mix = 2.0 * (32.0 + 2.0 + 8.0 + 2.0 * parts + 6.0) * U;
            let expected = case.twin().buffers[op.out.index()].clone();
            let sums = (2.0 * score + mix) * 4.0; // |v| < 4
            let half_unit = if out == Elem::Bf16 { 1.0 / 256.0 } else { U };
            for (executor, left) in case.run_on_cuda() {
                compare(
                    &format!("{executor}: {n_head} x {head_dim}, {positions} keys, rows {table:?}"),
                    case.values(&left, op.out),
                    &expected,
                    |i| sums + half_unit * (expected[i].abs() + sums),
                );
                case.check_rows_alone_on_cuda(&executor, &left, &[op.out]);
            }
        }
    }
}

/// Five rows are laid out as eight: the three that fill up leave no trace, nor does one launch for the next.
#[test]
fn the_kernels_skip_padding_and_can_follow_each_other() {
    let table = [(0, 299), (1, 4), (2, 129), (0, 298), (1, 0), (0, 0), (0, 0), (0, 0)];
    let (mut case, op) = case_of(Elem::Bf16, Elem::F32, [2, 100, 300], &table);
    let graph = Arc::make_mut(&mut case.graph);
    let again = ops::Attention { out: graph.buffer("again", Elem::F32, Per::Row, &[200], Role::Scratch), ..op.clone() };
    graph.push(case.phase, "again", again.clone());
    case.extent.rows = 5;
    case.rows.as_mut().expect("it has rows").1.truncate(5);
    for out in [op.out, again.out] {
        case.fill(out, vec![777.0; 8 * 200]);
    }
    for (executor, left) in case.run_on_cuda() {
        let out = case.values(&left, op.out);
        assert!(out[..5 * 200].iter().all(|x| x.abs() < 4.0), "{executor}: a row was left out");
        assert!(out[5 * 200..].iter().all(|&x| x == 777.0), "{executor}: wrote a row that is padding");
        assert_eq!(out, case.values(&left, again.out), "{executor}: the second launch");
    }
}

/// What a row calls settled is read before the launches ahead of it have ended: if one of them writes it, that is found.
#[test]
fn what_the_run_writes_is_not_settled() {
    for (settled, early) in [(0, false), (39, false), (40, true), (99, true)] {
        let (mut case, op) = case_of(Elem::Bf16, Elem::F32, [2, 64, 100], &[(1, 99)]);
        let graph = Arc::make_mut(&mut case.graph);
        let prefixes = graph.buffer("prefixes", Elem::F32, Per::Plan, &[3, 2, 128], Role::Scratch);
        let (k_cache, v_cache, rows) = (op.k_cache, op.v_cache, op.rows);
        let set_prefix = ops::SetPrefix { k_cache, v_cache, prefixes, rows, n_layer: 2, cache: op.cache };
        graph.push(case.phase, "set_prefix", set_prefix);
        graph.push(case.phase, "again", op);
        case.fill(prefixes, vec![0.0; 3 * 2 * 128]);
        case.rows.as_mut().expect("it has a row").1[0].settled = settled;
        let check = simt::WAYS.into_iter().find(|way| way.build == Build::Check).expect("one of them checks");
        let Ok(executor) = simt::executor(check) else { return skip("settled rows", "no SIMT executor") };
        match case.try_run(&executor) {
            Ok(_) => assert!(!early, "{settled} rows, the first of which the run writes"),
            Err(error) => {
                let said = "running `again`: kernel attention_64";
                assert!(early && error.to_string().contains(said), "{settled}: {error}");
                let found = "read of what an earlier launch wrote before grid_dependency_wait";
                assert!(error.to_string().contains(found), "{error}");
            }
        }
    }
}

#[test]
fn what_the_kernels_cannot_do_is_said() {
    for (elem, head_dim, message) in [
        (Elem::F32, 64, "`attention` of attention: needs `k_cache` in bf16, found f32"),
        (Elem::Bf16, 42, "divisible by 4, at most 256, found 42"),
        (Elem::Bf16, 260, "found 260"),
    ] {
        let (case, _) = case_of(elem, Elem::F32, [1, head_dim, 5], &[(0, 0)]);
        let Ok(executor) = simt::executor(simt::WAYS[0]) else { return };
        let checkpoint = Checkpoint::from_tensors("test", BTreeMap::new(), BTreeMap::new());
        let error = executor.plan(case.graph.clone(), &checkpoint).err().expect("it is refused").to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_query_of_ten_thousand_picks_its_key() {
    let (mut case, op) = case(Elem::Bf16, 1, 16, 5, 1);
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
    for (_, left) in case.run_on_cuda().into_iter().chain([("cpu".into(), case.run_everywhere())]) {
        assert_eq!(case.values(&left, op.out), [2.0; 16]);
    }
}

#[test]
fn the_prefix_counts_as_many_as_it_stands_for() {
    // q = 0: all scores 0, so the prefix of n tokens weighs n against 1 for each image token.
    let (mut case, op) = case(Elem::Bf16, 1, 16, 2, 2);
    let at = op.cache.at(op.layer, 1, 0, 0);
    for (id, values) in &mut case.buffers {
        if *id == op.q {
            values.fill(0.0);
        } else if *id == op.v_cache {
            values[at..at + 16].fill(1.0);
            values[at + 16..at + 32].fill(0.0);
        }
    }
    for (executor, left) in case.run_on_cuda().into_iter().chain([("cpu".into(), case.run_everywhere())]) {
        let row = case.values(&left, op.out)[16..].to_vec();
        compare(&executor, row, &[120.0 / 121.0; 16], |_| 1e-6);
    }
}
