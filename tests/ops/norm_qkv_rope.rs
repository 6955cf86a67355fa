//! [q; k; v] = wqkv · rms_norm(x), turned and cached. Rounding: the norm's, the product's sum, two products
//! and an addition of the rotation, and for a bf16 cache half a unit in the last of its 8 bits.

use smalti::graph::ops::{self, CacheShape};
use smalti::graph::{Elem, Extent, Graph, NO_SLOT, Per, Role, Row, Source};
use smalti::models::gpt::freqs_cis;

use crate::common::compare;
use crate::harness::{Case, ROW_COUNTS, Random, U, cuda_normed_error, largest_sum, norm_roundings};

const LATENT: usize = 3;

fn case(elem: Elem, n_head: usize, head_dim: usize, rows: usize) -> (Case, ops::NormQkvRope) {
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("norm_qkv_rope", extent);
    let (dim, positions) = (n_head * head_dim, 1 + LATENT * LATENT);
    // Every row has a place of its own.
    let slots = rows.div_ceil(positions).max(3);
    let cache = CacheShape { slots, n_head, positions, head_dim, elem };
    let shape = [2, cache.slots, n_head, positions, head_dim];
    let op = ops::NormQkvRope {
        q: graph.buffer("q", Elem::F32, Per::Row, &[dim], Role::Scratch),
        k_cache: graph.buffer("k_cache", elem, Per::Plan, &shape, Role::State),
        v_cache: graph.buffer("v_cache", elem, Per::Plan, &shape, Role::State),
        x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        norm: graph.weight("norm.weight", Elem::F32, &[dim], Source::Tensor),
        wqkv: graph.weight("wqkv.weight", elem, &[3 * dim, dim], Source::Tensor),
        freqs_cis: graph.weight(
            "freqs_cis",
            Elem::F32,
            &[positions, head_dim / 2, 2],
            Source::Constant(freqs_cis(LATENT, head_dim, 10000.0).into()),
        ),
        layer: 1,
        cache,
        eps: 1e-5,
    };
    let phase = graph.phase("step");
    graph.push(phase, "norm_qkv_rope", op.clone());
    let random = &mut Random::new((dim + rows) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.x, random.normals(rows * dim));
    // What the op must not touch has a value that would be seen.
    let cached = case.graph.len_of(op.k_cache);
    case.fill(op.k_cache, vec![1e4; cached]);
    case.fill(op.v_cache, vec![-1e4; cached]);
    let place = |r| Row { slot: (r % slots) as u32, position: (r / slots) as u32, ..Row::default() };
    let table = (0..rows).map(place);
    case.rows = Some((op.rows, table.collect()));
    (case, op)
}

#[test]
fn matches_its_twin_and_touches_nothing_else() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (n_head, head_dim) in [(2, 64), (2, 100), (1, 128), (3, 16), (12, 64), (5, 4)] {
            for rows in ROW_COUNTS {
                let (case, op) = case(elem, n_head, head_dim, rows);
                let dim = n_head * head_dim;
                let (before, twin) = (case.twin_before(), case.twin());
                let largest = (0..rows)
                    .map(|r| largest_sum(&before, op.wqkv, &before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps)))
                    .fold(0.0, f64::max);
                for (order, left) in case.run_in_each_order() {
                    // |cos| + |sin| ≤ √2 carries the sum's error over; the rotation adds three roundings.
                    let computed = 1.5 * order.sum_error(dim, norm_roundings(dim) + 3.0) * largest;
                    let what = format!("{elem:?} {n_head} x {head_dim} x {rows} {order:?}");
                    compare(&format!("q {what}"), case.values(&left, op.q), &twin.buffers[op.q.index()], |_| computed);
                    for cache in [op.k_cache, op.v_cache] {
                        let expected = &twin.buffers[cache.index()];
                        compare(&format!("cache {what}"), case.values(&left, cache), expected, |i| {
                            let stored = if elem == Elem::Bf16 { expected[i].abs() / 256.0 } else { 0.0 };
                            let written = expected[i].abs() < 1e3;
                            if written { computed + stored } else { f64::MIN_POSITIVE }
                        });
                    }
                    case.check_rows_alone_in(order, &left, &[op.q]);
                }
            }
        }
    }
}

