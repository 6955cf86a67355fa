//! The same by lanes: sixteen weight rows in the lanes of a vector, several such panels and several activation rows side
//! by side.

use std::ops::Range;

use super::{Epilogue, Operands, Piece};
use crate::backend::cpu::memory::Arrangement;
use crate::backend::cpu::simd::{Isa, LANES, LINE, Simd, kernel, prefetch};
use crate::graph::Elem;

/// Weight rows of a panel.
pub const ROWS: usize = LANES;

/// The most panels that are read side by side.
const SIDE: usize = 4;

/// The most activation rows that meet them at once.
const HEIGHT: usize = 8;

/// Bytes of weights that are asked for before they are needed.
const AHEAD: usize = 8 << 10;

/// Elements of a weight row from one request to memory to the next.
const STEP: usize = 8;

/// Finished sums of each activation row and panel.
type Sums = [[f32; SIDE * ROWS]; HEIGHT];

/// What a weight's panels hold.
pub trait Factor: Copy {
    /// Successive elements of a weight row that lie together.
    const PER: usize;

    /// Element k of sixteen weight rows.
    ///
    /// # Safety
    /// `from` is good for PER times sixteen elements.
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
    /// Elements k and k + 1 of sixteen weight rows.
    ///
    /// # Safety
    /// `from` is good for 32 elements.
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2];
}

impl Factor for f32 {
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2] {
        unsafe { [S::load(from), S::load(from.add(LANES))] }
    }
}

/// bf16 as its bits, in pairs of a row.
impl Factor for u16 {
    const PER: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { Self::load_two::<S>(from)[0] }
    }

    #[inline(always)]
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2] {
        unsafe { S::widen(S::load_pairs(from.cast())) }
    }
}

/// Where the panel of weight row `n` begins, in elements, among those of rows of `depth` elements.
pub fn at<T: Factor>(n: usize, depth: usize) -> usize {
    n / ROWS * depth.next_multiple_of(T::PER) * ROWS
}

/// A weight (N, K) in the order in which it is read, zero beyond both ends: (N / 16, K, 16 rows), of bf16
/// (N / 16, K / 2, 16 rows, 2).
pub fn arrangement(elem: Elem, n: usize, k: usize) -> Arrangement {
    let n = n.next_multiple_of(ROWS);
    match elem {
        Elem::Bf16 => Arrangement::bf16("lanes", at::<u16>(n, k), move |weight, panels| arrange(weight, panels, k)),
        _ => Arrangement::new("lanes", at::<f32>(n, k), move |weight, panels| arrange(weight, panels, k)),
    }
}

/// The same for all of a weight.
fn arrange<T: Factor>(weight: &[T], panels: &mut [T], k: usize) {
    for (rows, panel) in weight.chunks(ROWS * k).zip(panels.chunks_exact_mut(at::<T>(ROWS, k))) {
        for (step, words) in panel.chunks_exact_mut(T::PER * ROWS).enumerate() {
            let (from, count) = (step * T::PER, T::PER.min(k - step * T::PER));
            for (word, row) in words.chunks_exact_mut(T::PER).zip(rows.chunks_exact(k)) {
                word[..count].copy_from_slice(&row[from..from + count]);
            }
        }
    }
}

