//! The codebook's vectors through `post_quant_conv`. Rounding: a chain of E products, then the bias.

use smalti::graph::ops::CodebookLookup;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, Random, U, largest_sum};

#[test]
fn matches_its_twin() {
    for (v, e, z) in [(16384, 8, 256), (300, 4, 32), (7, 3, 5), (1, 1, 1)] {
        for (pixels, images) in [(1, 1), (24, 2), (256, 3)] {
            let extent = Extent { rows: images, draws: 0 };
            let mut graph = Graph::new("codebook_lookup", extent);
            let op = CodebookLookup {
                x: graph.buffer("x", Elem::F32, Per::Row, &[pixels, z], Role::Scratch),
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
            let codes: Vec<f32> = (0..images * pixels).map(|_| random.below(v) as f32).collect();
            case.fill(op.codes, codes.clone());
            case.rows = Some((table, vec![Row::default(); images]));
            let (left, twin) = (case.run_everywhere(), case.twin());
            let expected = &twin.buffers[op.x.index()];
            let largest: Vec<f64> = codes
                .iter()
                .map(|&code| {
                    let vector = &twin.weights[op.codebook.index()][code as usize * e..][..e];
                    largest_sum(&twin, op.weight, vector)
                })
                .collect();
            compare(&format!("({v}, {e}, {z})"), case.values(&left, op.x), expected, |i| {
                e as f64 * U * largest[i / z] + 2.0 * U * expected[i].abs()
            });
            case.check_rows_alone(&left, &[op.x]);
        }
    }
}
