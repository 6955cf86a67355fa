//! code = argmax over the kept codes of z[v] + g[v], z = guided logits / temperature, g Gumbel noise.
//!
//! Kept is what is not below [`cutoff`]: temperature, then top-k (ties of the k-th stay), then top-p (a
//! code stays if and only if the mass of the strictly larger logits is ≤ top_p). Ties of the argmax go to
//! the lowest code. The noise is a function of (seed, image, token, code) alone, so a draw is the same
//! alone, in any batch, one by one or in parallel.

use std::cmp::Ordering;

use crate::graph::twin::Twin;
use crate::graph::{BufferId, Cost, Draw, Extent, Graph, Load, NO_ROW};
use crate::math;

/// Stands in `codes` for a draw from logits that are not numbers.
pub const NO_CODE: u32 = u32::MAX;

/// Guidance, temperature, top-k, top-p and the draw; writes the code and moves the rows on, unless it is one of a
/// window's, of which [`Accept`](super::Accept) decides.
#[derive(Clone, Debug)]
pub struct Sample {
    /// (pictures, N) out, u32: the code goes to (draw.picture, draw.token)
    pub codes: BufferId,
    /// (draws) out, u32: the codes of windows go here instead, and rows and draws stay as they are
    pub drawn: Option<BufferId>,
    /// (R) in and out: the drawn rows get the code as their token and the next position
    pub rows: BufferId,
    /// (draws) in and out: the next token number
    pub draws: BufferId,
    /// (R, V) f32
    pub logits: BufferId,
    /// V
    pub vocab_size: usize,
    /// N
    pub tokens: usize,
    /// Pictures that `codes` holds
    pub pictures: usize,
}

impl Sample {
    /// Panics when a draw names rows or places that the run does not have.
    pub fn check(&self, draw: &Draw, extent: Extent) {
        assert!(draw.cond_row != NO_ROW && draw.rows().all(|row| row < extent.rows), "{draw:?}");
        let place = (draw.picture as usize) < self.pictures && (draw.token as usize) < self.tokens;
        assert!(place, "{draw:?} outside {} pictures of {} tokens", self.pictures, self.tokens);
        assert!(draw.top_k >= 1 && draw.top_p > 0.0, "{draw:?}");
    }

    pub(super) fn cost(&self, _: &Graph, load: &Load) -> Cost {
        let read = (load.extent.rows * self.vocab_size * 4) as u64;
        Cost { activation_bytes: read, flops: (load.extent.draws * self.vocab_size * 40) as u64, ..Cost::default() }
    }

    pub(super) fn twin(&self, twin: &mut Twin<'_>, extent: Extent) {
        for d in 0..extent.draws {
            let draw = twin.draws[d];
            if draw.cond_row == NO_ROW {
                continue;
            }
            let row = |r: usize| twin.row(self.logits, r, self.vocab_size);
            let cond = row(draw.cond_row as usize);
            let z: Vec<f32> = (0..self.vocab_size)
                .map(|v| {
                    let guided = match draw.guided_by() {
                        None => cond[v],
                        Some(r) => row(r)[v] + (cond[v] - row(r)[v]) * f64::from(draw.cfg_scale),
                    };
                    (guided / f64::from(draw.temperature)) as f32
                })
                .collect();
            let keep = kept(&z, draw.top_k as usize, draw.top_p);
            let (mut best, mut code) = (f32::NEG_INFINITY, NO_CODE);
            let numbers = !z.iter().any(|z| z.is_nan());
            for (v, &z) in z.iter().enumerate().filter(|(v, _)| numbers && keep[*v]) {
                let score = if draw.greedy == 1 { z } else { z + gumbel(draw.seed, draw.image, draw.token, v as u32) };
                if score > best {
                    (best, code) = (score, v as u32);
                }
            }
            if let Some(drawn) = self.drawn {
                twin.buffers[drawn.index()][d] = f64::from(code);
                continue;
            }
            twin.buffers[self.codes.index()][draw.picture as usize * self.tokens + draw.token as usize] =
                f64::from(code);
            for r in draw.rows() {
                twin.rows[r].token = if code == NO_CODE { 0 } else { code };
                twin.rows[r].position += 1;
                twin.rows[r].settled = twin.rows[r].position;
            }
            twin.draws[d].token += 1;
        }
    }
}

