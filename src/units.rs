//! Numbers for people. Units are decimal, as bandwidths are: 1 kB is 1000 bytes.

/// A number of bytes, `12.3 MB`.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// A number of floating-point operations, `12.3 MFLOP`.
pub fn flops(count: u64) -> String {
    scaled(count as f64, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"])
}

/// Three digits and the unit that fits.
fn scaled(count: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (count, 0);
    // 999.5 would round to four digits.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 || value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {}", units[unit])
}
