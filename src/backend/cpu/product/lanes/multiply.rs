//! The inner loops of a product by lanes.

use super::ahead::Ahead;
use super::{LANES, ROWS, Stored, VECTORS};
use crate::backend::cpu::simd::{Simd, kernel};

/// Bytes of each of several panels that are read at a time where registers hold the sums of one alone. Twice as many cost
/// f32 a tenth on Zen 3, half as many bf16 a quarter.
const TURN: usize = 256;

/// What [`multiply`] goes through.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Vectors of weight rows at a time.
    pub vectors: usize,
    /// Panels in all.
    pub panels: usize,
    /// Elements of their rows.
    pub depth: usize,
}

kernel!(
    /// sums.0[h, n] = Σ_k panel.0[k, n] * x.0[h, k], of panels that are `panel.1` apart and rows of x that are `x.1`;
    /// `sums.1`: on top of what is there.
    pub fn multiply[T: Stored](
        panel: (*const T, usize),
        x: (*const f32, usize),
        shape: Shape,
        ahead: &mut Ahead,
        sums: (&mut [f32], bool),
    ) = multiply_body
);

#[inline(always)]
unsafe fn multiply_body<S: Simd, T: Stored>(
    panel: (*const T, usize),
    x: (*const f32, usize),
    shape: Shape,
    ahead: &mut Ahead,
    sums: (&mut [f32], bool),
) {
    // SAFETY: passed on.
    unsafe {
        match (shape.vectors, sums.0.len() / (shape.panels * ROWS)) {
            (2, 1) => tiles::<S, T, 2, 1>(panel, x, shape, ahead, sums),
            (2, 2) => tiles::<S, T, 2, 2>(panel, x, shape, ahead, sums),
            (1, 1) if S::REGISTERS < 32 => tiles::<S, T, 1, 1>(panel, x, shape, ahead, sums),
            (1, 2) if S::REGISTERS < 32 => tiles::<S, T, 1, 2>(panel, x, shape, ahead, sums),
            (1, 3) if S::REGISTERS < 32 => tiles::<S, T, 1, 3>(panel, x, shape, ahead, sums),
            (1, 4) if S::REGISTERS < 32 => tiles::<S, T, 1, 4>(panel, x, shape, ahead, sums),
            (2, 3) if S::REGISTERS >= 32 => tiles::<S, T, 2, 3>(panel, x, shape, ahead, sums),
            (2, 4) if S::REGISTERS >= 32 => tiles::<S, T, 2, 4>(panel, x, shape, ahead, sums),
            (2, 5) if S::REGISTERS >= 32 => tiles::<S, T, 2, 5>(panel, x, shape, ahead, sums),
            (2, 6) if S::REGISTERS >= 32 => tiles::<S, T, 2, 6>(panel, x, shape, ahead, sums),
            (2, 7) if S::REGISTERS >= 32 => tiles::<S, T, 2, 7>(panel, x, shape, ahead, sums),
            (2, 8) if S::REGISTERS >= 32 => tiles::<S, T, 2, 8>(panel, x, shape, ahead, sums),
            (4, 1) if S::REGISTERS < 32 => turns::<S, T, 2, 1>(panel, x, shape.depth, ahead, sums.0),
            (4, 2) if S::REGISTERS < 32 => turns::<S, T, 2, 2>(panel, x, shape.depth, ahead, sums.0),
            (8, 1) if S::REGISTERS < 32 => turns::<S, T, 4, 1>(panel, x, shape.depth, ahead, sums.0),
            (8, 2) if S::REGISTERS < 32 => turns::<S, T, 4, 2>(panel, x, shape.depth, ahead, sums.0),
            (4, 1) if S::REGISTERS >= 32 => tiles::<S, T, 4, 1>(panel, x, shape, ahead, sums),
            (4, 2) if S::REGISTERS >= 32 => tiles::<S, T, 4, 2>(panel, x, shape, ahead, sums),
            (4, 3) if S::REGISTERS >= 32 => tiles::<S, T, 4, 3>(panel, x, shape, ahead, sums),
            (4, 4) if S::REGISTERS >= 32 => tiles::<S, T, 4, 4>(panel, x, shape, ahead, sums),
            (8, 1) if S::REGISTERS >= 32 => tiles::<S, T, 8, 1>(panel, x, shape, ahead, sums),
            (8, 2) if S::REGISTERS >= 32 => tiles::<S, T, 8, 2>(panel, x, shape, ahead, sums),
            (vectors, height) => unreachable!("{vectors} vectors and {height} rows are more than registers hold"),
        }
    }
}