#[test]
fn the_condition_has_no_query_and_no_key() {
    let (case, op) = case(Elem::F32, 2, 64, 1);
    let left = case.run_everywhere();
    assert!(case.values(&left, op.q).iter().all(|&q| q == 0.0));
    let at = op.cache.at(op.layer, 0, 0, 0);
    assert!(case.values(&left, op.k_cache)[at..at + 64].iter().all(|&k| k == 0.0));
    assert!(case.values(&left, op.v_cache)[at..at + 64].iter().any(|&v| v != 0.0));
}

#[test]
fn matches_its_twin_and_touches_nothing_else_on_cuda() {
    // Heads of 64, 100 and 128, two wide as in B and one of 3B; tails of a tile, of a step and of a slice.
    let sizes = [(12, 64, 2), (8, 100, 9), (3, 128, 17), (2, 4, 3), (5, 8, 65), (6, 20, 130)];
    for (n_head, head_dim, rows) in sizes {
        let (case, op) = case(Elem::Bf16, n_head, head_dim, rows);
        let dim = n_head * head_dim;
        let (before, twin) = (case.twin_before(), case.twin());
        let table = &case.rows.as_ref().expect("the case has rows").1;
        let normed: Vec<Vec<f64>> =
            (0..rows).map(|r| before.rms_norm(op.norm, before.row(op.x, r, dim), op.eps)).collect();
        let wqkv = &before.weights[op.wqkv.index()];
        let error = |r: usize, n: usize| cuda_normed_error(&wqkv[n * dim..][..dim], &normed[r]);
        // A turned element is off by both of its pair's errors, then by three roundings of numbers that are no larger
        // than its pair's length.
        let turned = |r: usize, n: usize| {
            let sum = |n: usize| wqkv[n * dim..][..dim].iter().zip(&normed[r]).map(|(w, y)| w * y).sum::<f64>();
            let (a, b) = (n & !1, n | 1);
            error(r, a) + error(r, b) + 4.0 * U * (sum(a).abs() + sum(b).abs())
        };
        for (place, left) in case.run_on_cuda() {
            let what = format!("{place} {n_head} x {head_dim} x {rows}");
            let q = &twin.buffers[op.q.index()];
            compare(&format!("q {what}"), case.values(&left, op.q), q, |i| turned(i / dim, i % dim));
            for (cache, part) in [(op.k_cache, 1), (op.v_cache, 2)] {
                // The row of the step that wrote an element, and its row of wqkv; the rest must be as it was.
                let mut from = vec![None; case.graph.len_of(cache)];
                for (r, row) in table.iter().enumerate() {
                    for c in 0..dim {
                        let at = op.cache.at(op.layer, row.slot as usize, c / head_dim, row.position as usize);
                        from[at + c % head_dim] = Some((r, part * dim + c));
                    }
                }
                let expected = &twin.buffers[cache.index()];
                compare(&format!("cache {what}"), case.values(&left, cache), expected, |i| match from[i] {
                    None => f64::MIN_POSITIVE,
                    Some((r, n)) => {
                        let computed = if part == 1 { turned(r, n) } else { error(r, n) };
                        computed + (expected[i].abs() + computed) / 512.0
                    }
                });
            }
        }
    }
}

#[test]
fn rows_of_no_slot_leave_the_cache_as_it_was_on_cuda() {
    let (mut case, op) = case(Elem::Bf16, 2, 64, 3);
    for row in &mut case.rows.as_mut().expect("the case has rows").1 {
        row.slot = NO_SLOT;
    }
    for (_, left) in case.run_on_cuda() {
        for (cache, before) in [(op.k_cache, 1e4), (op.v_cache, -1e4)] {
            let before = f64::from(half::bf16::from_f32(before).to_f32());
            assert!(case.values(&left, cache).iter().all(|&value| value == before));
        }
    }
}

#[test]
fn cuda_bits_depend_on_no_shape_and_no_other_row() {
    for (n_head, head_dim) in [(2, 60), (6, 128)] {
        for rows in [1, 2, 7, 15, 16, 31, 63, 255] {
            if n_head * head_dim * rows > 31_000 {
                continue; // the other width has had as many rows
            }
            let (case, op) = case(Elem::Bf16, n_head, head_dim, rows);
            for (device, left) in case.run_on_cuda_of_all_sizes() {
                case.check_rows_alone_on_cuda(device, &left, &[op.q]);
            }
        }
    }
}
