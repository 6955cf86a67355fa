//! Looks up vectors; exact.

use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::harness::{Case, ROW_COUNTS, Random};

#[test]
fn matches_its_twin_exactly() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (dim, rows) in [64, 100, 3200].into_iter().flat_map(|dim| ROW_COUNTS.map(|rows| (dim, rows))) {
            let extent = Extent { rows, draws: 0 };
            let mut graph = Graph::new("embed", extent);
            let op = ops::Embed {
                x: graph.buffer("x", Elem::F32, Per::Row, &[dim], Role::Scratch),
                rows: graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input),
                embedding_table: graph.weight("embedding_table", elem, &[11, dim], Source::Tensor),
                tok_embeddings: graph.weight("tok_embeddings", elem, &[300, dim], Source::Tensor),
                dim,
            };
            let phase = graph.phase("step");
            graph.push(phase, "embed", op.clone());
            let random = &mut Random::new(dim as u64);
            let mut case = Case::new(graph, phase, extent, random);
            let table = (0..rows).map(|r| match r % 3 {
                0 => Row { position: 0, token: random.below(11) as u32, ..Row::default() },
                _ => Row { position: r as u32, token: random.below(300) as u32, ..Row::default() },
            });
            case.rows = Some((op.rows, table.collect()));
            let left = case.run_everywhere();
            assert_eq!(case.values(&left, op.x), case.twin().buffers[op.x.index()]);
            case.check_rows_alone(&left, &[op.x]);
        }
    }
}
