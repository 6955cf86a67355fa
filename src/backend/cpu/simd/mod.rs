//! Sixteen f32 lanes on every instruction set, with the same bits from each.
//!
//! A kernel is written once, generic over [`Simd`], and instantiated per instruction set by
//! `kernel!`; the running processor picks at run time. All operations are single IEEE operations per
//! lane and reductions have one fixed tree, so AVX-512, AVX2 and the portable path agree bit for bit.
//! Products of bf16 pairs are what AVX512-BF16's `vdpbf16ps` computes: two fused multiply-adds in f32, the
//! upper halves' first. It takes denormals for zero, which the others do not; bf16 operands are therefore zero or
//! at least [`LEAST_BF16`], so that no product or sum is ever denormal.
//!
//! AMX adds in an order of its own, which nothing else has at its speed: where products of bf16 go by [`tiles`], results
//! are rounded elsewhere than on other processors ([`Isa::by_tiles`]), and the same as by tiles that are emulated.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;
pub mod tiles;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Asks for the cache line of an address, into the second cache: for what is far away, or in many places by turns, the
/// first has too few open requests to hide the memory's latency. Any address will do.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see and cannot fault.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same into the first cache: of streams that the processor follows of itself, too, a few KB ahead in all. A step of
/// GPT-B, one picture, is 5 % faster so on two Zen 5 cores, and sixteen streams of tiles are by 5 to 25 % on a processor
/// with AMX.
#[inline(always)]
pub fn prefetch_near<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as `prefetch`.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Instruction sets, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with AMX's products of bf16 tiles.
    Amx,
    /// AVX-512 with products of bf16 pairs.
    Avx512Bf16,
    Avx512,
    Avx2,
    Portable,
    /// The bits of [`Isa::Amx`] on any processor, slowly.
    AmxPortable,
}

impl Isa {
    /// The best one of this processor, or the one that `SMALTI_CPU` names (`amx`, `avx512_bf16`, `avx512`, `avx2`,
    /// `portable`, `amx_portable`) if the processor has it.
    pub fn detect() -> Self {
        let wanted = std::env::var("SMALTI_CPU").ok();
        Self::available().into_iter().find(|isa| wanted.as_deref().is_none_or(|name| name == isa.name())).unwrap_or(
            // A name that this processor cannot honour: the best that it has.
            Self::available()[0],
        )
    }

    /// All that this processor can run, best first.
    pub fn available() -> Vec<Self> {
        let mut isas = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // As `kernel!` compiles them.
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if avx512 && avx2 {
                if is_x86_feature_detected!("avx512bf16") {
                    if amx::usable() {
                        isas.push(Self::Amx);
                    }
                    isas.push(Self::Avx512Bf16);
                }
                isas.push(Self::Avx512);
            }
            if avx2 {
                isas.push(Self::Avx2);
            }
        }
        isas.extend([Self::Portable, Self::AmxPortable]);
        isas
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::AmxPortable => "amx_portable",
        }
    }

    /// Whether the processor has products of bf16, which others make of products of f32.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Amx | Self::Avx512Bf16)
    }

    /// Whether memory is read faster as several streams side by side than as one: by loads alone on two cores of a
    /// processor with AMX at 31 GB/s instead of 24, of Zen 3, which has AVX2 alone, at 35 instead of 27 where others leave
    /// memory to it and at 24 instead of 22 where they do not; on AMD's processors with AVX-512 it is slower.
    pub fn wants_streams(self) -> bool {
        matches!(self, Self::Amx | Self::Avx2)
    }

    /// Whether memory is best asked for a whole head of keys and values while attention goes through the one before it;
    /// elsewhere [`Simd::AHEAD`] bytes before they are read: a head ahead as one stream, in a loop of its own, two Zen 5
    /// cores get 29 GB/s instead of 38.
    pub fn wants_heads(self) -> bool {
        self == Self::Amx
    }

    /// Whether products of bf16 weights go by [`tiles`]. All instruction sets that say the same give the same bits.
    pub fn by_tiles(self) -> bool {
        matches!(self, Self::Amx | Self::AmxPortable)
    }
}

/// The upper half of an f32's bits.
const UPPER: u32 = 0xffff_0000;