/// Tile after tile of `V` vectors of weight rows and all `H` activation rows.
#[inline(always)]
unsafe fn tiles<S: Simd, T: Stored, const V: usize, const H: usize>(
    (panel, apart): (*const T, usize),
    x: (*const f32, usize),
    Shape { panels, depth, .. }: Shape,
    ahead: &mut Ahead,
    (sums, grow): (&mut [f32], bool),
) {
    let width = panels * ROWS;
    for first in (0..panels * VECTORS).step_by(V) {
        let panel = panel.wrapping_add(vector::<T>(first, apart));
        let sums = (&mut sums[first * LANES..], width, grow);
        // SAFETY: passed on.
        unsafe { tile::<S, T, V, H>((panel, apart), x, depth, ahead, sums) }
    }
}

/// `V` vectors of weight rows from `panel` on, or of several panels, and `H` activation rows, their sums in registers
/// meanwhile; rows of `kept.0` are `kept.1` apart, and `kept.2` says whether the sums begin with what is there.
#[inline(always)]
unsafe fn tile<S: Simd, T: Stored, const V: usize, const H: usize>(
    (panel, apart): (*const T, usize),
    (x, stride): (*const f32, usize),
    depth: usize,
    ahead: &mut Ahead,
    (kept, width, grow): (&mut [f32], usize, bool),
) {
    // Where registers are few, so are the multiply-adds between two steps. Half a KB is a step: what is asked for farther
    // ahead is still to come when it is over.
    let step = if S::REGISTERS < 32 { 16 / size_of::<T>() } else { 2 };
    // SAFETY: the caller vouches for `depth` elements of the vectors' rows and of H rows of x.
    unsafe {
        let mut sums = if grow { load::<S, V, H>(kept, width) } else { [[S::splat(0.0); V]; H] };
        // In registers, too.
        let mut asked = *ahead;
        let bytes = step * ROWS * size_of::<T>();
        let mut k = 0;
        if asked.every == 1 {
            // A loop of its own, with nothing to decide in it.
            while k + step <= depth {
                for _ in 0..asked.steps(bytes, (depth - k) / step) {
                    for p in 0..V.div_ceil(VECTORS) {
                        asked.ask(p, bytes);
                    }
                    asked.go(bytes);
                    add_step::<S, T, V, H>(&mut sums, (panel.add(k * ROWS), apart), (x.add(k), stride), step);
                    k += step;
                }
            }
        } else {
            while k + step <= depth {
                asked.pass(bytes);
                add_step::<S, T, V, H>(&mut sums, (panel.add(k * ROWS), apart), (x.add(k), stride), step);
                k += step;
            }
        }
        while k + 2 <= depth {
            add_two::<S, T, V, H>(&mut sums, (panel.add(k * ROWS), apart), x.add(k), stride);
            k += 2;
        }
        if k < depth {
            let mut w = [S::splat(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = T::load::<S>(panel.add(k * ROWS + vector::<T>(v, apart)));
            }
            add::<S, V, H>(&mut sums, w, x.add(k), stride);
        }
        asked.skip((depth % step).next_multiple_of(T::PER) * ROWS * size_of::<T>());
        *ahead = asked;
        keep::<S, V, H>(sums, kept, width);
    }
}

/// `P` panels side by side, [`TURN`] bytes of each in turn, and `H` activation rows: as [`tile`], where registers hold
/// the sums of one panel alone. Such panels are gone through once: no sums are there before.
#[inline(always)]
unsafe fn turns<S: Simd, T: Stored, const P: usize, const H: usize>(
    (panel, apart): (*const T, usize),
    (x, stride): (*const f32, usize),
    depth: usize,
    ahead: &mut Ahead,
    kept: &mut [f32],
) {
    let (width, step) = (P * ROWS, TURN / (ROWS * size_of::<T>()));
    let mut asked = *ahead;
    debug_assert!(asked.every == 1, "not gone through once");
    let mut k = 0;
    // SAFETY: the caller vouches for `depth` elements of the panels' rows and of H rows of x.
    unsafe {
        let mut sums = [[[S::splat(0.0); VECTORS]; H]; P];
        while k + step <= depth {
            for _ in 0..asked.steps(TURN, (depth - k) / step) {
                for (p, sums) in sums.iter_mut().enumerate() {
                    asked.ask(p, TURN);
                    // In registers for as long as the turn takes.
                    let mut turn = *sums;
                    let panel = panel.add(p * apart + k * ROWS);
                    add_step::<S, T, VECTORS, H>(&mut turn, (panel, 0), (x.add(k), stride), step);
                    *sums = turn;
                }
                asked.go(TURN);
                k += step;
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            keep::<S, VECTORS, H>(sums, &mut kept[p * ROWS..], width);
        }
        *ahead = asked;
        // Less than a turn.
        for p in 0..if k < depth { P } else { 0 } {
            *ahead = asked;
            let (panel, x) = (panel.add(p * apart + k * ROWS), (x.add(k), stride));
            tile::<S, T, VECTORS, H>((panel, 0), x, depth - k, ahead, (&mut kept[p * ROWS..], width, true));
        }
    }
}

/// Sums that are in memory, whose rows are `width` apart there.
#[inline(always)]
unsafe fn load<S: Simd, const V: usize, const H: usize>(kept: &[f32], width: usize) -> [[S::V; V]; H] {
    // SAFETY: the slice has them.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; H];
        for (sums, kept) in sums.iter_mut().zip(kept.chunks(width)) {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(kept[v * LANES..][..LANES].as_ptr());
            }
        }
        sums
    }
}

