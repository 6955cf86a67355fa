//! Softmax over a text's own rows with a bias by distance. Rounding as in `attention`, with scores as large as
//! q · k is, since T5 does not scale them. On CUDA, see `check_on_cuda`.

use std::collections::BTreeMap;
use std::ops::Range;

use smalti::backend::Executor;
use smalti::checkpoint::Checkpoint;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::{compare, simt};
use crate::harness::{Case, Left, Random, U, cuda};

const TOKENS: usize = 40;
const BUCKETS: usize = 8;

/// Texts of these lengths, one behind the other.
fn case(n_head: usize, head_dim: usize, lengths: &[usize]) -> (Case, ops::TextAttention) {
    case_of(Elem::F32, [n_head, head_dim, TOKENS], lengths)
}

/// The same with heads and longest text of the shape (H, D, T), and what `out` is held as.
fn case_of(out: Elem, [n_head, head_dim, tokens]: [usize; 3], lengths: &[usize]) -> (Case, ops::TextAttention) {
    let rows: usize = lengths.iter().sum();
    let extent = Extent { rows, draws: 0 };
    let mut graph = Graph::new("text_attention", extent);
    let dim = n_head * head_dim;
    // Distances -39..=39 (T = 40) on 8 buckets, unlike on both sides.
    let buckets: Vec<f32> = (0..2 * tokens - 1).map(|i| (i * i / 3 % BUCKETS) as f32).collect();
    let mut row = |name: &str, elem: Elem| graph.buffer(name, elem, Per::Row, &[dim], Role::Scratch);
    let (out, q, k, v) = (row("out", out), row("q", Elem::F32), row("k", Elem::F32), row("v", Elem::F32));
    let op = ops::TextAttention {
        out,
        q,
        k,
        v,
        rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
        bias: graph.weight("bias", Elem::F32, &[BUCKETS, n_head], Source::Tensor),
        buckets: graph.weight("buckets", Elem::F32, &[2 * tokens - 1], Source::Constant(buckets.into())),
        tokens,
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

            let mut first = 0;
            for &length in lengths {
                let (alone, _) = self::case(n_head, head_dim, &[length]);
                let found = alone_of(&case, &op, alone, first).run_everywhere();
                check_alone(&what, &case, &left, &found, &op, first..first + length);
                first += length;
            }
        }
    }
}

/// A case of one text, whose rows are those of `among` from `first` on.
fn alone_of(among: &Case, op: &ops::TextAttention, mut alone: Case, first: usize) -> Case {
    alone.weights.clone_from(&among.weights);
    for (of_one, (_, of_all)) in alone.buffers.iter_mut().zip(&among.buffers) {
        let (start, len) = (first * op.dim(), of_one.1.len());
        of_one.1.copy_from_slice(&of_all[start..start + len]);
    }
    alone
}

/// The rows `of` a text have the bits that it left when it was alone.
fn check_alone(what: &str, case: &Case, left: &Left, alone: &Left, op: &ops::TextAttention, of: Range<usize>) {
    let row = op.dim() * case.graph.at(op.out).elem.size();
    let (found, among) = (&alone[op.out.index()], &left[op.out.index()]);
    assert!(found[..of.len() * row] == among[of.start * row..of.end * row], "{what}: rows {of:?} depend on others");
}

/// q = 0: a bias of ln 3 for the bucket of distance +1, at index 40 the 5, weighs such keys threefold; distances
/// 0 and -1 are in buckets 3 and 1.
fn a_bias_for_the_next_key() -> (Case, ops::TextAttention, Vec<f64>) {
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
    (case, op, [[0.75; 16], [0.5; 16]].concat())
}

#[test]
fn the_bias_is_of_the_keys_distance() {
    let (case, op, expected) = a_bias_for_the_next_key();
    let left = case.run_everywhere();
    compare("rows 0 and 1", case.values(&left, op.out), &expected, |_| 1e-6);
}

#[test]
fn the_bias_is_of_the_keys_distance_on_cuda() {
    let (case, op, expected) = a_bias_for_the_next_key();
    for (device, left) in case.run_on_cuda() {
        // The weight 1 / 3 is rounded to bf16 and enters 1 / (1 + w), of slope (3 / 4)^2.
        let rounded = BF16_U / 3.0 * 9.0 / 16.0;
        compare(&format!("rows 0 and 1 on {device}"), case.values(&left, op.out), &expected, |_| rounded + 1e-6);
    }
}

/// Half a unit in the last place of bf16.
const BF16_U: f64 = 1.0 / 256.0;