/// As [`super::product`], of a weight in this [`arrangement`] and rows as they are.
///
/// Goes through the weight once: a few panels meet all activation rows, some at a time, while they are in the cache.
///
/// # Safety
/// As there.
pub unsafe fn product<T: Factor, E: Epilogue>(isa: Isa, p: Operands<T>, piece: Piece, epilogue: &mut E) {
    let mut sums = [[0f32; SIDE * ROWS]; HEIGHT];
    // SAFETY: `isa` is one of this processor's.
    let (side, most) = unsafe { most(isa, p.rows) };
    // As even as so many passes can be.
    let passes = p.rows.div_ceil(most);
    let height = p.rows.div_ceil(passes);
    let stride = at::<T>(ROWS, p.depth);
    let Range { mut start, end } = piece.rows;
    while start < end {
        // Whole panels, though a piece may begin or end within one.
        let skip = (p.first + start) % ROWS;
        let side = match (skip + end - start).div_ceil(ROWS) {
            left if left >= side => side,
            2.. => 2.min(side),
            _ => 1,
        };
        let count = (end - start).min(side * ROWS - skip);
        let weight = p.weight.wrapping_add(at::<T>(p.first + start, p.depth));
        let after = weight.wrapping_add(side * stride).cast();
        let next = if start + count == end { piece.next } else { after };
        let mut ahead = Ahead::new::<T>(weight.cast(), next, stride, side, passes);
        let mut first = 0;
        while first < p.rows {
            let height = height.min(p.rows - first);
            let tile = Tile { weight, stride, x: p.x.wrapping_add(first * p.depth), depth: p.depth };
            // SAFETY: the weight has these panels, x these rows; all elements are the piece's.
            unsafe {
                multiply(isa, tile, (side, height), &mut ahead, &mut sums);
                store(isa, epilogue, first, start, &mut sums[..height], skip..skip + count);
            }
            first += height;
        }
        start += count;
    }
}

kernel!(
    /// The most panels and activation rows of a tile, of a product of so many rows: enough sums to hide the latency of
    /// multiply-adds, and no more than registers hold.
    fn most(rows: usize) -> (usize, usize) = most_body
);

#[inline(always)]
unsafe fn most_body<S: Simd>(rows: usize) -> (usize, usize) {
    match (S::REGISTERS >= 32, rows) {
        (true, ..=3) => (SIDE, 3),
        (true, _) => (2, HEIGHT),
        // A vector takes two of sixteen registers.
        (false, 1) => (SIDE, 1),
        (false, 2) => (2, 2),
        (false, _) => (1, 6),
    }
}

kernel!(
    /// Hands over the sums of activation rows from `first` on, which are those of weight rows from `n` on.
    fn store[E: Epilogue](epilogue: &mut E, first: usize, n: usize, sums: &mut [[f32; SIDE * ROWS]], range: Range<usize>) = store_body
);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the compiler vectorizes epilogues for it
unsafe fn store_body<S: Simd, E: Epilogue>(
    epilogue: &mut E,
    first: usize,
    n: usize,
    sums: &mut [[f32; SIDE * ROWS]],
    range: Range<usize>,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        epilogue.store(first + r, n, &mut sums[range.clone()]);
    }
}

/// Asks memory for the weights behind those that a tile reads, evenly over its passes. In bursts, memory would have
/// nothing to do meanwhile.
struct Ahead {
    /// What is asked for next in the first panel; the others follow at `stride` bytes.
    at: *const u8,
    stride: usize,
    /// Requests until the tile's panels end, and where the next ones begin.
    left: usize,
    next: *const u8,
    /// Steps from one request to the next.
    every: usize,
    /// Steps until the next request.
    wait: usize,
}

impl Ahead {
    /// For `side` panels at `weight`, `stride` elements each, that are gone through `passes` times and followed by `next`.
    fn new<T>(weight: *const u8, next: *const u8, stride: usize, side: usize, passes: usize) -> Self {
        let stride = stride * size_of::<T>();
        // A second pass finds them in the cache if the first did: then all were asked for before it.
        let lead = if passes > 1 { stride } else { (AHEAD / side).min(stride) };
        Self { at: weight.wrapping_add(lead), stride, left: stride - lead, next, every: passes, wait: 0 }
    }

    /// Once per step of `bytes` of `side` panels.
    #[inline(always)]
    fn step(&mut self, side: usize, bytes: usize) {
        if self.wait == 0 {
            if self.left < bytes {
                (self.at, self.left) = (self.next, usize::MAX);
            }
            for panel in 0..side {
                for line in (0..bytes).step_by(LINE) {
                    prefetch(self.at.wrapping_add(panel * self.stride + line));
                }
            }
            self.at = self.at.wrapping_add(bytes);
            self.left -= bytes;
            self.wait = self.every;
        }
        self.wait -= 1;
    }
}

