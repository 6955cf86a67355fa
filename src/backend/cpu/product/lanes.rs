//! The same by lanes: a weight row in each lane of a vector, and several activation rows side by side.

mod ahead;
mod multiply;

use std::ops::Range;

use self::ahead::Ahead;
use self::multiply::{Shape, multiply};
use super::{Epilogue, Operands, Piece};
use crate::backend::cpu::memory::Arrangement;
use crate::backend::cpu::simd::{Isa, LANES, LINE, Simd, kernel};
use crate::graph::Elem;

/// Vectors of weight rows in a panel.
const VECTORS: usize = 2;

/// Weight rows of a panel.
pub const ROWS: usize = VECTORS * LANES;

/// Panels that are read side by side, at most.
const PANELS: usize = 4;

/// The most activation rows whose sums grow together. A part of a panel meets them all, some at a time.
const BLOCK: usize = 16;

/// Bytes of a panel that are a part; half of it where registers are few. With the activations that meet it and what is
/// asked for meanwhile, about a first cache of 32 KB. Each part costs the sums a way to memory and back.
const PART: usize = 16 << 10;

/// Bytes of weights that are asked for before they are needed where a part is gone through several times: with less,
/// they come too late.
const LEAD: usize = 8 << 10;

/// The same, at most, of what is gone through once: panels of 49 KB go by on a Zen 4 core at 29 GB/s so, at 27 with
/// 8 KB and 28 with 3.
const LEAD_ONCE: usize = 4 << 10;

/// The same of each of several panels that are read side by side; half of it where registers are few. On Zen 3 it is the
/// processor that runs ahead, and requests only set it going.
const LEAD_EACH: usize = 1 << 10;

/// What a weight's panels hold.
pub trait Stored: Copy {
    /// Successive elements of a weight row that lie together.
    const PER: usize;

    /// Element k of sixteen of a panel's rows, at `from`.
    ///
    /// # Safety
    /// There are PER elements of these rows.
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
    /// Elements k and k + 1 of sixteen of a panel's rows.
    ///
    /// # Safety
    /// There are both.
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2];
}

impl Stored for f32 {
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2] {
        unsafe { [S::load(from), S::load(from.add(ROWS))] }
    }
}