/// Which codes stay, by the definition: fewer than k are strictly larger, and their mass is ≤ top_p.
fn kept(z: &[f32], top_k: usize, top_p: f32) -> Vec<bool> {
    let mut sorted = z.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let last = sorted[top_k - 1];
    sorted.retain(|&z| z >= last);
    let mass = |z: f32| f64::from(z - sorted[0]).exp();
    let total: f64 = sorted.iter().map(|&z| mass(z)).sum();
    let mut above: Vec<f64> = Vec::with_capacity(sorted.len());
    for (i, &z) in sorted.iter().enumerate() {
        above.push(match i {
            0 => 0.0,
            _ if sorted[i - 1] == z => above[i - 1],
            _ => sorted[..i].iter().map(|&z| mass(z)).sum(),
        });
    }
    z.iter()
        .map(|z| sorted.iter().position(|other| other == z).is_some_and(|i| above[i] <= f64::from(top_p) * total))
        .collect()
}

/// A code's share of the probability in fixed point, e^(z - largest) in units of 2^-38: sums are exact and the
/// same in any order, so every executor keeps the same codes. What is cut off is less than an f32 can tell.
fn mass(z: f32, largest: f32) -> u64 {
    const ONE: f32 = (1u64 << 38) as f32;
    (math::exp(z - largest) * ONE) as u64
}

/// The smallest z that top-k and top-p keep. `top_k` in 1..=z.len(), `top_p` in (0, 1].
///
/// In top-p the probabilities are whole numbers in units of 2^-38 of the largest, and `top_p` of them all is cut to a whole number.
///
/// `scratch` is room for z.len() values.
#[inline(always)] // into what is compiled for a processor's instructions
pub fn cutoff(z: &[f32], top_k: usize, top_p: f32, scratch: &mut [f32]) -> f32 {
    let mut keep = if top_k < z.len() { kth_largest(z, top_k) } else { f32::NEG_INFINITY };
    if top_p >= 1.0 {
        return keep;
    }
    let mut kept = &mut scratch[..z.len()];
    kept.copy_from_slice(z);
    kept.sort_unstable_by(|a, b| b.total_cmp(a));
    let count = kept.partition_point(|&z| z >= keep);
    kept = &mut kept[..count];
    let total: u64 = kept.iter().map(|&z| mass(z, kept[0])).sum();
    let limit = (f64::from(top_p) * total as f64) as u64;
    // Walk groups of equal logits from the top; a group stays while what lies above it is ≤ top_p.
    let (mut above, mut first) = (0, 0);
    while first < kept.len() && above <= limit {
        keep = kept[first];
        // One at least: what is no number does not equal itself.
        let end = first + kept[first..].partition_point(|&z| z == keep).max(1);
        above += (end - first) as u64 * mass(keep, kept[0]);
        first = end;
    }
    keep
}

/// The k-th largest value, k in 1..=len; -∞ where fewer are numbers.
///
/// Halves what is between two bounds until so many values as are wanted are not below the middle; a pass that counts
/// is one comparison and one addition to a vector of values.
#[inline(always)]
fn kth_largest(values: &[f32], k: usize) -> f32 {
    // Whole numbers in the order of the floats: those of f32's bits, the negative ones' turned round.
    let float = |place: u32| f32::from_bits(if place >> 31 == 1 { place & 0x7fff_ffff } else { !place });
    let place = |float: f32| if float.is_sign_negative() { !float.to_bits() } else { float.to_bits() | 0x8000_0000 };
    // At least k values are not below the first bound, fewer are not below the second.
    let (mut low, mut high) = (place(f32::NEG_INFINITY), place(f32::INFINITY) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let bound = float(middle);
        let mut count = 0u32;
        for &value in values {
            count += u32::from(value >= bound);
        }
        match (count as usize).cmp(&k) {
            Ordering::Less => high = middle,
            Ordering::Greater => low = middle,
            Ordering::Equal => {
                let mut least = u32::MAX;
                for &value in values {
                    least = least.min(if value >= bound { place(value) } else { u32::MAX });
                }
                return float(least);
            }
        }
    }
    float(low)
}

