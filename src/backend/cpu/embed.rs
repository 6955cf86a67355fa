//! Matches `graph::ops::embed`.

use super::Context;
use crate::graph::{Elem, Row, ops};

pub(super) fn run(op: &ops::Embed, cx: &Context<'_>) {
    let (x, rows) = (cx.buffer::<f32>(op.x), cx.buffer::<Row>(op.rows));
    cx.member.deal(cx.extent.rows, 1, |range| {
        for r in range {
            // SAFETY: row r is one of the run's.
            let row = unsafe { *rows.add(r) };
            let table = cx.weight(if row.position == 0 { op.embedding_table } else { op.tok_embeddings });
            assert!((row.token as usize + 1) * op.dim <= table.len(), "{row:?} outside its table");
            // SAFETY: the table has that row; row r of x is this member's.
            unsafe {
                let out = std::slice::from_raw_parts_mut(x.add(r * op.dim), op.dim);
                let at = row.token as usize * op.dim;
                match table.elem() {
                    Elem::Bf16 => {
                        let vector = std::slice::from_raw_parts(table.ptr::<u16>().add(at), op.dim);
                        for (out, bits) in out.iter_mut().zip(vector) {
                            *out = f32::from_bits(u32::from(*bits) << 16);
                        }
                    }
                    Elem::F32 => out.copy_from_slice(std::slice::from_raw_parts(table.ptr::<f32>().add(at), op.dim)),
                    other => unreachable!("no table is of {other:?}"),
                }
            }
        }
    });
}