/// bf16 as its bits, in pairs of a row.
impl Stored for u16 {
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
pub fn at<T: Stored>(n: usize, depth: usize) -> usize {
    n / ROWS * depth.next_multiple_of(T::PER) * ROWS
}

/// A weight (N, K) in the order in which it is read, zero beyond both ends: (N / 32, K, 32 rows), of bf16
/// (N / 32, K / 2, 32 rows, 2).
pub fn arrangement(elem: Elem, n: usize, k: usize) -> Arrangement {
    let n = n.next_multiple_of(ROWS);
    match elem {
        Elem::Bf16 => Arrangement::bf16("lanes", at::<u16>(n, k), move |weight, panels| arrange(weight, panels, k)),
        _ => Arrangement::new("lanes", at::<f32>(n, k), move |weight, panels| arrange(weight, panels, k)),
    }
}

/// Fills `panels` as [`arrangement`] says, a cache line of every row at a time.
fn arrange<T: Stored>(weight: &[T], panels: &mut [T], k: usize) {
    let (step, line) = (T::PER * ROWS, LINE / size_of::<T>());
    for (rows, panel) in weight.chunks(ROWS * k).zip(panels.chunks_exact_mut(at::<T>(ROWS, k))) {
        for (i, steps) in panel.chunks_mut(line * ROWS).enumerate() {
            for (n, row) in rows.chunks_exact(k).enumerate() {
                let words = row[i * line..k.min((i + 1) * line)].chunks_exact(T::PER);
                // Of an odd k, half a pair.
                let rest = words.remainder();
                if !rest.is_empty() {
                    steps[words.len() * step + n * T::PER..][..rest.len()].copy_from_slice(rest);
                }
                for (word, to) in words.zip(steps.chunks_exact_mut(step)) {
                    to[n * T::PER..][..T::PER].copy_from_slice(word);
                }
            }
        }
    }
}

/// As [`super::product`], of a weight in this [`arrangement`] and rows as they are.
///
/// Goes through the weight once: a panel, a part of it after the other, meets all activation rows, some at a time,
/// while it is in the cache; or several panels one after the other, if all rows meet each at once. Memory is read in the
/// order of its addresses: on two Zen 5 cores, two rows and 134 MB of bf16, at 46 to 49 GB/s, as fast as by loads alone;
/// four panels of sixteen rows side by side at 38 to 40. Where [`Isa::wants_streams`] it is the other way round, and few
/// activation rows meet several panels side by side: on two Zen 3 cores, two rows, at 24 GB/s of bf16 instead of 21 and, when
/// others left them more of memory, at 33 of f32 instead of 22.
///
/// # Safety
/// As there.
pub unsafe fn product<T: Stored, E: Epilogue>(isa: Isa, p: Operands<*const T>, piece: Piece, epilogue: &mut E) {
    // SAFETY: `isa` is one of this processor's; the rest is passed on.
    unsafe { product_as(fit(isa, p.rows, isa.wants_streams()), isa, p, piece, epilogue) }
}

/// The same, fitted so.
unsafe fn product_as<T: Stored, E: Epilogue>(
    Fit { vectors: widest, rows: most, part, ahead: [alone, each] }: Fit,
    isa: Isa,
    p: Operands<*const T>,
    piece: Piece,
    epilogue: &mut E,
) {
    let groups = p.rows.div_ceil(most).max(1);
    // As even as so many groups can be.
    let height = p.rows.div_ceil(groups).max(1);
    let block = BLOCK / height * height;
    let passes = groups * VECTORS.div_ceil(widest);
    // What is gone through once need not wait in the first cache.
    let part = if passes == 1 { p.depth.max(1) } else { part / (ROWS * size_of::<T>()) };
    // Room for several panels, too: the more of them, the fewer rows.
    let mut sums = [0f32; BLOCK * ROWS];
    let Range { mut start, end } = piece.rows;
    while start < end {
        // Whole panels, though a piece may begin or end within one.
        let skip = (p.first + start) % ROWS;
        let left = (skip + end - start).div_ceil(ROWS);
        let beside = 1 << left.min((widest / VECTORS).max(1)).ilog2();
        // As many one after the other as there is room for: between two of a run, memory has no rest.
        let panels = if passes == 1 && beside == 1 { left.min(BLOCK / height) } else { beside };
        let vectors = widest.min(beside * VECTORS);
        let count = (end - start).min(panels * ROWS - skip);
        let (panel, len) = (p.weight.wrapping_add(at::<T>(p.first + start, p.depth)), at::<T>(ROWS, p.depth));
        let next = if start + count == end { piece.next } else { panel.wrapping_add(panels * len).cast() };
        let bytes = panels / beside * len * size_of::<T>();
        // Spread over passes of the whole, requests for the panel itself would come after the first has read it.
        let near = p.rows <= block;
        let lead = match (passes, beside) {
            _ if !near => bytes,
            (1, 1) => alone.min(bytes),
            (1, _) => each.min(bytes),
            _ => LEAD.min(bytes),
        };
        let at = panel.cast::<u8>().wrapping_add(lead);
        let apart = len * size_of::<T>();
        let mut ahead = Ahead { at, left: bytes - lead, next, apart, every: passes, gone: 0, near };
        for first in (0..p.rows).step_by(block) {
            let width = panels * ROWS;
            let sums = &mut sums[..block.min(p.rows - first) * width];
            for k in (0..p.depth).step_by(part) {
                let panel = panel.wrapping_add(k * ROWS);
                for (group, sums) in sums.chunks_mut(height * width).enumerate() {
                    let x = p.x.wrapping_add((first + group * height) * p.depth + k);
                    let shape = Shape { vectors, panels, depth: part.min(p.depth - k) };
                    // SAFETY: the weight has these panels, x these rows.
                    unsafe { multiply(isa, (panel, len), (x, p.depth), shape, &mut ahead, (sums, k > 0)) };
                }
            }
            if p.depth == 0 {
                sums.fill(0.0);
            }
            // SAFETY: all elements are the piece's.
            unsafe { store(isa, epilogue, (first, start), (sums, width), skip..skip + count) };
        }
        start += count;
    }
}

/// What a processor's registers and memory are good for.
struct Fit {
    /// The most vectors of weight rows that activation rows meet at once.
    vectors: usize,
    /// The most such rows: no more sums, of panels in turn those of one, than registers hold beside what they are made of.
    rows: usize,
    /// [`PART`], or half of it.
    part: usize,
    /// What suits the processor of up to [`LEAD_ONCE`], and of each of several panels that are read side by side.
    ahead: [usize; 2],
}

kernel!(
    /// How so many activation rows meet a panel, or several side by side if they may.
    fn fit(rows: usize, streams: bool) -> Fit = fit_body
);

#[inline(always)]
unsafe fn fit_body<S: Simd>(rows: usize, streams: bool) -> Fit {
    let (vectors, rows) = match rows {
        ..=2 if S::REGISTERS >= 32 && streams => (PANELS * VECTORS, 2),
        ..=4 if S::REGISTERS >= 32 && streams => (2 * VECTORS, 4),
        _ if S::REGISTERS >= 32 => (VECTORS, 8),
        // AVX2's vectors take two of sixteen registers, so panels side by side take turns.
        ..=2 if streams => (PANELS * VECTORS, 2),
        ..=2 => (VECTORS, 2),
        _ => (1, 4),
    };
    let part = if S::REGISTERS >= 32 { PART } else { PART / 2 };
    let each = if S::REGISTERS >= 32 { LEAD_EACH } else { LEAD_EACH / 2 };
    Fit { vectors, rows, part, ahead: [S::AHEAD.min(LEAD_ONCE), each] }
}

kernel!(
    /// Hands over a `range` of the sums, rows of `sums.1`, of activation rows from `first.0` on; they are those of
    /// weight rows from `first.1` on.
    fn store[E: Epilogue](
        epilogue: &mut E,
        first: (usize, usize),
        sums: (&mut [f32], usize),
        range: Range<usize>,
    ) = store_body
);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the compiler vectorizes epilogues for it
unsafe fn store_body<S: Simd, E: Epilogue>(
    epilogue: &mut E,
    first: (usize, usize),
    (sums, width): (&mut [f32], usize),
    range: Range<usize>,
) {
    for (r, sums) in sums.chunks_exact_mut(width).enumerate() {
        epilogue.store(first.0 + r, first.1, &mut sums[range.clone()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 7 * ROWS;
    const DEPTH: usize = 37;

    /// (height, WIDTH)
    struct Collect(Vec<f32>);

    impl Epilogue for Collect {
        fn store(&mut self, r: usize, n: usize, sums: &mut [f32]) {
            self.0[r * WIDTH + n..][..sums.len()].copy_from_slice(sums);
        }
    }

    /// Numbers from -1 to 1.
    fn random() -> impl FnMut() -> f32 {
        let mut state = 1u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    fn panels_side_by_side<T: Stored>(isa: Isa, weight: impl Fn(f32) -> T) {
        let mut random = random();
        let panels: Vec<T> = (0..at::<T>(WIDTH, DEPTH)).map(|_| weight(random())).collect();
        let x: Vec<f32> = (0..5 * DEPTH).map(|_| random()).collect();
        for rows in 1..=5 {
            // A piece that begins and ends within a panel: side by side four panels, then two, then the last.
            let [alone, beside] = [false, true].map(|streams| {
                let mut sums = Collect(vec![0.0; rows * WIDTH]);
                let operands = Operands { weight: panels.as_ptr(), first: 0, x: x.as_ptr(), depth: DEPTH, rows };
                let piece = Piece { rows: 6..WIDTH - 6, next: panels.as_ptr().cast() };
                // SAFETY: the weight has these rows, x its own; the processor has the instruction set.
                unsafe { product_as(fit(isa, rows, streams), isa, operands, piece, &mut sums) };
                sums.0
            });
            assert!(alone.chunks(WIDTH).all(|sums| sums[6..WIDTH - 6].iter().all(|&sum| sum != 0.0)));
            let bits = |sums: Vec<f32>| sums.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(beside), bits(alone), "{isa:?}, {rows} rows");
        }
    }

    /// Against the chain of multiply-adds that each sum is.
    fn sums_are_chains<T: Stored>(isa: Isa, weight: impl Fn(f32) -> (T, f32)) {
        let mut random = random();
        for depth in [0, 1, 3, 37, 303, 1030] {
            let values: Vec<(T, f32)> = (0..WIDTH * depth).map(|_| weight(random())).collect();
            let stored: Vec<T> = values.iter().map(|(stored, _)| *stored).collect();
            let mut panels = vec![weight(0.0).0; at::<T>(WIDTH, depth)];
            if depth > 0 {
                arrange(&stored, &mut panels, depth);
            }
            for rows in [1, 2, 3, 4, 5, 8, 9, 17, 33] {
                let x: Vec<f32> = (0..rows * depth).map(|_| random()).collect();
                let mut sums = Collect(vec![0.0; rows * WIDTH]);
                let operands = Operands { weight: panels.as_ptr(), first: 0, x: x.as_ptr(), depth, rows };
                let piece = Piece { rows: 6..WIDTH - 5, next: panels.as_ptr().cast() };
                // SAFETY: the weight has these rows, x its own; the processor has the instruction set.
                unsafe { product(isa, operands, piece, &mut sums) };
                for (i, sum) in sums.0.iter().enumerate() {
                    let (r, n) = (i / WIDTH, i % WIDTH);
                    let chain = (0..depth).fold(0.0, |sum, k| values[n * depth + k].1.mul_add(x[r * depth + k], sum));
                    let expected: f32 = if (6..WIDTH - 5).contains(&n) { chain } else { 0.0 };
                    assert_eq!(sum.to_bits(), expected.to_bits(), "{isa:?}: row {r} of {rows}, {n}, K = {depth}");
                }
            }
        }
    }

    #[test]
    fn sums_are_chains_on_every_instruction_set() {
        for isa in Isa::available() {
            sums_are_chains(isa, |x| (x, x));
            sums_are_chains(isa, |x| {
                let bits = (x.to_bits() >> 16) as u16;
                (bits, f32::from_bits(u32::from(bits) << 16))
            });
        }
    }

    #[test]
    fn panels_side_by_side_give_the_sums_of_each() {
        for isa in Isa::available() {
            panels_side_by_side(isa, |x| x);
            panels_side_by_side(isa, |x| (x.to_bits() >> 16) as u16);
        }
    }
}
