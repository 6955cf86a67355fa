//! [q; k; v] = wqkv · rms_norm(x), q and k turned by the row's 2-D rotation, k and v put into the cache.
//!
//! Pairs are interleaved: (2i, 2i+1) turn by angle i of `freqs_cis[position]`. At position 0 cosine and
//! sine are both zero, so the condition's q and k are zero, not unrotated; that is LlamaGen's prefix.

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Elem, Extent, Graph, Load, NO_SLOT, Row, WeightId};

/// RMSNorm, the attention's three products, the rotation and the cache write.
#[derive(Clone, Debug)]
pub struct NormQkvRope {
    /// (R, C) out, f32
    pub q: BufferId,
    /// (L, B, H, S, D) the cache's keys; writes (layer, slot, :, position, :)
    pub k_cache: BufferId,
    /// (L, B, H, S, D) the cache's values
    pub v_cache: BufferId,
    /// (R, C) the residual stream, f32
    pub x: BufferId,
    /// (R)
    pub rows: BufferId,
    /// (C)
    pub norm: WeightId,
    /// (3C, C): q, k, v one below the other
    pub wqkv: WeightId,
    /// (S, D/2, 2): cosine, sine; row 0 all zero
    pub freqs_cis: WeightId,
    pub layer: usize,
    pub cache: CacheShape,
    pub eps: f32,
}

/// The cache's dimensions behind the layer.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// B
    pub slots: usize,
    /// H
    pub n_head: usize,
    /// S = 1 + N
    pub positions: usize,
    /// D
    pub head_dim: usize,
    /// [`Elem::F32`] or [`Elem::Bf16`]
    pub elem: Elem,
}

impl CacheShape {
    /// Elements from the cache's beginning to (layer, slot, head, position, 0).
    #[inline(always)]
    pub fn at(&self, layer: usize, slot: usize, head: usize, position: usize) -> usize {
        (((layer * self.slots + slot) * self.n_head + head) * self.positions + position) * self.head_dim
    }

    /// Panics when a row lies outside the cache.
    pub fn check(&self, row: &Row) {
        let (slot, position) = (row.slot as usize, row.position as usize);
        assert!(slot < self.slots && position < self.positions, "{row:?} outside a cache of {self:?}");
    }

    /// C = H * D
    pub fn dim(&self) -> usize {
        self.n_head * self.head_dim
    }
}

impl NormQkvRope {
    pub(super) fn cost(&self, graph: &Graph, load: &Load) -> Cost {
        let (rows, dim) = (load.extent.rows as u64, self.cache.dim() as u64);
        let elem = self.cache.elem.size() as u64;
        Cost {
            weight_bytes: (graph.weight_at(self.norm).bytes() + graph.weight_at(self.wqkv).bytes()) as u64,
            cache_bytes: rows * 2 * dim * elem,
            activation_bytes: rows * 2 * dim * 4,
            flops: rows * 2 * 3 * dim * dim,
        }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        let (dim, d) = (self.cache.dim(), self.cache.head_dim);
        for r in 0..extent.rows {
            let row = twin.rows[r];
            if row.slot == NO_SLOT {
                continue;
            }
            let (slot, position) = (row.slot as usize, row.position as usize);
            let x = twin.rms_norm(self.norm, twin.row(self.x, r, dim), self.eps);
            let mut qkv = twin.product(self.wqkv, &x);
            for (i, pair) in qkv[..2 * dim].chunks_exact_mut(2).enumerate() {
                let angle = (position * (d / 2) + i % (d / 2)) * 2;
                let table = &twin.weights[self.freqs_cis.index()];
                let (cos, sin) = (table[angle], table[angle + 1]);
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
            }
            twin.row_mut(self.q, r, dim).copy_from_slice(&qkv[..dim]);
            for head in 0..self.cache.n_head {
                let at = self.cache.at(self.layer, slot, head, position);
                let (k, v) = (dim + head * d, 2 * dim + head * d);
                twin.buffers[self.k_cache.index()][at..at + d].copy_from_slice(&qkv[k..k + d]);
                twin.buffers[self.v_cache.index()][at..at + d].copy_from_slice(&qkv[v..v + d]);
            }
        }
    }
}
