//! Tiles: up to sixteen rows of sixteen words, eight of them, and the products of bf16 pairs between them that AMX
//! computes. [`Amx`](super::amx::Amx) has them in hardware, [`Emulated`] anywhere, with the same bits.

use super::{Simd, UPPER};

/// Rows of a tile, and words of a row: f32 sums, or pairs of bf16, the first of each in the lower half.
pub const SIDE: usize = 16;

/// Tiles that there are.
pub const TILES: usize = 8;

/// How many rows, and words of a row, each tile uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub rows: [u8; TILES],
    pub words: [u8; TILES],
}

impl Shape {
    /// No tile.
    pub const NONE: Self = Self { rows: [0; TILES], words: [0; TILES] };

    /// This one, and tile `at` of `rows` rows of `words` words; both at most SIDE.
    pub fn with(mut self, at: usize, rows: usize, words: usize) -> Self {
        debug_assert!(rows <= SIDE && words <= SIDE);
        (self.rows[at], self.words[at]) = (rows as u8, words as u8);
        self
    }
}

/// The eight tiles of a thread; their numbers are known when a kernel is compiled.
///
/// # Safety
/// Every method but `new` needs the instruction set of its implementor. Tiles that a method names have a size, those of
/// a product sizes that fit: (M, K) and (K, N) words give (M, N). Rows in memory need no alignment.
#[allow(clippy::missing_safety_doc)] // one contract for all methods, above
pub trait Tiles: Sized {
    /// No tile has a size yet. At most one value of a thread is in use at a time.
    fn new() -> Self;
    /// Gives the tiles sizes; when these differ from those before, whatever tiles held is lost.
    unsafe fn shape(&mut self, shape: Shape);
    unsafe fn zero<const T: usize>(&mut self);
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride_bytes: usize);
    /// [`Tiles::load`] of what is not wanted again before much else is.
    unsafe fn load_once<const T: usize>(&mut self, from: *const u32, stride_bytes: usize);
    unsafe fn store<const T: usize>(&mut self, to: *mut f32, stride_bytes: usize);
    /// c[m, n] += (Σ_k a0[m, k] b0[k, n]) + (Σ_k a1[m, k] b1[k, n]) of the pairs (a0, a1) and (b0, b1): two chains of
    /// fused multiply-adds from zero in ascending k, their sum, and its sum with c, each rounded to nearest even,
    /// denormals taken and given as zero.
    unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// Lanes beside which kernels of tiles are compiled; [`Isa::by_tiles`](super::Isa::by_tiles) says where they run.
pub trait ByTiles: Simd {
    type Tiles: Tiles;
}

/// In plain Rust: slow, for tests and to draw again what a processor with AMX drew.
pub struct Emulated {
    shape: Shape,
    words: [[[u32; SIDE]; SIDE]; TILES],
}

impl Emulated {
    /// Rows and words of a row.
    fn size(&self, tile: usize) -> (usize, usize) {
        (usize::from(self.shape.rows[tile]), usize::from(self.shape.words[tile]))
    }
}

/// Denormals to zero.
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

/// The bf16 in both halves of a word.
fn halves(pair: u32) -> [f32; 2] {
    [pair << 16, pair & UPPER].map(|bits| flushed(f32::from_bits(bits)))
}

impl Tiles for Emulated {
    fn new() -> Self {
        Self { shape: Shape::NONE, words: [[[0; SIDE]; SIDE]; TILES] }
    }

    unsafe fn shape(&mut self, shape: Shape) {
        if self.shape != shape {
            *self = Self { shape, ..Self::new() };
        }
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.words[T] = [[0; SIDE]; SIDE];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride_bytes: usize) {
        let (rows, words) = self.size(T);
        for (i, row) in self.words[T][..rows].iter_mut().enumerate() {
            for (j, word) in row[..words].iter_mut().enumerate() {
                // SAFETY: the caller's.
                *word = unsafe { from.byte_add(i * stride_bytes).add(j).read_unaligned() };
            }
        }
    }