/// Sixteen f32 lanes.
///
/// # Safety
/// Every method needs the instruction set of its implementor, and pointers good for what it reads or
/// writes: 16 elements, or `n` for the partial ones. No alignment is needed.
#[allow(clippy::missing_safety_doc)] // one contract for all methods, above
pub trait Simd: Copy {
    /// Vectors that the processor's registers hold.
    const REGISTERS: usize;
    /// Bytes before those that are read of one stream at which memory is best asked for more, where reading is all that
    /// takes time; products want less of it.
    const AHEAD: usize;
    type V: Copy;
    /// Sixteen pairs of bf16, the first of each in the lower half.
    type Pairs: Copy;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `n` < 16 lanes from memory, the others 0.
    unsafe fn load_partial(from: *const f32, n: usize) -> Self::V;
    /// Sixteen bf16 widened exactly.
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    /// The first `n` < 16 lanes from memory, the others 0.
    unsafe fn load_bf16_partial(from: *const u16, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn store_partial(to: *mut f32, v: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sixteen pairs from memory.
    unsafe fn load_pairs(from: *const u32) -> Self::Pairs;
    /// One pair in all lanes.
    unsafe fn splat_pair(pair: u32) -> Self::Pairs;
    /// Both halves of each pair, widened exactly.
    unsafe fn widen(pairs: Self::Pairs) -> [Self::V; 2];
    /// The upper halves of 32 lanes' bits, a bf16 each, of neighbours in pairs, and what is left of the lanes, exactly.
    #[inline(always)]
    unsafe fn split(lanes: [Self::V; 2]) -> (Self::Pairs, [Self::V; 2]) {
        let mut rest = [0f32; 2 * LANES];
        let mut pairs = [0u32; LANES];
        unsafe {
            Self::store(rest.as_mut_ptr(), lanes[0]);
            Self::store(rest.as_mut_ptr().add(LANES), lanes[1]);
            for (pair, rest) in pairs.iter_mut().zip(rest.as_chunks_mut::<2>().0) {
                let upper = [rest[0].to_bits() & UPPER, rest[1].to_bits() & UPPER];
                *pair = upper[0] >> 16 | upper[1];
                *rest = [rest[0] - f32::from_bits(upper[0]), rest[1] - f32::from_bits(upper[1])];
            }
            let rest = [Self::load(rest.as_ptr()), Self::load(rest.as_ptr().add(LANES))];
            (Self::load_pairs(pairs.as_ptr()), rest)
        }
    }
    /// Sixteen pairs to memory.
    unsafe fn store_pairs(to: *mut u32, pairs: Self::Pairs);
    /// c + a1 * b1, rounded, + a0 * b0, rounded.
    unsafe fn fma_pairs(a: Self::Pairs, b: Self::Pairs, c: Self::V) -> Self::V;
    /// Sixteen finite f32 to [`bf16`] and memory.
    unsafe fn store_bf16(to: *mut u16, v: Self::V);
    /// The larger of each lane; neither may be NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes: lane i + lane i + 8, then + 4, + 2, + 1.
    unsafe fn reduce_add(v: Self::V) -> f32;
    /// [`Simd::reduce_add`] of four vectors, the same bits.
    #[inline(always)]
    unsafe fn reduce_add_4(v: [Self::V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        unsafe { [Self::reduce_add(a), Self::reduce_add(b), Self::reduce_add(c), Self::reduce_add(d)] }
    }
}

/// `f` of each lane, which the compiler finds to be one operation on all for each of `f`'s; see [`crate::math`].
///
/// # Safety
/// As the methods of [`Simd`].
#[inline(always)]
pub unsafe fn map<S: Simd>(v: S::V, f: impl Fn(f32) -> f32) -> S::V {
    let mut lanes = [0.0; LANES];
    // SAFETY: `lanes` holds sixteen.
    unsafe {
        S::store(lanes.as_mut_ptr(), v);
        lanes.iter_mut().for_each(|x| *x = f(*x));
        S::load(lanes.as_ptr())
    }
}

/// Rows of f32 or bf16, widened while loading.
pub trait Element: Copy {
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
    /// # Safety
    /// As [`Simd::load_partial`].
    unsafe fn load_partial<S: Simd>(from: *const Self, n: usize) -> S::V;
    /// 32 elements, in the order in which they are widened soonest: element `i` in lane [`Element::place`]`(i)` of both
    /// vectors.
    ///
    /// # Safety
    /// As [`Simd::load`], of twice as many.
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2];
    /// Where [`Element::load_two`] puts element `i` of 32: below sixteen in the first vector, the others in the second.
    fn place(i: usize) -> usize;
    /// Rounds to nearest even.
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn load_partial<S: Simd>(from: *const Self, n: usize) -> S::V {
        unsafe { S::load_partial(from, n) }
    }

    #[inline(always)]
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2] {
        unsafe { [S::load(from), S::load(from.add(LANES))] }
    }

    #[inline(always)]
    fn place(i: usize) -> usize {
        i
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

/// bf16 as its bits.
impl Element for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        unsafe { S::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn load_partial<S: Simd>(from: *const Self, n: usize) -> S::V {
        unsafe { S::load_bf16_partial(from, n) }
    }

    #[inline(always)]
    unsafe fn load_two<S: Simd>(from: *const Self) -> [S::V; 2] {
        unsafe { S::widen(S::load_pairs(from.cast())) }
    }

    #[inline(always)]
    fn place(i: usize) -> usize {
        i % 2 * LANES + i / 2
    }

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        half::bf16::from_f32(x).to_bits()
    }
}

/// The least magnitude of an operand of [`Simd::fma_pairs`] that is not zero. Products are then multiples of 2^-114,
/// and so are their sums.
pub const LEAST_BF16: f32 = 1.0 / (1u64 << 50) as f32;

/// A finite f32 as the operand of [`Simd::fma_pairs`] that stands for it: rounded to nearest even, or zero.
#[inline(always)]
pub fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.abs() < LEAST_BF16 { 0 } else { rounded as u16 }
}

/// Instantiates a generic kernel for every instruction set and picks by the first argument.
///
/// `kernel!(fn name[T: Element](a: A, b: B) -> C = body)` makes `unsafe fn name(isa: Isa, a: A, b: B) -> C` that
/// calls `body::<S, T>(a, b)`; `body` must be `#[inline(always)]`.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($t:ident: $bound:path),*])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$($t: $bound),*>)? (isa: $crate::backend::cpu::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            unsafe fn avx512 $(<$($t: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                unsafe { $body::<$crate::backend::cpu::simd::avx512::Avx512 $($(, $t)*)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2 $(<$($t: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                unsafe { $body::<$crate::backend::cpu::simd::avx2::Avx2 $($(, $t)*)?>($($arg),*) }
            }
            // SAFETY: `Isa::available` named this instruction set because the processor has it; the rest is the caller's.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Amx
                    | $crate::backend::cpu::simd::Isa::Avx512Bf16
                    | $crate::backend::cpu::simd::Isa::Avx512 => avx512 $(::<$($t),*>)? ($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Avx2 => avx2 $(::<$($t),*>)? ($($arg),*),
                    _ => $body::<$crate::backend::cpu::simd::portable::Portable $($(, $t)*)?>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;

/// As `kernel!`, for kernels that multiply pairs of bf16: AVX512-BF16 gets an instance of its own.
macro_rules! pair_kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($t:ident: $bound:path),*])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$($t: $bound),*>)? (isa: $crate::backend::cpu::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            unsafe fn avx512_bf16 $(<$($t: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                unsafe { $body::<$crate::backend::cpu::simd::avx512::Avx512Bf16 $($(, $t)*)?>($($arg),*) }
            }
            $crate::backend::cpu::simd::kernel!(fn others $([$($t: $bound),*])? ($($arg: $ty),*) $(-> $ret)? = $body);
            // SAFETY: as in `kernel!`.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Amx | $crate::backend::cpu::simd::Isa::Avx512Bf16 => {
                        avx512_bf16 $(::<$($t),*>)? ($($arg),*)
                    }
                    _ => others $(::<$($t),*>)? (isa, $($arg),*),
                }
            }
        }
    };
}
pub(crate) use pair_kernel;

