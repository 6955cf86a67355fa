//! Matches `graph::ops::set_prefix`.

use bytemuck::Pod;

use super::Context;
use super::simd::Element;
use crate::graph::{Elem, Row, ops};

pub(super) fn run(op: &ops::SetPrefix, cx: &Context<'_>) {
    match op.cache.elem {
        Elem::Bf16 => set::<u16>(op, cx),
        _ => set::<f32>(op, cx),
    }
}

/// The cache holds `T`.
fn set<T: Element + Pod>(op: &ops::SetPrefix, cx: &Context<'_>) {
    let (k_cache, v_cache) = (cx.buffer::<T>(op.k_cache), cx.buffer::<T>(op.v_cache));
    let (prefixes, rows) = (cx.buffer::<f32>(op.prefixes), cx.buffer::<Row>(op.rows));
    let (dim, head_dim) = (op.cache.dim(), op.cache.head_dim);
    cx.member.deal(cx.extent.rows * op.n_layer, 1, |range| {
        for unit in range {
            let (r, layer) = (unit / op.n_layer, unit % op.n_layer);
            // SAFETY: the row is one of the run's and is checked; its slot's part of this layer is this
            // member's, as no two rows of a run name one slot.
            unsafe {
                let row = *rows.add(r);
                op.cache.check(&row);
                let slot = row.slot as usize;
                let from = prefixes.add((slot * op.n_layer + layer) * dim);
                for c in 0..dim {
                    let at = op.cache.at(layer, slot, c / head_dim, 0) + c % head_dim;
                    *k_cache.add(at) = T::from_f32(0.0);
                    *v_cache.add(at) = T::from_f32(*from.add(c));
                }
            }
        }
    });
}
