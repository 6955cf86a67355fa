//! Looks up vectors; exact.

use std::collections::BTreeMap;

use smalti::backend::Executor;
use smalti::checkpoint::Checkpoint;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source, ops};

use crate::common::simt;
use crate::harness::{Case, ROW_COUNTS, Random};

fn case(elem: Elem, dim: usize, rows: usize) -> (Case, ops::Embed) {
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
    (case, op)
}

#[test]
fn matches_its_twin_exactly() {
    for elem in [Elem::F32, Elem::Bf16] {
        for (dim, rows) in [64, 100, 3200].into_iter().flat_map(|dim| ROW_COUNTS.map(|rows| (dim, rows))) {
            let (case, op) = case(elem, dim, rows);
            let left = case.run_everywhere();
            assert_eq!(case.values(&left, op.x), case.twin().buffers[op.x.index()]);
            case.check_rows_alone(&left, &[op.x]);
        }
    }
}

#[test]
fn the_kernel_matches_the_twin_exactly() {
    for (dim, rows) in [(4, 1), (100, 17), (768, 3), (3200, 2)] {
        let (case, op) = case(Elem::Bf16, dim, rows);
        for (executor, left) in case.run_on_cuda() {
            assert_eq!(case.values(&left, op.x), case.twin().buffers[op.x.index()], "{executor}");
            case.check_rows_alone_on_cuda(&executor, &left, &[op.x]);
        }
    }
}

/// Five rows are laid out as eight: the three that fill up leave no trace.
#[test]
fn the_kernel_skips_padding() {
    let (mut case, op) = case(Elem::Bf16, 132, 8);
    case.extent.rows = 5;
    case.rows.as_mut().expect("it has rows").1.truncate(5);
    case.fill(op.x, vec![777.0; 8 * 132]);
    for (executor, left) in case.run_on_cuda() {
        let x = case.values(&left, op.x);
        assert_eq!(x, case.twin().buffers[op.x.index()], "{executor}");
        assert!(x[5 * 132..].iter().all(|&x| x == 777.0), "{executor}: wrote a row that is padding");
    }
}

#[test]
fn what_the_kernel_cannot_do_is_said() {
    for (elem, dim, message) in [
        (Elem::F32, 64, "`embed` of embed: needs `embedding_table` in bf16, found f32"),
        (Elem::Bf16, 42, "needs a width divisible by 4, found 42"),
    ] {
        let (case, _) = case(elem, dim, 1);
        let Ok(executor) = simt::executor(simt::WAYS[0]) else { return };
        let checkpoint = Checkpoint::from_tensors("test", BTreeMap::new(), BTreeMap::new());
        let error = executor.plan(case.graph.clone(), &checkpoint).err().expect("it is refused").to_string();
        assert!(error.contains(message), "{error}");
    }
}