/// Gumbel noise of one code: -ln(-ln(1 - u)) with u from Philox; the same bits on every executor.
#[inline(always)]
pub fn gumbel(seed: u64, image: u64, token: u32, code: u32) -> f32 {
    let words = philox([code / 4, token, image as u32, (image >> 32) as u32], seed);
    gumbel_of(words[code as usize % 4])
}

/// Gumbel noise from 32 random bits.
#[inline(always)]
pub fn gumbel_of(bits: u32) -> f32 {
    const SCALE: f32 = 1.0 / 4_294_967_296.0;
    let u = ((bits as f32 + 0.5) * SCALE).min(1.0 - f32::EPSILON / 2.0);
    -math::ln(-math::ln_1m(u))
}

/// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#[inline(always)]
pub fn philox(mut counter: [u32; 4], seed: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the Random123 distribution.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(counter, 0x299f_31d0_a409_3822), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn gumbel_stays_finite_at_both_ends() {
        assert!((gumbel_of(0) - 22.87).abs() < 0.01);
        assert!((gumbel_of(u32::MAX) + 2.81).abs() < 0.01);
    }

    #[test]
    fn top_k_keeps_ties_of_the_kth() {
        let z = [1.0, 3.0, 2.0, 2.0, 0.0, 2.0];
        assert_eq!(cutoff(&z, 1, 1.0, &mut [0.0; 8]), 3.0);
        assert_eq!(cutoff(&z, 2, 1.0, &mut [0.0; 8]), 2.0); // keeps four codes
        assert_eq!(cutoff(&z, 6, 1.0, &mut [0.0; 8]), f32::NEG_INFINITY);
    }

    #[test]
    fn the_kth_largest_is_where_sorting_puts_it() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        for kind in 0..6 {
            for len in [1, 2, 3, 16, 17, 1000] {
                let z: Vec<f32> = (0..len)
                    .map(|_| match kind {
                        // Any bits that are a number, infinities and denormals among them.
                        0 => Some(f32::from_bits(random())).filter(|z| !z.is_nan()).unwrap_or(f32::NEG_INFINITY),
                        1 => (random() >> 30) as f32 - 1.5,
                        2 => [0.0, -0.0][random() as usize >> 31],
                        3 => f32::NEG_INFINITY,
                        4 => f32::MAX,
                        _ => (random() >> 8) as f32 / (1 << 20) as f32 - 8.0,
                    })
                    .collect();
                let mut sorted = z.clone();
                sorted.sort_unstable_by(|a, b| b.total_cmp(a));
                for k in [1, 2, len / 3, len - 1, len].into_iter().filter(|k| (1..=len).contains(k)) {
                    assert_eq!(kth_largest(&z, k), sorted[k - 1], "{k} of {len}, kind {kind}");
                }
            }
        }
        // What is no number is not counted, and the search ends.
        assert_eq!(kth_largest(&[f32::NAN, 2.0, -f32::NAN], 1), 2.0);
        assert_eq!(kth_largest(&[f32::NAN, 2.0, -f32::NAN], 2), f32::NEG_INFINITY);
    }

    #[test]
    fn top_p_gives_equal_logits_one_fate() {
        // Masses 0.5, 0.25, 0.25.
        let z = [2f32.ln(), 0.0, 0.0];
        assert_eq!(cutoff(&z, 3, 0.4, &mut [0.0; 8]), z[0]);
        assert_eq!(cutoff(&z, 3, 0.6, &mut [0.0; 8]), 0.0); // 0.5 above the pair ≤ 0.6: both stay
        assert_eq!(cutoff(&[1.0; 4], 4, 1e-6, &mut [0.0; 8]), 1.0); // nothing lies above: all stay
    }
}