/// Panels and activation rows that meet.
#[derive(Clone, Copy)]
struct Tile<T> {
    weight: *const T,
    /// Elements from panel to panel.
    stride: usize,
    /// Rows of `depth` elements.
    x: *const f32,
    depth: usize,
}

kernel!(
    /// sums[h, 16 s + i] = Σ_k weight[s, k, i] * x[h, k] of a tile of `side` panels and `height` rows.
    fn multiply[T: Factor](tile: Tile<T>, shape: (usize, usize), ahead: &mut Ahead, sums: &mut Sums) = multiply_body
);

#[inline(always)]
unsafe fn multiply_body<S: Simd, T: Factor>(tile: Tile<T>, shape: (usize, usize), ahead: &mut Ahead, sums: &mut Sums) {
    // SAFETY: the caller's.
    unsafe {
        match shape {
            (SIDE, 1) => tile.run::<S, SIDE, 1>(ahead, sums),
            (2, 1) => tile.run::<S, 2, 1>(ahead, sums),
            (2, 2) => tile.run::<S, 2, 2>(ahead, sums),
            (1, 1) => tile.run::<S, 1, 1>(ahead, sums),
            (1, 2) => tile.run::<S, 1, 2>(ahead, sums),
            (1, 3) => tile.run::<S, 1, 3>(ahead, sums),
            (1, 4) => tile.run::<S, 1, 4>(ahead, sums),
            (1, 5) => tile.run::<S, 1, 5>(ahead, sums),
            (1, 6) => tile.run::<S, 1, 6>(ahead, sums),
            _ if S::REGISTERS < 32 => unreachable!("no tile is {shape:?}"),
            (SIDE, 2) => tile.run::<S, SIDE, 2>(ahead, sums),
            (SIDE, 3) => tile.run::<S, SIDE, 3>(ahead, sums),
            (2, 3) => tile.run::<S, 2, 3>(ahead, sums),
            (2, 4) => tile.run::<S, 2, 4>(ahead, sums),
            (2, 5) => tile.run::<S, 2, 5>(ahead, sums),
            (2, 6) => tile.run::<S, 2, 6>(ahead, sums),
            (2, 7) => tile.run::<S, 2, 7>(ahead, sums),
            (2, 8) => tile.run::<S, 2, 8>(ahead, sums),
            (1, 7) => tile.run::<S, 1, 7>(ahead, sums),
            (1, 8) => tile.run::<S, 1, 8>(ahead, sums),
            _ => unreachable!("no tile is {shape:?}"),
        }
    }
}

impl<T: Factor> Tile<T> {
    /// `N` panels and `H` rows, their sums in registers and then in `to`.
    #[inline(always)]
    unsafe fn run<S: Simd, const N: usize, const H: usize>(self, ahead: &mut Ahead, to: &mut Sums) {
        let Self { weight, stride, x, depth } = self;
        // SAFETY: the caller vouches for the panels and the rows.
        unsafe {
            let mut sums = [[S::splat(0.0); N]; H];
            let mut k = 0;
            while k + 2 <= depth {
                let stop = (k + STEP).min(depth);
                ahead.step(N, STEP * LANES * size_of::<T>());
                while k + 2 <= stop {
                    let w: [_; N] = std::array::from_fn(|n| T::load_two::<S>(weight.add(n * stride + k * LANES)));
                    for two in 0..2 {
                        for (h, sums) in sums.iter_mut().enumerate() {
                            let x = S::splat(*x.add(h * depth + k + two));
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = S::fma(w[two], x, *sum);
                            }
                        }
                    }
                    k += 2;
                }
            }
            if k < depth {
                for (n, panel) in (0..N).map(|n| (n, weight.add(n * stride + k * LANES))) {
                    let w = T::load::<S>(panel);
                    for (h, sums) in sums.iter_mut().enumerate() {
                        sums[n] = S::fma(w, S::splat(*x.add(h * depth + k)), sums[n]);
                    }
                }
            }
            for (sums, to) in sums.into_iter().zip(to) {
                for (n, sum) in sums.into_iter().enumerate() {
                    S::store(to[n * LANES..].as_mut_ptr(), sum);
                }
            }
        }
    }
}