/// As `kernel!`, for kernels that multiply tiles: where [`Isa::by_tiles`] is true there is an instance, of a `body` for
/// [`tiles::ByTiles`]; elsewhere nothing calls it.
macro_rules! tile_kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($t:ident: $bound:path),*])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name $(<$($t: $bound),*>)? (isa: $crate::backend::cpu::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            unsafe fn amx $(<$($t: $bound),*>)? ($($arg: $ty),*) $(-> $ret)? {
                unsafe { $body::<$crate::backend::cpu::simd::avx512::Avx512Bf16 $($(, $t)*)?>($($arg),*) }
            }
            // SAFETY: as in `kernel!`.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::simd::Isa::Amx => amx $(::<$($t),*>)? ($($arg),*),
                    $crate::backend::cpu::simd::Isa::AmxPortable => {
                        $body::<$crate::backend::cpu::simd::portable::Portable $($(, $t)*)?>($($arg),*)
                    }
                    other => unreachable!("{other:?} has no tiles"),
                }
            }
        }
    };
}
pub(crate) use tile_kernel;

#[cfg(test)]
mod tests {
    use super::*;

    /// What every operation gives, on one instruction set.
    #[inline(always)]
    unsafe fn probe_body<S: Simd>(x: &[f32; 40], out: &mut Vec<f32>) {
        let mut keep = |v: S::V| {
            let mut lanes = [0f32; LANES];
            // SAFETY: `lanes` holds 16.
            unsafe { S::store(lanes.as_mut_ptr(), v) };
            out.extend_from_slice(&lanes);
        };
        // SAFETY: `x` holds 40.
        unsafe {
            let (a, b) = (S::load(x.as_ptr()), S::load(x.as_ptr().add(20)));
            let half: Vec<u16> = x.iter().map(|&x| u16::from_f32(x)).collect();
            keep(S::add(a, b));
            keep(S::sub(a, b));
            keep(S::mul(a, b));
            keep(S::fma(a, b, S::splat(0.3)));
            keep(S::max(a, b));
            keep(S::load_bf16(half.as_ptr()));
            let (mut low, mut high) = ([0u16; LANES], [0u16; LANES]);
            S::store_bf16(low.as_mut_ptr(), a);
            S::store_bf16(high.as_mut_ptr(), S::mul(b, S::splat(1e-15)));
            let pairs: [u32; LANES] = std::array::from_fn(|i| u32::from(low[i]) | u32::from(high[i]) << 16);
            keep(S::load_bf16(high.as_ptr()));
            S::widen(S::load_pairs(pairs.as_ptr())).into_iter().for_each(&mut keep);
            let (upper, rest) = S::split([a, b]);
            let mut words = [0u32; LANES];
            S::store_pairs(words.as_mut_ptr(), upper);
            keep(S::load(words.map(f32::from_bits).as_ptr()));
            rest.into_iter().for_each(&mut keep);
            f32::load_two::<S>(x.as_ptr()).into_iter().for_each(&mut keep);
            u16::load_two::<S>(half.as_ptr()).into_iter().for_each(&mut keep);
            keep(S::fma_pairs(S::load_pairs(pairs.as_ptr()), S::splat_pair(0xc039_3f9d), b));
            for n in 0..LANES {
                keep(S::load_partial(x.as_ptr(), n));
                keep(S::load_bf16_partial(half.as_ptr(), n));
                let mut partial = [7f32; LANES];
                S::store_partial(partial.as_mut_ptr(), a, n);
                keep(S::load(partial.as_ptr()));
            }
            out.push(S::reduce_add(a));
            out.extend(S::reduce_add_4([a, b, S::add(a, b), S::mul(a, b)]));
        }
    }

