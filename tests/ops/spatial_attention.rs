//! Attention of all pixels to all pixels.
//!
//! Rounding: a score is a chain of C products (λ √C U Σ|q k|, λ = 6, see `conv2d`), scaled; a weight errs by as much
//! as its score plus the exponential's 3 U, and the output by twice that (numerator and sum), relative to the
//! largest |v|, plus the chain over the pixels.

use smalti::graph::ops::SpatialAttention;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row};

use crate::common::compare;
use crate::harness::{Case, Random, U};

fn case(pixels: usize, channels: usize, images: usize, in_place: bool) -> (Case, SpatialAttention) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("spatial_attention", extent);
    let mut buffer = |name: &str| graph.buffer(name, Elem::F32, Per::Row, &[pixels, channels], Role::Scratch);
    let (out, q, k, v) = (buffer("out"), buffer("q"), buffer("k"), buffer("v"));
    let op = SpatialAttention { out: if in_place { q } else { out }, q, k, v, pixels, channels };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("decode");
    graph.push(phase, "spatial_attention", op.clone());
    let random = &mut Random::new((pixels * channels) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    for id in [q, k, v] {
        case.fill(id, random.normals(images * pixels * channels));
    }
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

#[test]
fn matches_its_twin() {
    for (pixels, channels) in [(1, 32), (2, 5), (24, 64), (31, 33), (33, 512), (256, 512), (100, 96)] {
        for in_place in [false, true] {
            let (case, op) = case(pixels, channels, 2, in_place);
            let (left, before, twin) = (case.run_everywhere(), case.twin_before(), case.twin());
            let largest =
                |id: smalti::graph::BufferId| before.buffers[id.index()].iter().fold(0f64, |max, x| max.max(x.abs()));
            let norm = |id: smalti::graph::BufferId| {
                let rows = before.buffers[id.index()].chunks_exact(channels);
                rows.map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max)
            };
            // Σ|q k| ≤ |q| |k|.
            let score = (6.0 * (channels as f64).sqrt() + 2.0) * U * norm(op.q) * norm(op.k) * f64::from(op.scale());
            let allowed = (2.0 * (score + 5.0 * U) + 6.0 * (pixels as f64).sqrt() * U) * largest(op.v);
            let what = format!("{pixels} pixels of {channels}");
            compare(&what, case.values(&left, op.out), &twin.buffers[op.out.index()], |_| allowed);
            case.check_rows_alone(&left, &[op.out]);
        }
    }
}

#[test]
fn equal_keys_give_the_mean() {
    let (mut case, op) = case(4, 32, 1, false);
    case.buffers.retain(|(id, _)| *id != op.k && *id != op.v);
    case.fill(op.k, vec![0.5; 4 * 32]);
    case.fill(op.v, (0..4 * 32).map(|i| (i / 32) as f32).collect());
    assert_eq!(case.values(&case.run_everywhere(), op.out), vec![1.5; 4 * 32]);
}
