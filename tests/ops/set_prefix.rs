//! Row 0 of slots' caches: k = 0 and v as given, rounded to the cache's type; exact.

use smalti::graph::ops::{self, CacheShape};
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::harness::{Case, Left, Random};

/// In a graph for four rows.
fn case(elem: Elem, n_head: usize, head_dim: usize, slots: &[u32]) -> (Case, ops::SetPrefix) {
    let mut graph = Graph::new("set_prefix", Extent { rows: 4, draws: 0 });
    let cache = CacheShape { slots: 3, n_head, positions: 5, head_dim, elem };
    let shape = [2, cache.slots, n_head, cache.positions, head_dim];
    let op = ops::SetPrefix {
        k_cache: graph.buffer("k_cache", elem, Per::Plan, &shape, Role::State),
        v_cache: graph.buffer("v_cache", elem, Per::Plan, &shape, Role::State),
        prefixes: graph.buffer("prefixes", Elem::F32, Per::Plan, &[3, 2, cache.dim()], Role::State),
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        n_layer: 2,
        cache,
    };
    let phase = graph.phase("set_prefix");
    graph.push(phase, "set_prefix", op.clone());
    let random = &mut Random::new((n_head * head_dim) as u64);
    let mut case = Case::new(graph, phase, Extent { rows: slots.len(), draws: 0 }, random);
    // What the op must not touch has a value that would be seen.
    let cached = case.graph.len_of(op.k_cache);
    case.fill(op.k_cache, vec![1e4; cached]);
    case.fill(op.v_cache, vec![-1e4; cached]);
    case.fill(op.prefixes, random.normals(3 * 2 * cache.dim()));
    let table = slots.iter().map(|&slot| Row { slot, ..Row::default() });
    case.rows = Some((op.rows, table.collect()));
    (case, op)
}

#[track_caller]
fn check(what: &str, case: &Case, op: &ops::SetPrefix, left: &Left) {
    let twin = case.twin();
    for id in [op.k_cache, op.v_cache] {
        let round = |x: &f64| match op.cache.elem {
            Elem::Bf16 => half::bf16::from_f64(*x).to_f64(),
            _ => *x,
        };
        let expected: Vec<f64> = twin.buffers[id.index()].iter().map(round).collect();
        assert_eq!(case.values(left, id), expected, "{what}");
    }
}

#[test]
fn matches_its_twin_and_touches_nothing_else() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (n_head, head_dim, slots) in [(2, 64, &[1][..]), (3, 100, &[2, 0]), (1, 4, &[0, 1, 2])] {
            let (case, op) = case(elem, n_head, head_dim, slots);
            check(&format!("{elem:?} {n_head} x {head_dim}, {slots:?}"), &case, &op, &case.run_everywhere());
        }
    }
}

#[test]
fn matches_its_twin_on_cuda_and_touches_nothing_else() {
    // Three rows are laid out as four.
    for (n_head, head_dim, slots) in [(12, 64, &[1][..]), (3, 100, &[2, 0]), (1, 6, &[2, 0, 1]), (5, 2, &[0, 1, 2])] {
        let (case, op) = case(Elem::Bf16, n_head, head_dim, slots);
        for (place, left) in case.run_on_cuda() {
            check(&format!("{place} {n_head} x {head_dim}, {slots:?}"), &case, &op, &left);
        }
    }
}
