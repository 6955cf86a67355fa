//! When requests arrive.

/// Seconds after the beginning at which each of `count` requests arrives: at `rate` per second on average with
/// exponentially distributed gaps, as of independent users; all at once at an infinite rate.
pub fn arrivals(count: usize, rate: f64, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut at = 0.0;
    (0..count)
        .map(|_| {
            let now = at;
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            // In (0, 1].
            let uniform = ((mix(state) >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            if rate.is_finite() {
                at += -uniform.ln() / rate;
            }
            now
        })
        .collect()
}

/// SplitMix64's output function.
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential_and_the_seeds() {
        let count = 20_000;
        let times = arrivals(count, 4.0, 1);
        assert_eq!(times, arrivals(count, 4.0, 1));
        assert_ne!(times, arrivals(count, 4.0, 2));
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // An exponential distribution's deviation is its mean; either is known to 1 / sqrt(count), 0.7 %, here.
        assert!((mean - 0.25).abs() < 0.25 * 0.03 && (deviation - 0.25).abs() < 0.25 * 0.05, "{mean} {deviation}");
        assert_eq!(arrivals(3, f64::INFINITY, 1), [0.0; 3]);
    }
}