/// q, k and v are rounded to bf16 before anything else, and so they are for the twin here. A score is a chain of
/// D / 16 mma, each rounding, or cutting, within 2 U of Σ|q k|; then the bias is added, and the maximum subtracted: for
/// that and the exponential a weight errs once, and once more at every step of keys that follows. Weights are rounded
/// to bf16, in the numerator and in the sum alike: by 2^-8 / √3 rms each on its own, so the output errs by that times
/// √Σ(w v)² + |out| √Σw², six of those for one element in 10^8. The mix is a chain of mma, too.
fn check_on_cuda(out: Elem, shape: [usize; 3], lengths: &[usize]) {
    let (case, op) = case_of(out, shape, lengths);
    let (mut rounded, _) = case_of(out, shape, lengths);
    for value in rounded.buffers.iter_mut().flat_map(|(_, values)| values) {
        *value = half::bf16::from_f32(*value).to_f32();
    }
    let (before, twin) = (rounded.twin_before(), rounded.twin());
    let expected = &twin.buffers[op.out.index()];
    let table = &case.rows.as_ref().expect("it has rows").1;
    let (dim, d) = (op.dim(), op.head_dim);
    let mut allowed = vec![0.0; expected.len()];
    for (r, head) in (0..table.len()).flat_map(|r| (0..op.n_head).map(move |head| (r, head))) {
        let keys = Row::sequence(table, r);
        let part = head * d..(head + 1) * d;
        let q = &before.row(op.q, r, dim)[part.clone()];
        let bias = |j: usize| {
            let bucket = before.weights[op.buckets.index()][op.tokens - 1 + j - r] as usize;
            before.weights[op.bias.index()][bucket * op.n_head + head]
        };
        let sum = |j: usize, g: fn(f64) -> f64| {
            let k = &before.row(op.k, j, dim)[part.clone()];
            q.iter().zip(k).map(|(q, k)| g(q * k)).sum::<f64>() + g(bias(j))
        };
        let scores: Vec<f64> = keys.clone().map(|j| sum(j, |x| x)).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp() / total).collect();
        let size = keys.clone().map(|j| sum(j, f64::abs)).fold(0.0, f64::max);
        let steps = keys.len().div_ceil(64) as f64;
        let score = (2.0 * (d as f64 / 16.0) + 1.0) * U * size + steps * (2.0 * size + 5.0) * U;
        let chain = 2.0 * (keys.len() as f64 / 16.0 + 4.0) * U;
        let spread = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        for c in part {
            let out = expected[r * dim + c].abs();
            let products = || weights.iter().zip(keys.clone()).map(|(w, j)| w * before.row(op.v, j, dim)[c]);
            let squares = products().map(|x| x * x).sum::<f64>().sqrt();
            let magnitude = products().map(f64::abs).sum::<f64>();
            let rounding = 6.0 / 3f64.sqrt() * BF16_U * (squares + out * spread);
            let error = rounding + (2.0 * score + chain) * (magnitude + out);
            let stored = if case.graph.at(op.out).elem == Elem::Bf16 { BF16_U } else { 0.0 };
            allowed[r * dim + c] = (1.0 + stored) * error + stored * out;
        }
    }
    for (device, left) in case.run_on_cuda() {
        let what = format!("{shape:?}, {lengths:?} on {device}");
        let share = compare(&what, case.values(&left, op.out), expected, |i| allowed[i]);
        println!("{what}: {share:.3} of the allowance");
        let executor = cuda(&device);
        let mut first = 0;
        for &length in lengths {
            let alone = alone_of(&case, &op, case_of(out, shape, &[length]).0, first).run(&executor);
            check_alone(&what, &case, &left, &alone, &op, first..first + length);
            first += length;
        }
    }
}

#[test]
fn matches_its_twin_and_a_text_alone_on_cuda() {
    for (out, shape, lengths) in [
        (Elem::Bf16, [2, 64, 120], &[120][..]),
        (Elem::F32, [2, 64, 150], &[1, 63, 2, 65, 150]),
        (Elem::Bf16, [3, 16, 40], &[3, 1, 17]),
        (Elem::F32, [1, 128, 70], &[20, 20, 33, 70]),
        (Elem::Bf16, [1, 80, 129], &[63, 129]),
        (Elem::F32, [1, 48, 1], &[1]),
    ] {
        check_on_cuda(out, shape, lengths);
    }
}

/// 65 rows are laid out as 128. A text whose numbers are none, and padding, have no part in the text between them.
#[test]
fn neither_padding_nor_another_text_is_read_on_cuda() {
    let shape = [2, 48, 70];
    let (mut case, op) = case_of(Elem::F32, shape, &[3, 62, 70]);
    let dim = op.dim();
    for (_, values) in &mut case.buffers {
        values[..3 * dim].fill(f32::NAN);
        values[65 * dim..].fill(f32::NAN);
    }
    case.fill(op.out, vec![777.0; 135 * dim]);
    case.extent.rows = 65;
    case.rows.as_mut().expect("it has rows").1.truncate(65);
    let alone = alone_of(&case, &op, case_of(Elem::F32, shape, &[62]).0, 3).run_on_cuda();
    for ((device, left), (_, alone)) in case.run_on_cuda().into_iter().zip(alone) {
        check_alone(&device, &case, &left, &alone, &op, 3..65);
        let out = case.values(&left, op.out);
        assert!(out[3 * dim..65 * dim].iter().all(|x| x.abs() < 4.0), "{device}: a row was left out");
        assert!(out[65 * dim..].iter().all(|&x| x == 777.0), "{device}: wrote a row that is padding");
    }
}

#[test]
fn what_the_kernels_cannot_do_is_said() {
    for (out, shape, message) in [
        (Elem::U32, [1, 64, 5], "`text_attention` of text_attention: needs `out` in f32 or bf16, found u32"),
        (Elem::F32, [1, 24, 5], "needs heads of a width divisible by 16, at most 128, found 24"),
        (Elem::F32, [1, 144, 5], "at most 128, found 144"),
        (Elem::F32, [1, 64, 4097], "needs texts of at most 4096 rows, found 4097"),
    ] {
        let (case, _) = case_of(out, shape, &[1]);
        let Ok(executor) = simt::executor(simt::WAYS[0]) else { return };
        let checkpoint = Checkpoint::from_tensors("test", BTreeMap::new(), BTreeMap::new());
        let error = executor.plan(case.graph.clone(), &checkpoint).err().expect("it is refused").to_string();
        assert!(error.contains(message), "{error}");
    }
}
