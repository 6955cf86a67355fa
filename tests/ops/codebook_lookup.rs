//! The codebook's vectors through `post_quant_conv`. Rounding: a chain of E products, then the bias; on CUDA the
//! result once more, to bf16.

use smalti::graph::ops::CodebookLookup;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, Left, Random, U, largest_sum};

/// V, E, Z.
const SIZES: [(usize, usize, usize); 4] = [(16384, 8, 256), (300, 4, 32), (7, 3, 5), (1, 1, 1)];

fn case(elem: Elem, (v, e, z): (usize, usize, usize), pixels: usize, images: usize) -> (Case, CodebookLookup) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("codebook_lookup", extent);
    let op = CodebookLookup {
        x: graph.buffer("x", elem, Per::Row, &[pixels, z], Role::Scratch),
        codes: graph.buffer("codes", Elem::U32, Per::Row, &[pixels], Role::Input),
        codebook: graph.weight("codebook", Elem::F32, &[v, e], Source::Tensor),
        weight: graph.weight("weight", Elem::F32, &[z, e, 1, 1], Source::Tensor),
        bias: graph.weight("bias", Elem::F32, &[z], Source::Tensor),
        pixels,
        codebook_size: v,
        codebook_embed_dim: e,
        z_channels: z,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("decode");
    graph.push(phase, "codebook_lookup", op.clone());
    let random = &mut Random::new((v + pixels) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(op.codes, (0..images * pixels).map(|_| random.below(v) as f32).collect());
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

fn check(case: &Case, op: &CodebookLookup, device: &str, left: &Left) {
    let twin = case.twin();
    let (e, expected) = (op.codebook_embed_dim, &twin.buffers[op.x.index()]);
    let largest: Vec<f64> = twin.buffers[op.codes.index()]
        .iter()
        .map(|&code| largest_sum(&twin, op.weight, &twin.weights[op.codebook.index()][code as usize * e..][..e]))
        .collect();
    let last = if case.graph.at(op.x).elem == Elem::Bf16 { 1.0 / 256.0 } else { U };
    let what = format!("({}, {e}, {}) on {device}", op.codebook_size, op.z_channels);
    compare(&what, case.values(left, op.x), expected, |i| {
        (1.0 + last) * e as f64 * U * largest[i / op.z_channels] + (U + last) * expected[i].abs()
    });
}

#[test]
fn matches_its_twin() {
    for sizes in SIZES {
        for (pixels, images) in [(1, 1), (24, 2), (256, 3)] {
            let (case, op) = case(Elem::F32, sizes, pixels, images);
            let left = case.run_everywhere();
            check(&case, &op, "cpu", &left);
            case.check_rows_alone(&left, &[op.x]);
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    for elem in [Elem::F32, Elem::Bf16] {
        for sizes in SIZES {
            for (pixels, images) in [(1, 1), (24, 2)] {
                let (case, op) = case(elem, sizes, pixels, images);
                for (device, left) in case.run_on_cuda() {
                    check(&case, &op, &device, &left);
                    case.check_rows_alone_on_cuda(&device, &left, &[op.x]);
                }
            }
        }
    }
}

#[test]
fn codes_beyond_the_codebook_do_not_fault_on_cuda() {
    let (mut case, op) = case(Elem::Bf16, (7, 3, 5), 4, 1);
    case.buffers.clear();
    case.fill(op.codes, vec![6.0, 7.0, 4e9, 6.0]);
    for (_, left) in case.run_on_cuda() {
        let found = case.values(&left, op.x);
        assert_eq!(found[5..10], found[..5]);
        assert_eq!(found[10..15], found[15..]);
    }
}
