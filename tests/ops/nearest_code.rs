//! The nearest code of every pixel: equal to the twin's wherever the two best cosines are further apart than
//! two chains of E products err; exact ties go to the lowest code.

use smalti::graph::ops::NearestCode;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::harness::{Case, Left, Random, U};

fn case(v: usize, e: usize, pixels: usize, images: usize) -> (Case, NearestCode) {
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("nearest_code", extent);
    let op = NearestCode {
        codes: graph.buffer("codes", Elem::U32, Per::Row, &[pixels], Role::Output),
        z: graph.buffer("z", Elem::F32, Per::Row, &[pixels, e], Role::Scratch),
        codebook: graph.weight("codebook", Elem::F32, &[v, e], Source::NormalizedTensor),
        pixels,
        codebook_size: v,
        codebook_embed_dim: e,
    };
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let phase = graph.phase("encode");
    graph.push(phase, "nearest_code", op.clone());
    let random = &mut Random::new((v * e + pixels) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    for row in case.weights[0].chunks_exact_mut(e) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x /= norm);
    }
    case.fill(op.z, random.normals(images * pixels * e));
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

fn check(case: &Case, op: &NearestCode, left: &Left) {
    let (v, e) = (op.codebook_size, op.codebook_embed_dim);
    let twin = case.twin();
    let found = case.values(left, op.codes);
    let mut compared = 0;
    for (p, (found, expected)) in found.iter().zip(&twin.buffers[op.codes.index()]).enumerate() {
        let z = twin.row(op.z, p, e);
        let products = twin.product(op.codebook, z);
        // Both |w x| sums are at most |z|; the codebook's lengths are off by (E / 2 + 2) roundings.
        let allowed = 2.0 * (1.5 * e as f64 + 2.0) * U * z.iter().map(|x| x * x).sum::<f64>().sqrt();
        let apart = products[*expected as usize] - products[*found as usize];
        assert!(apart <= allowed, "({v}, {e}): pixel {p}: code {found} is {apart:e} behind {expected}");
        compared += usize::from(found == expected);
    }
    assert!(compared * 100 >= found.len() * 99, "({v}, {e}): only {compared} of {} agree", found.len());
}

#[test]
fn matches_its_twin() {
    for (v, e) in [(16384, 8), (300, 4), (256, 8), (33, 3), (1, 1), (31, 17)] {
        for (pixels, images) in [(1, 1), (24, 2), (17, 3)] {
            let (case, op) = case(v, e, pixels, images);
            let left = case.run_everywhere();
            check(&case, &op, &left);
            case.check_rows_alone(&left, &[op.codes]);
        }
    }
}

#[test]
fn matches_its_twin_on_cuda() {
    for (v, e) in [(16384, 8), (300, 4), (33, 3), (1, 1), (31, 64)] {
        for (pixels, images) in [(1, 1), (11, 3)] {
            let (case, op) = case(v, e, pixels, images);
            for (device, left) in case.run_on_cuda() {
                check(&case, &op, &left);
                case.check_rows_alone_on_cuda(&device, &left, &[op.codes]);
            }
        }
    }
}

/// Codes 40 and 72 point the same way, the others elsewhere.
fn tied() -> (Case, NearestCode) {
    let (mut case, op) = case(100, 2, 3, 1);
    let codebook = (0..100).flat_map(|v| if v == 40 || v == 72 { [1.0, 0.0] } else { [0.0, 1.0] });
    case.weights[0] = codebook.collect();
    case.buffers.clear();
    case.fill(op.z, vec![3.0, 1.0, 0.0, 2.0, 1.0, 1.0]);
    (case, op)
}

#[test]
fn ties_go_to_the_lowest_code() {
    let (case, op) = tied();
    assert_eq!(case.values(&case.run_everywhere(), op.codes), [40.0, 0.0, 0.0]);
}

#[test]
fn ties_go_to_the_lowest_code_on_cuda() {
    let (case, op) = tied();
    for (_, left) in case.run_on_cuda() {
        assert_eq!(case.values(&left, op.codes), [40.0, 0.0, 0.0]);
    }
}
