//! What a run left on two executors, compared.

use half::bf16;

use super::rules::Rule;
use super::values::Left;
use crate::graph::Elem;

/// How far a device was off.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Elements that the op wrote.
    pub elements: usize,
    /// The largest share of what is allowed; above 1 is wrong.
    pub share: f64,
    /// The worst place: `x[17]: found 1.5, expected 1.25, allowed ±0.01`.
    pub worst: String,
}

impl Comparison {
    /// An op that writes nothing is not right either.
    pub fn is_right(&self) -> bool {
        self.elements > 0 && self.share <= 1.0
    }
}

/// Half of bf16's last place at most, relative.
const HALF_PLACE: f64 = 1.0 / 256.0;

/// Compares every buffer's elements that either side has written, that is, changed.
pub fn compare(rule: &Rule, before: &[Left], expected: &[Left], found: &[Left]) -> Comparison {
    let mut all = Comparison { elements: 0, share: 0.0, worst: "all are equal".into() };
    for ((before, expected), found) in before.iter().zip(expected).zip(found) {
        if before.bytes == expected.bytes && before.bytes == found.bytes {
            continue;
        }
        let values = [before, expected, found].map(decode);
        let written: Vec<usize> =
            (0..values[1].len()).filter(|&i| values[0][i] != values[1][i] || values[0][i] != values[2][i]).collect();
        all.elements += written.len();
        // Pixels are bytes around 128, half their range for each 1.
        let centre = if expected.elem == Elem::U8 { 128.0 } else { 0.0 };
        let squares: f64 = written.iter().map(|&i| (values[1][i] - centre).powi(2)).sum();
        let spread = (squares / written.len().max(1) as f64).sqrt();
        let exact = matches!(expected.elem, Elem::U32 | Elem::Row | Elem::Draw);
        if let (Rule::Choices(share), true) = (rule, exact) {
            let differ = written.iter().filter(|&&i| values[1][i] != values[2][i]).count();
            let share = differ as f64 / (share * written.len().max(1) as f64).max(1.0);
            if share > all.share {
                all.share = share;
                all.worst = format!("{differ} of {} differ in `{}`", written.len(), expected.name);
            }
            continue;
        }
        let held = [expected, found].iter().filter(|left| left.elem == Elem::Bf16).count() as f64;
        for i in written {
            let [expected_value, found_value] = [values[1][i], values[2][i]];
            let rounding = HALF_PLACE * held * expected_value.abs();
            let allowed = if exact { 0.0 } else { rule.allowed(spread) + rounding };
            let share = match (expected_value - found_value).abs() {
                0.0 => 0.0,
                // NaN on either side is wrong.
                difference if difference.is_nan() => f64::INFINITY,
                difference => difference / allowed,
            };
            if share > all.share {
                all.share = share;
                let name = &expected.name;
                all.worst =
                    format!("{name}[{i}]: found {found_value}, expected {expected_value}, allowed ±{allowed:.1e}");
            }
        }
    }
    all
}

/// Elements as numbers, which f32 holds as the codes and counts that there are; tables as the words they are made of.
fn decode(left: &Left) -> Vec<f64> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    match left.elem {
        Elem::F32 => left.bytes.chunks_exact(4).map(|bytes| f32::from_bits(word(bytes)).into()).collect(),
        Elem::Bf16 => {
            let values = left.bytes.chunks_exact(2);
            values.map(|bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64()).collect()
        }
        Elem::U8 => left.bytes.iter().map(|&byte| byte.into()).collect(),
        Elem::U32 | Elem::Row | Elem::Draw => left.bytes.chunks_exact(4).map(|bytes| word(bytes).into()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(elem: Elem, values: &[f32]) -> Vec<Left> {
        let bytes = match elem {
            Elem::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        vec![Left { name: "x".into(), elem, bytes }]
    }

    const RULE: Rule = Rule::Rounded { roundings: 1.0, depth: 16 };

    #[test]
    fn a_rounding_is_right_and_a_slip_is_wrong() {
        let before = left(Elem::F32, &[0.0; 4]);
        let expected = left(Elem::F32, &[1.0, -1.3, 0.7, 2.0]);
        let rounded = compare(&RULE, &before, &expected, &left(Elem::Bf16, &[1.0, -1.3, 0.7, 2.0]));
        assert!(rounded.is_right() && rounded.share > 0.0, "{rounded:?}");
        let slip = compare(&RULE, &before, &expected, &left(Elem::F32, &[1.0, -1.3, 0.75, 2.0]));
        assert!(!slip.is_right() && slip.worst.starts_with("x[2]: found 0.75"), "{slip:?}");
        let exact = compare(&Rule::Exact, &before, &expected, &left(Elem::F32, &[1.0, -1.3, 0.7, 2.000_001]));
        assert!(!exact.is_right(), "{exact:?}");
    }

    #[test]
    fn nothing_written_and_no_numbers_are_wrong() {
        let before = left(Elem::F32, &[1.0; 4]);
        assert!(!compare(&RULE, &before, &before, &before).is_right());
        let nan = compare(&RULE, &before, &left(Elem::F32, &[2.0; 4]), &left(Elem::F32, &[2.0, f32::NAN, 2.0, 2.0]));
        assert!(!nan.is_right(), "{nan:?}");
    }

    #[test]
    fn what_the_device_alone_wrote_is_wrong() {
        let before = left(Elem::F32, &[1.0; 4]);
        let expected = left(Elem::F32, &[1.0, 1.0, 1.0, 5.0]);
        let stray = compare(&RULE, &before, &expected, &left(Elem::F32, &[9.0, 1.0, 1.0, 5.0]));
        assert!(!stray.is_right() && stray.elements == 2, "{stray:?}");
    }
}