/// Puts them there.
#[inline(always)]
unsafe fn keep<S: Simd, const V: usize, const H: usize>(sums: [[S::V; V]; H], kept: &mut [f32], width: usize) {
    // SAFETY: the slice has room for them.
    unsafe {
        for (sums, kept) in sums.into_iter().zip(kept.chunks_mut(width)) {
            for (v, sum) in sums.into_iter().enumerate() {
                S::store(kept[v * LANES..][..LANES].as_mut_ptr(), sum);
            }
        }
    }
}

/// Where vector `v` of panels that are so far apart is, from the first's.
#[inline(always)]
fn vector<T: Stored>(v: usize, apart: usize) -> usize {
    v / VECTORS * apart + v % VECTORS * LANES * T::PER
}

/// [`add`] of an even number of successive elements.
#[inline(always)]
unsafe fn add_step<S: Simd, T: Stored, const V: usize, const H: usize>(
    sums: &mut [[S::V; V]; H],
    (panel, apart): (*const T, usize),
    (x, stride): (*const f32, usize),
    step: usize,
) {
    for k in (0..step).step_by(2) {
        // SAFETY: the caller vouches for all of them.
        unsafe { add_two::<S, T, V, H>(sums, (panel.add(k * ROWS), apart), x.add(k), stride) }
    }
}

/// [`add`] of two successive elements.
#[inline(always)]
unsafe fn add_two<S: Simd, T: Stored, const V: usize, const H: usize>(
    sums: &mut [[S::V; V]; H],
    (panel, apart): (*const T, usize),
    x: *const f32,
    stride: usize,
) {
    // SAFETY: the caller vouches for both, of V vectors and H rows.
    unsafe {
        let (mut first, mut second) = ([S::splat(0.0); V], [S::splat(0.0); V]);
        for (v, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
            [*first, *second] = T::load_two::<S>(panel.add(vector::<T>(v, apart)));
        }
        add::<S, V, H>(sums, first, x, stride);
        add::<S, V, H>(sums, second, x.add(1), stride);
    }
}

/// sums[h, v] += w[v] * x[h], where rows of `x` are `stride` apart.
///
/// A function, and loops rather than closures in it: these would be compiled without the instructions that the
/// processor has.
#[inline(always)]
unsafe fn add<S: Simd, const V: usize, const H: usize>(
    sums: &mut [[S::V; V]; H],
    w: [S::V; V],
    x: *const f32,
    stride: usize,
) {
    for (h, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches for an element of H rows.
        unsafe {
            let x = S::splat(*x.add(h * stride));
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = S::fma(w, x, *sum);
            }
        }
    }
}