    unsafe fn load_once<const T: usize>(&mut self, from: *const u32, stride_bytes: usize) {
        // SAFETY: the caller's.
        unsafe { self.load::<T>(from, stride_bytes) }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut f32, stride_bytes: usize) {
        let (rows, words) = self.size(T);
        for (i, row) in self.words[T][..rows].iter().enumerate() {
            for (j, word) in row[..words].iter().enumerate() {
                // SAFETY: the caller's.
                unsafe { to.byte_add(i * stride_bytes).add(j).write_unaligned(f32::from_bits(*word)) }
            }
        }
    }

    unsafe fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        let ((rows, columns), (_, depth)) = (self.size(C), self.size(A));
        for m in 0..rows {
            for n in 0..columns {
                let mut sums = [0f32; 2];
                for k in 0..depth {
                    let (a, b) = (halves(self.words[A][m][k]), halves(self.words[B][k][n]));
                    sums = std::array::from_fn(|half| flushed(a[half].mul_add(b[half], sums[half])));
                }
                let c = &mut self.words[C][m][n];
                *c = flushed(flushed(f32::from_bits(*c)) + flushed(sums[0] + sums[1])).to_bits();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of one product on tiles of some size, after sums that were there.
    fn run<M: Tiles>(a: &[u32], b: &[u32], c: &[f32], (rows, depth, columns): (usize, usize, usize)) -> Vec<f32> {
        let shape = Shape::NONE.with(0, rows, columns).with(3, rows, depth).with(7, depth, columns);
        let mut sums = vec![0.0; rows * columns];
        // SAFETY: all three hold what the shape says, and the caller has the instruction set.
        unsafe {
            let mut tiles = M::new();
            tiles.shape(shape);
            tiles.load::<0>(c.as_ptr().cast(), 4 * columns);
            tiles.load::<3>(a.as_ptr(), 4 * depth);
            tiles.load::<7>(b.as_ptr(), 4 * columns);
            tiles.multiply::<0, 3, 7>();
            tiles.store::<0>(sums.as_mut_ptr(), 4 * columns);
            tiles.shape(Shape::NONE.with(0, rows, columns));
            tiles.zero::<0>();
        }
        sums
    }

    #[test]
    fn a_product_by_hand() {
        // (1, 2) and (3, 4) in a row, (5, 6) and (7, 8) in a column: 5 + 12 + 21 + 32, and 100 before.
        let pair = |first: f32, second: f32| first.to_bits() >> 16 | second.to_bits() & UPPER;
        let (a, b) = ([pair(1.0, 2.0), pair(3.0, 4.0)], [pair(5.0, 6.0), pair(7.0, 8.0)]);
        assert_eq!(run::<Emulated>(&a, &b, &[100.0], (1, 2, 1)), [170.0]);
    }

    #[test]
    fn hardware_and_emulation_agree_bit_for_bit() {
        #[cfg(target_arch = "x86_64")]
        if super::super::amx::usable() {
            use super::super::amx::Amx;
            let mut state = 7u64;
            let mut word = |exponents: u64| {
                let mut half = || {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let exponent = 127 - exponents / 2 + (state >> 40) % exponents;
                    (state >> 33 & 1) << 15 | exponent << 7 | state >> 50 & 127
                };
                (half() | half() << 16) as u32
            };
            // The last has factors, products and sums among the denormals, and infinities.
            for exponents in [1, 8, 100, 254] {
                for size in [(16, 16, 16), (16, 16, 2), (1, 1, 1), (5, 7, 11), (16, 3, 16)] {
                    let (rows, depth, columns) = size;
                    let a: Vec<u32> = (0..rows * depth).map(|_| word(exponents)).collect();
                    let b: Vec<u32> = (0..depth * columns).map(|_| word(exponents)).collect();
                    let c: Vec<f32> = (0..rows * columns).map(|_| f32::from_bits(word(exponents))).collect();
                    let bits = |sums: Vec<f32>| sums.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                    let (hardware, emulated) = (run::<Amx>(&a, &b, &c, size), run::<Emulated>(&a, &b, &c, size));
                    // A NaN is as good as another.
                    let same = hardware
                        .iter()
                        .zip(&emulated)
                        .all(|(x, y)| x.is_nan() && y.is_nan() || x.to_bits() == y.to_bits());
                    assert!(same, "{exponents} exponents, {size:?}: {:x?}, {:x?}", bits(hardware), bits(emulated));
                }
            }
        } else {
            println!("skipped: this processor or its system has no AMX");
        }
    }
}
