//! Attention of all pixels to all pixels.
//!
//! Rounding: a score is a chain of C products (λ √C U Σ|q k|, λ = 6, see `conv2d`), scaled; a weight errs by as much
//! as its score plus the exponential's 3 U, and the output by twice that (numerator and sum), relative to the
//! largest |v|, plus the chain over the pixels. On CUDA, see `check_on_cuda`.

use smalti::graph::ops::SpatialAttention;
use smalti::graph::twin::Twin;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, Random, U};

fn case(elem: Elem, pixels: usize, channels: usize, images: usize) -> (Case, SpatialAttention) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("spatial_attention", extent);
    let out = graph.buffer("out", elem, Per::Row, &[pixels, channels], Role::Scratch);
    let qkv = graph.buffer("qkv", elem, Per::Row, &[pixels, 3 * channels], Role::Scratch);
    let op = SpatialAttention { out, qkv, pixels, channels };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("decode");
    graph.push(phase, "spatial_attention", op.clone());
    let random = &mut Random::new((pixels * channels) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(qkv, random.normals(images * pixels * 3 * channels));
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

/// q, k or v (0, 1, 2) of a pixel of the twin's.
fn part<'a>(twin: &'a Twin<'_>, op: &SpatialAttention, pixel: usize, part: usize) -> &'a [f64] {
    &twin.row(op.qkv, pixel, 3 * op.channels)[part * op.channels..][..op.channels]
}

#[test]
fn matches_its_twin() {
    for (pixels, channels) in [(1, 32), (2, 5), (24, 64), (31, 33), (33, 512), (256, 512), (100, 96)] {
        let (case, op) = case(Elem::F32, pixels, channels, 2);
        let (left, before, twin) = (case.run_everywhere(), case.twin_before(), case.twin());
        let largest_of = |of: usize, size: fn(&[f64]) -> f64| {
            (0..2 * pixels).map(|pixel| size(part(&before, &op, pixel, of))).fold(0.0, f64::max)
        };
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Σ|q k| ≤ |q| |k|.
        let products = largest_of(0, norm) * largest_of(1, norm) * f64::from(op.scale());
        let score = (6.0 * (channels as f64).sqrt() + 2.0) * U * products;
        let largest = largest_of(2, |row| row.iter().fold(0f64, |max, x| max.max(x.abs())));
        let allowed = (2.0 * (score + 5.0 * U) + 6.0 * (pixels as f64).sqrt() * U) * largest;
        let what = format!("{pixels} pixels of {channels}");
        compare(&what, case.values(&left, op.out), &twin.buffers[op.out.index()], |_| allowed);
        case.check_rows_alone(&left, &[op.out]);
    }
}

/// Four pixels with the same key, whose values are their numbers.
fn equal_keys(elem: Elem) -> (Case, SpatialAttention) {
    let (mut case, op) = case(elem, 4, 32, 1);
    let (_, qkv) = case.buffers.iter_mut().find(|(id, _)| *id == op.qkv).unwrap();
    for (pixel, qkv) in qkv.chunks_exact_mut(3 * 32).enumerate() {
        qkv[32..64].fill(0.5);
        qkv[64..].fill(pixel as f32);
    }
    (case, op)
}

#[test]
fn equal_keys_give_the_mean() {
    let (case, op) = equal_keys(Elem::F32);
    assert_eq!(case.values(&case.run_everywhere(), op.out), vec![1.5; 4 * 32]);
}

#[test]
fn equal_keys_give_the_mean_on_cuda() {
    let (case, op) = equal_keys(Elem::Bf16);
    for (_, left) in case.run_on_cuda() {
        assert_eq!(case.values(&left, op.out), vec![1.5; 4 * 32]);
    }
}

/// q, k and v go into the products as they are. A score is a chain of C / 16 mma, each rounding, or cutting, within
/// 2 U of Σ|q k|; its error and the exponential's are those of a weight w, twice in all (numerator and sum). Weights
/// are rounded to bf16, in the numerator and in the sum alike: by 2^-8 / √3 rms each on its own, so the output errs by
/// that times √Σ(w v)² + |out| √Σw², six of those for one element in 10^8. The mix is a chain of mma, too, and the
/// result is rounded to bf16.
fn check_on_cuda(pixels: usize, channels: usize, images: usize) {
    const BF16_U: f64 = 1.0 / 256.0;
    let (case, op) = case(Elem::Bf16, pixels, channels, images);
    let (before, twin) = (case.twin_before(), case.twin());
    let expected = &twin.buffers[op.out.index()];
    let mut allowed = Vec::with_capacity(expected.len());
    for p in 0..images * pixels {
        let keys = p / pixels * pixels..(p / pixels + 1) * pixels;
        let q = part(&before, &op, p, 0);
        let sum = |j: usize, g: fn(f64) -> f64| {
            q.iter().zip(part(&before, &op, j, 1)).map(|(q, k)| g(q * k)).sum::<f64>() * f64::from(op.scale())
        };
        let scores: Vec<f64> = keys.clone().map(|j| sum(j, |x| x)).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp() / total).collect();
        let size = keys.clone().map(|j| sum(j, f64::abs)).fold(0.0, f64::max);
        let score = 2.0 * (channels as f64 / 16.0 + 2.0) * U * size + 4.0 * U;
        let chain = 2.0 * (pixels as f64 / 16.0 + 2.0 + pixels as f64 / 128.0) * U;
        let spread = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        for c in 0..channels {
            let out = expected[p * channels + c].abs();
            let products = || weights.iter().zip(keys.clone()).map(|(w, j)| w * part(&before, &op, j, 2)[c]);
            let squares = products().map(|x| x * x).sum::<f64>().sqrt();
            let magnitude = products().map(f64::abs).sum::<f64>();
            let rounded = 6.0 / 3f64.sqrt() * BF16_U * (squares + out * spread);
            let error = rounded + (2.0 * score + chain) * (magnitude + out);
            allowed.push((1.0 + BF16_U) * error + BF16_U * out);
        }
    }
    for (device, left) in case.run_on_cuda() {
        let what = format!("{pixels} pixels of {channels} on {device}");
        let share = compare(&what, case.values(&left, op.out), expected, |i| allowed[i]);
        println!("{what}: {share:.3} of the allowance");
        // An image alone is cut into smaller tiles.
        case.check_rows_alone_on_cuda(&device, &left, &[op.out]);
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    for (pixels, channels) in [(1, 32), (24, 64), (33, 512), (150, 96), (17, 160), (260, 64)] {
        check_on_cuda(pixels, channels, 3);
    }
}