    pair_kernel!(fn probe(x: &[f32; 40], out: &mut Vec<f32>) = probe_body);
    pair_kernel!(fn pairs(sums: &mut [f32; LANES], a: &[u32], b: &[u32]) = pairs_body);

    /// sums[i] += Σ of all pairs a[k] b[k, i]
    #[inline(always)]
    unsafe fn pairs_body<S: Simd>(sums: &mut [f32; LANES], a: &[u32], b: &[u32]) {
        // SAFETY: `b` holds LANES pairs for each of `a`.
        unsafe {
            let mut sum = S::load(sums.as_ptr());
            for (k, &a) in a.iter().enumerate() {
                sum = S::fma_pairs(S::splat_pair(a), S::load_pairs(b.as_ptr().add(k * LANES)), sum);
            }
            S::store(sums.as_mut_ptr(), sum);
        }
    }

    #[test]
    fn elements_have_their_places() {
        fn check<T: Element>(x: &[T; 2 * LANES], expected: impl Fn(&T) -> f32) {
            let mut lanes = [0f32; 2 * LANES];
            // SAFETY: both hold two vectors.
            unsafe {
                let [first, second] = T::load_two::<portable::Portable>(x.as_ptr());
                portable::Portable::store(lanes.as_mut_ptr(), first);
                portable::Portable::store(lanes.as_mut_ptr().add(LANES), second);
            }
            assert!(x.iter().enumerate().all(|(i, x)| lanes[T::place(i)] == expected(x)), "{lanes:?}");
        }
        let x: [f32; 2 * LANES] = std::array::from_fn(|i| i as f32);
        check(&x, |x| *x);
        check(&x.map(u16::from_f32), |x| half::bf16::from_bits(*x).to_f32());
    }

