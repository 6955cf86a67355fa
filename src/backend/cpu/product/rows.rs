//! Activation rows as products read them, normalized or as they are.

use super::{Matrix, tiles};
use crate::backend::cpu::simd::{LANES, Simd, kernel};
use crate::backend::cpu::{Context, Scratch};
use crate::graph::{BufferId, Graph, WeightId};

/// Activation rows in memory.
#[derive(Clone, Copy)]
pub enum Rows {
    /// (R, K)
    Plain(*const f32),
    /// As [`tiles::pack`] leaves them, for a weight of tiles.
    Packed(*const u32),
}

/// The most rows that every member prepares for itself, and how many more than its share they may be: these are sooner
/// done than waited for and fetched from others' caches.
const FEW: usize = 16;
const MORE: usize = FEW / 2;

/// What a product multiplies: rows as they are, or their RMSNorm.
pub struct Input {
    /// (R, K)
    x: *const f32,
    /// Weight (K) and eps.
    norm: Option<(*const f32, f32)>,
    /// K
    depth: usize,
    /// R
    count: usize,
    /// Whether the weight is of tiles.
    tiles: bool,
    /// Where they are, once they are.
    ready: Option<Rows>,
}

/// The rows of `x` (R, depth), for products with a weight.
pub fn rows(cx: &Context<'_>, x: BufferId, weight: WeightId, depth: usize) -> Input {
    Input::new(cx, x, None, weight, depth)
}

/// RMSNorm of the rows of `x` (R, width), for products with a weight.
///
/// The norm's weight is applied after the division, as LlamaGen does.
pub fn normalize(cx: &Context<'_>, x: BufferId, norm: WeightId, weight: WeightId, width: usize, eps: f32) -> Input {
    Input::new(cx, x, Some((cx.weight(norm).ptr(), eps)), weight, width)
}

impl Input {
    fn new(cx: &Context<'_>, x: BufferId, norm: Option<(*const f32, f32)>, weight: WeightId, depth: usize) -> Self {
        let tiles = matches!(Matrix::of(cx, weight), Matrix::Tiles(_));
        let mut input = Self { x: cx.buffer::<f32>(x), norm, depth, count: cx.extent.rows, tiles, ready: None };
        if norm.is_none() && !tiles {
            input.ready = Some(Rows::Plain(input.x));
        } else if input.count > FEW || input.count - input.count.div_ceil(cx.member.team_size()) > MORE {
            let room = cx.shared_scratch();
            cx.member.deal(input.count, 1, |rows| {
                for r in rows {
                    // SAFETY: x holds row r, and its part of the scratch is this member's.
                    unsafe { input.prepare(cx, room, r) }
                }
            });
            input.ready = Some(input.prepared(room));
        }
        input
    }

    /// All rows, for a member that holds a piece of the phase in which they are multiplied: until it has done that, nobody
    /// writes to what they are made of. `meanwhile` is called before each row that is made.
    pub fn get(&mut self, cx: &Context<'_>, mut meanwhile: impl FnMut(usize)) -> Rows {
        if let Some(rows) = self.ready {
            return rows;
        }
        let room = cx.own_scratch();
        for r in 0..self.count {
            meanwhile(r);
            // SAFETY: x holds row r; the scratch, sized for so many rows, is this member's.
            unsafe { self.prepare(cx, room, r) }
        }
        *self.ready.insert(self.prepared(room))
    }

    /// Makes row `r`.
    ///
    /// # Safety
    /// `x` holds it, `room` is scratch for all rows and its row r nobody else's.
    unsafe fn prepare(&self, cx: &Context<'_>, room: *mut f32, r: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut x = self.x.add(r * self.depth);
            if let Some((weight, eps)) = self.norm {
                let out = room.add(r * self.depth);
                rms_norm(cx.isa, out, x, weight, self.depth, eps);
                x = out;
            }
            if self.tiles {
                tiles::pack(cx.isa, self.packed(room), x, r, self.count, self.depth);
            }
        }
    }

    fn prepared(&self, room: *mut f32) -> Rows {
        if self.tiles { Rows::Packed(self.packed(room)) } else { Rows::Plain(room) }
    }

    /// Where packed rows begin.
    fn packed(&self, room: *mut f32) -> *mut u32 {
        room.wrapping_add(packed_at(self.count, self.depth)).cast()
    }
}

/// Scratch of the rows of a product of `depth`: normalized, and packed behind that.
pub fn scratch(depth: usize, graph: &Graph) -> Scratch {
    let rows = graph.max().rows;
    let room = |rows| packed_at(rows, depth) + rows * tiles::words(depth);
    Scratch { shared: room(rows), own: room(rows.min(FEW)) }
}

/// Where in the scratch packed rows begin: at a cache line.
fn packed_at(rows: usize, depth: usize) -> usize {
    (rows * depth).next_multiple_of(LANES)
}

/// RMSNorm of every row of `x` into `out`, (R, width).
pub fn normalize_into(cx: &Context<'_>, out: *mut f32, x: BufferId, norm: WeightId, width: usize, eps: f32) {
    let (x, weight) = (cx.buffer::<f32>(x), cx.weight(norm).ptr::<f32>());
    cx.member.deal(cx.extent.rows, 1, |rows| {
        for r in rows {
            // SAFETY: row r of x and of `out` is this member's; both are `width` wide.
            unsafe { rms_norm(cx.isa, out.add(r * width), x.add(r * width), weight, width, eps) }
        }
    });
}

kernel!(fn rms_norm(out: *mut f32, x: *const f32, weight: *const f32, width: usize, eps: f32) = rms_norm_body);

#[inline(always)]
unsafe fn rms_norm_body<S: Simd>(out: *mut f32, x: *const f32, weight: *const f32, width: usize, eps: f32) {
    let whole = width / LANES * LANES;
    let rest = width - whole;
    // SAFETY: all three hold `width` elements.
    unsafe {
        let mut squares = S::splat(0.0);
        for at in (0..whole).step_by(LANES) {
            let x = S::load(x.add(at));
            squares = S::fma(x, x, squares);
        }
        if rest > 0 {
            let x = S::load_partial(x.add(whole), rest);
            squares = S::fma(x, x, squares);
        }
        let rstd = S::splat(1.0 / (S::reduce_add(squares) / width as f32 + eps).sqrt());
        for at in (0..whole).step_by(LANES) {
            S::store(out.add(at), S::mul(S::mul(S::load(x.add(at)), rstd), S::load(weight.add(at))));
        }
        if rest > 0 {
            let y = S::mul(S::load_partial(x.add(whole), rest), rstd);
            S::store_partial(out.add(whole), S::mul(y, S::load_partial(weight.add(whole), rest)), rest);
        }
    }
}