    #[test]
    fn split_lanes_add_up() {
        let x: [f32; 2 * LANES] = std::array::from_fn(|i| ((i * 37 % 41) as f32 - 20.0) * 0.137);
        let mut lanes = [0f32; 2 * LANES];
        // SAFETY: both hold two vectors.
        unsafe {
            type S = portable::Portable;
            let (upper, rest) = S::split([S::load(x.as_ptr()), S::load(x.as_ptr().add(LANES))]);
            let mut pairs = [0u32; LANES];
            S::store_pairs(pairs.as_mut_ptr(), upper);
            S::store(lanes.as_mut_ptr(), rest[0]);
            S::store(lanes.as_mut_ptr().add(LANES), rest[1]);
            for (i, (x, rest)) in x.iter().zip(lanes).enumerate() {
                let upper = f32::from_bits(if i % 2 == 0 { pairs[i / 2] << 16 } else { pairs[i / 2] & UPPER });
                assert_eq!(upper + rest, *x, "lane {i}");
                assert!(rest.abs() <= x.abs() / 128.0, "lane {i}: {rest} is left of {x}");
            }
        }
    }

    #[test]
    fn pairs_are_two_multiply_adds() {
        // Exponents over all that operands may have, so that sums cancel, and roundings differ from one order to
        // another.
        let mut state = 1u64;
        let mut operand = |exponents: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let exponent = 127 - exponents / 2 + (state >> 40) % exponents;
            ((state >> 33 & 1) << 15 | exponent << 7 | state >> 50 & 127) as u32
        };
        for exponents in [1, 8, 100] {
            let mut pair = || operand(exponents) | operand(exponents) << 16;
            let a: Vec<u32> = (0..300).map(|_| pair()).collect();
            let b: Vec<u32> = (0..300 * LANES).map(|_| pair()).collect();
            let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & UPPER)];
            let expected: [f32; LANES] = std::array::from_fn(|i| {
                a.iter().enumerate().fold(0.5, |sum, (k, &a)| {
                    let ([a0, a1], [b0, b1]) = (halves(a), halves(b[k * LANES + i]));
                    a0.mul_add(b0, a1.mul_add(b1, sum))
                })
            });
            for isa in Isa::available() {
                let mut sums = [0.5; LANES];
                // SAFETY: `isa` comes from `available`.
                unsafe { pairs(isa, &mut sums, &a, &b) };
                assert_eq!(sums.map(f32::to_bits), expected.map(f32::to_bits), "{isa:?}, {exponents} exponents");
            }
        }
    }

    #[test]
    fn operands_are_rounded_to_even_or_zero() {
        let below = f32::from_bits(LEAST_BF16.to_bits() - 1);
        for (x, expected) in [
            (1.0, 0x3f80),
            (-1.0, 0xbf80),
            (1.0 + 1.0 / 256.0, 0x3f80),
            (1.0 + 3.0 / 256.0, 0x3f82),
            (1.003907, 0x3f81),
            (LEAST_BF16, 0x2680),
            (below, 0),
            (-below, 0),
            (1e-40, 0),
            (-0.0, 0),
        ] {
            assert_eq!(bf16(x), expected, "{x:e}");
        }
    }

    #[test]
    fn instruction_sets_agree_bit_for_bit() {
        let x: [f32; 40] = std::array::from_fn(|i| ((i * 37 % 41) as f32 - 20.0) * 0.137);
        let run = |isa| {
            let mut out = Vec::new();
            // SAFETY: `isa` comes from `available`.
            unsafe { probe(isa, &x, &mut out) };
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = run(Isa::Portable);
        for isa in Isa::available() {
            assert_eq!(run(isa), expected, "{isa:?} against portable");
        }
    }
}
