//! Convolutions of all kernels, with and without normalization, residual and the cut to bytes.
//!
//! Rounding: in one chain of K = taps * channels products of random signs the partial sum grows as √k, so the
//! roundings' root sum of squares is K U σ / √6 = ½ U Σ|w x|; six of those for one element in 10^8. The input's
//! own roundings (normalization, SiLU, or the weights' transform), 16 U each at most, average out as 1 / √K.
//! Winograd's F(4, 3) sums products that are larger than the taps': the error of output i grows by
//! √(Σ_p (A_ip |G_p| |B_p|)²) / √3 ≤ 2.7 in each dimension (|·| Euclidean, p the points; the outermost outputs have
//! it largest), 7.1 in two. The products of a doubled map have coefficients of 1 and ½; the same sum gives
//! √3 in each dimension, 3 in two.
//!
//! On CUDA, see `allowed_on_cuda`.

use smalti::graph::ops::{self, Conv2d, GROUPS, Kernel, Norm, Patches, Store};
use smalti::graph::twin::Twin;
use smalti::graph::{BufferId, Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, Left, Order, Random, U};

#[derive(Clone, Copy)]
struct Shape {
    kernel: Kernel,
    size: (usize, usize),
    channels: (usize, usize),
    images: usize,
    /// Normalization in front, and SiLU after it.
    norm: Option<bool>,
    residual: bool,
    store: Store,
}

const PLAIN: Shape = Shape {
    kernel: Kernel::Square,
    size: (1, 1),
    channels: (1, 1),
    images: 1,
    norm: None,
    residual: false,
    store: Store::Plain,
};

/// What the input, the weights and a plain result are held as.
#[derive(Clone, Copy)]
struct Elems {
    x: Elem,
    weight: Elem,
    out: Elem,
    /// The type of results whose moments are left: on the CPU f32, on CUDA bf16.
    moments_of: Elem,
}

const F32: Elems = Elems { x: Elem::F32, weight: Elem::F32, out: Elem::F32, moments_of: Elem::F32 };
const BF16: Elems = Elems { x: Elem::Bf16, weight: Elem::Bf16, out: Elem::Bf16, moments_of: Elem::Bf16 };

fn case(shape: &Shape, elems: Elems) -> (Case, Conv2d) {
    let &Shape { kernel, size, channels: (c, n), images, .. } = shape;
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("conv2d", extent);
    let (height, width) = kernel.output(size);
    let elem = if shape.store == Store::Plain { elems.out } else { Elem::U8 };
    let out = graph.buffer("out", elem, Per::Row, &[height, width, n], Role::Output);
    let x = graph.buffer("x", elems.x, Per::Row, &[size.0, size.1, c], Role::Scratch);
    let stats = graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch);
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
    let patches = Patches::of(kernel, size).count();
    let moments = graph.buffer("moments", Elem::F32, Per::Row, &[patches, n, 2], Role::Scratch);
    let leaves_moments = elem == elems.moments_of && n % GROUPS == 0;
    let op = Conv2d {
        out,
        x,
        norm: shape.norm.map(|silu| Norm {
            stats,
            weight: graph.weight("norm.weight", Elem::F32, &[c], Source::Tensor),
            bias: graph.weight("norm.bias", Elem::F32, &[c], Source::Tensor),
            silu,
        }),
        residual: shape.residual.then_some(out),
        moments: leaves_moments.then_some(moments),
        weight: graph.weight("weight", elems.weight, &[n, c, kernel.side(), kernel.side()], Source::Tensor),
        bias: graph.weight("bias", Elem::F32, &[n], Source::Tensor),
        kernel,
        size,
        channels_in: c,
        channels_out: n,
        store: shape.store,
    };
    let phase = graph.phase("decode");
    graph.push(phase, "conv2d", op.clone());
    let random = &mut Random::new((size.0 * 31 + size.1 * 7 + c * 3 + n) as u64);
    let mut case = Case::new(graph, phase, extent, random);
    case.fill(x, random.normals(images * size.0 * size.1 * c));
    if shape.residual {
        case.fill(out, random.normals(images * height * width * n));
    }
    if shape.norm.is_some() {
        // Means about 0, standard deviations about 1.
        let pairs = (0..images * GROUPS).flat_map(|_| [random.normal() * 0.3, 1.0 + 0.5 * random.uniform()]);
        let pairs: Vec<f32> = pairs.collect();
        case.fill(stats, pairs);
    }
    case.rows = Some((table, vec![Row::default(); images]));
    (case, op)
}

/// bias + Σ |w f(x)| for every output.
fn magnitudes(case: &Case, op: &Conv2d) -> Vec<f64> {
    sums(case, op, f64::abs)
}

/// bias + Σ g(w) g(f(x)) for every output.
fn sums(case: &Case, op: &Conv2d, g: fn(f64) -> f64) -> Vec<f64> {
    let before = case.twin_before();
    let mut twin = Twin::new(&case.graph, before.weights.clone());
    let mut plain = Conv2d { residual: None, moments: None, store: Store::Plain, ..op.clone() };
    let x = &before.buffers[op.x.index()];
    twin.buffers[op.x.index()] = (0..x.len())
        .map(|i| {
            let Some(norm) = op.norm else { return g(x[i]) };
            let (image, channel) = (i / op.len_in(), i % op.channels_in);
            let pair = 2 * (image * GROUPS + channel * GROUPS / op.channels_in);
            let stats = &before.buffers[norm.stats.index()];
            let weight = |id: smalti::graph::WeightId| before.weights[id.index()][channel];
            let y = (x[i] - stats[pair]) * stats[pair + 1] * weight(norm.weight) + weight(norm.bias);
            g(if norm.silu { y / (1.0 + (-y).exp()) } else { y })
        })
        .collect();
    plain.norm = None;
    twin.weights[op.weight.index()].iter_mut().for_each(|w| *w = g(*w));
    ops_twin(&plain, &mut twin, case.extent);
    twin.buffers[op.out.index()].clone()
}

/// What a run leaves.
fn outputs(op: &Conv2d) -> Vec<BufferId> {
    [op.out].into_iter().chain(op.moments).collect()
}

fn ops_twin(op: &Conv2d, twin: &mut Twin<'_>, extent: Extent) {
    ops::Op::from(op.clone()).twin(twin, extent);
}

/// Roundings of an output, in units of [`U`] Σ |w f(x)|, from the sum's own and from those of the inputs.
///
/// Summed directly, as for narrow or odd widths and, where weights are many, for `Square`, an output is one chain of
/// additions: partial sums grow with the root of their number, so their roundings walk to 0.9 rms, and the
/// largest of 10^5 outputs lies within five deviations. Winograd's products are shorter chains, whose
/// roundings its transforms magnify.
fn roundings(op: &Conv2d) -> f64 {
    let depth = (op.kernel.side() * op.kernel.side() * op.channels_in) as f64;
    let inputs = 16.0 / depth.sqrt();
    let fits = op.channels_in.is_multiple_of(16) && op.channels_out.is_multiple_of(16);
    match op.kernel {
        Kernel::Square if fits && op.channels_in * op.channels_out <= 256 * 256 => 7.1 * (3.0 + inputs),
        Kernel::Upsample if fits => 3.0 * (3.0 + inputs),
        _ => 4.5 + inputs,
    }
}

/// Checks the moments against what lies in `out`, the 32 values or fewer of each patch and channel.
///
/// The CPU sums them, then what is left around their mean: 33 roundings of either, of which those of the first sum are
/// corrected. CUDA sums values and squares, along seven additions each, and scales them: squares err by 8 U of the
/// values' own mean square, where they are not exact.
fn check_moments(what: &str, case: &Case, op: &Conv2d, left: &Left, on_cuda: bool) {
    let Some(moments) = op.moments else { return };
    let out = case.values(left, op.out);
    let expected: Vec<f64> = out.chunks_exact(op.len_out()).flat_map(|out| op.moments_of(out)).collect();
    compare(&format!("moments of {what}"), case.values(left, moments), &expected, |i| {
        let (mean, variance) = (expected[i / 2 * 2].abs(), expected[i / 2 * 2 + 1]);
        let around = variance.sqrt();
        match (i % 2 == 0, on_cuda) {
            (true, false) => U * (2.0 * mean + 34.0 * around),
            (false, false) => U * (36.0 * variance + 34.0 * around * 34.0 * around * U),
            (true, true) => U * (9.0 * (mean + around)),
            (false, true) => 10.0 * U * (variance + mean * mean),
        }
    });
}

fn check(shape: Shape) {
    let (case, op) = case(&shape, F32);
    let (left, twin) = (case.run_everywhere(), case.twin());
    let (found, expected) = (case.values(&left, op.out), &twin.buffers[op.out.index()]);
    let what = format!("{:?} {:?} {:?} x {}", shape.kernel, shape.size, shape.channels, shape.images);
    if shape.store == Store::Rgb8 {
        compare(&what, found.iter().copied(), expected, |_| 1.0);
        let apart = found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
        assert!(apart <= expected.len() / 1000, "{what}: {apart} of {} bytes differ", expected.len());
    } else {
        let magnitudes = magnitudes(&case, &op);
        // A Winograd tile's products mix all that the tile sees: the largest of the neighbourhood counts.
        let largest = magnitudes.iter().copied().fold(0.0, f64::max);
        let roundings = roundings(&op);
        let share = compare(&what, found, expected, |i| roundings * U * largest + 2.0 * U * expected[i].abs());
        println!("{what}: {share:.3} of the allowance");
    }
    check_moments(&what, &case, &op, &left, false);
    if shape.images > 1 {
        case.check_rows_alone(&left, &outputs(&op));
    }
}

#[test]
fn every_kernel_matches_its_twin() {
    for kernel in [Kernel::Point, Kernel::Square, Kernel::Downsample, Kernel::Upsample] {
        for size in [(2, 2), (4, 6), (10, 34), (18, 38)] {
            for channels in [(1, 1), (3, 32), (16, 16), (33, 5), (64, 48)] {
                check(Shape { kernel, size, channels, images: 3, ..PLAIN });
            }
        }
    }
}

#[test]
fn odd_sizes_match() {
    for size in [(1, 1), (1, 7), (5, 3), (31, 17)] {
        for kernel in [Kernel::Point, Kernel::Square, Kernel::Upsample] {
            check(Shape { kernel, size, channels: (32, 32), images: 2, residual: true, ..PLAIN });
        }
    }
}

#[test]
fn true_widths_match() {
    for channels in [(128, 128), (256, 128), (256, 256)] {
        check(Shape { size: (9, 11), channels, norm: Some(true), residual: true, ..PLAIN });
    }
    check(Shape { size: (5, 6), channels: (512, 512), norm: Some(true), ..PLAIN });
    check(Shape { size: (5, 6), channels: (512, 256), norm: Some(true), ..PLAIN });
    for kernel in [Kernel::Downsample, Kernel::Upsample] {
        check(Shape { kernel, size: (4, 4), channels: (512, 512), ..PLAIN });
        check(Shape { kernel, size: (8, 10), channels: (128, 128), ..PLAIN });
    }
    check(Shape { kernel: Kernel::Point, size: (9, 9), channels: (512, 512), norm: Some(false), images: 2, ..PLAIN });
    check(Shape { kernel: Kernel::Point, size: (9, 9), channels: (512, 8), ..PLAIN });
}

#[test]
fn normalization_and_residual_match() {
    for norm in [None, Some(false), Some(true)] {
        for residual in [false, true] {
            for channels in [(32, 32), (64, 96), (96, 8)] {
                check(Shape { size: (9, 12), channels, norm, residual, images: 2, ..PLAIN });
            }
        }
    }
}

#[test]
fn pixels_are_cut_to_bytes() {
    for channels in [(32, 3), (128, 3)] {
        check(Shape { size: (18, 33), channels, norm: Some(true), images: 2, store: Store::Rgb8, ..PLAIN });
    }
}

#[test]
fn an_identity_doubles_a_map() {
    let (mut case, op) = case(&Shape { kernel: Kernel::Upsample, size: (2, 3), channels: (16, 16), ..PLAIN }, F32);
    // The middle tap of each channel alone.
    case.weights[op.weight.index()] =
        (0..16 * 16 * 9).map(|i| if i % 9 == 4 && i / 9 / 16 == i / 9 % 16 { 1.0 } else { 0.0 }).collect();
    case.weights[op.bias.index()].fill(0.0);
    let x: Vec<f32> = (0..2 * 3 * 16).map(|i| i as f32).collect();
    case.buffers = vec![(op.x, x)];
    let found = case.values(&case.run_everywhere(), op.out);
    for (i, found) in found.into_iter().enumerate() {
        let (y, x, channel) = (i / 16 / 6, i / 16 % 6, i % 16);
        assert_eq!(found, ((y / 2 * 3 + x / 2) * 16 + channel) as f64, "pixel ({y}, {x}), channel {channel}");
    }
}

/// How far an output may be off where maps and weights are bf16.
///
/// f(x) is rounded to bf16, by 2^-8 at most and, evenly spread, 2^-8 / √3 rms; that is independent from product to
/// product, so an output errs by 2^-8 / √3 √Σ(w f(x))² rms; six of those for one element in 10^8. What f32 adds in f
/// is 2^-12 of that. Without f a bf16 map goes into the products as it is. The sum of the up to four taps that meet a
/// doubled pixel is rounded as f is, and (Σw)² ≤ 4 Σw² makes either at most twice as much. A tensor core's mma adds 16
/// products to a sum that it rounds, perhaps by cutting: 2 U of a partial sum, K / 16 times, the bias and the residual.
/// At the end the result is rounded to its own type.
fn allowed_on_cuda(case: &Case, op: &Conv2d, expected: &[f64]) -> Vec<f64> {
    const BF16_U: f64 = 1.0 / 256.0;
    let products = sums(case, op, f64::abs);
    let squares = sums(case, op, |x| x * x);
    let bias = &case.weights[op.bias.index()];
    let rounds_input = op.norm.is_some() || case.graph.at(op.x).elem == Elem::F32;
    let merges = op.kernel == Kernel::Upsample;
    let factors = f64::from(u8::from(rounds_input) + u8::from(merges)).sqrt() * if merges { 2.0 } else { 1.0 };
    let factors = factors * 6.0 / 3f64.sqrt() * BF16_U;
    let mmas = (op.kernel.merged_side().pow(2) * op.channels_in.next_multiple_of(32) / 16) as f64;
    let output = if case.graph.at(op.out).elem == Elem::Bf16 { BF16_U } else { U };
    (0..expected.len())
        .map(|i| {
            let bias = f64::from(bias[i % op.channels_out]);
            let sum = factors * (squares[i] - bias).sqrt() + 2.0 * (mmas + 2.0) * U * (products[i] - bias + bias.abs());
            (1.0 + output) * sum + (output + 2.0 * U) * expected[i].abs()
        })
        .collect()
}

/// Weights of bf16 on the CPU: what they meet is bf16 too, sums and maps are f32.
const PAIRS: Elems = Elems { weight: Elem::Bf16, ..F32 };

/// How far an output may be off where the CPU multiplies in bf16.
///
/// Tap by tap: as on CUDA, f(x) is off by 2^-8 / √3 rms of itself, independently from product to product, and six
/// of those hold for one element in 10^8; the weights here are bf16 already. Winograd rounds both factors of its
/// products instead, √2 of that, and magnifies them by 7.1 or 3 as on top of this file, for an element whose
/// neighbourhood is as large as the largest. Tiles round the sum of the up to four taps that meet a doubled pixel: √2
/// again, and (Σw)² ≤ 4 Σw² makes it 2 √2 at most. f32's share is that of [`roundings`].
fn allowed_in_pairs(case: &Case, op: &Conv2d, order: Order, expected: &[f64]) -> Vec<f64> {
    const BF16_U: f64 = 1.0 / 256.0;
    let (products, squares) = (sums(case, op, f64::abs), sums(case, op, |x| x * x));
    let bias = |i: usize| f64::from(case.weights[op.bias.index()][i % op.channels_out]);
    let deviations: Vec<f64> = (0..expected.len()).map(|i| (squares[i] - bias(i)).max(0.0).sqrt()).collect();
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let fits = op.channels_in.is_multiple_of(16) && op.channels_out.is_multiple_of(16);
    let magnified = match op.kernel {
        Kernel::Upsample if order == Order::Tiles => 2f64.sqrt() * 2.0,
        _ if order == Order::Tiles => 1.0,
        Kernel::Square if fits && op.channels_in * op.channels_out <= 256 * 256 => 2f64.sqrt() * 7.1,
        Kernel::Upsample if fits => 2f64.sqrt() * 3.0,
        _ => 1.0,
    };
    let (one, f32) = (6.0 / 3f64.sqrt() * BF16_U, roundings(op) * U * largest(&products));
    (0..expected.len())
        .map(|i| {
            let mixed = magnified > 1.0 && order == Order::Lanes;
            let deviation = if mixed { largest(&deviations) } else { deviations[i] };
            one * magnified * deviation + f32 + 2.0 * U * expected[i].abs()
        })
        .collect()
}

fn check_in_pairs(shape: Shape) {
    let (case, op) = case(&shape, PAIRS);
    let twin = case.twin();
    let expected = &twin.buffers[op.out.index()];
    let rms = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.fold((0.0, 0), |(sum, count), x| (sum + x * x, count + 1));
        (sum / f64::from(count)).sqrt()
    };
    // All instruction sets of an order leave the same bits: AVX512-BF16 and those without, AMX and its emulation.
    for (order, left) in case.run_in_each_order() {
        let found = case.values(&left, op.out);
        let what = format!("{:?} {:?} {:?} x {} {order:?}", shape.kernel, shape.size, shape.channels, shape.images);
        let allowed = allowed_in_pairs(&case, &op, order, expected);
        if shape.store == Store::Rgb8 {
            compare(&what, found.iter().copied(), expected, |i| 1.0 + (127.5 * allowed[i]).floor());
        } else {
            let share = compare(&what, found.iter().copied(), expected, |i| allowed[i]);
            let off = rms(&mut found.iter().zip(expected).map(|(x, y)| x - y)) / rms(&mut expected.iter().copied());
            println!("{what}: {share:.3} of the allowance, off by {off:.5} rms");
        }
        check_moments(&what, &case, &op, &left, false);
        if shape.images > 1 {
            case.check_rows_alone_in(order, &left, &outputs(&op));
        }
    }
}

#[test]
fn every_kernel_matches_its_twin_in_pairs() {
    for kernel in [Kernel::Point, Kernel::Square, Kernel::Downsample, Kernel::Upsample] {
        // Tiles take two rows of up to sixteen pixels at once, or one of 32.
        for size in [(2, 2), (5, 3), (7, 16), (10, 34)] {
            // An odd number of channels has no pairs and goes in f32.
            for channels in [(3, 32), (2, 1), (16, 16), (34, 5), (64, 48)] {
                check_in_pairs(Shape { kernel, size, channels, images: 2, residual: true, ..PLAIN });
            }
        }
    }
}

#[test]
fn true_widths_match_in_pairs() {
    for channels in [(128, 128), (256, 128), (512, 512)] {
        check_in_pairs(Shape { size: (5, 6), channels, norm: Some(true), residual: true, ..PLAIN });
    }
    check_in_pairs(Shape { size: (20, 40), channels: (64, 48), norm: Some(true), residual: true, images: 2, ..PLAIN });
    check_in_pairs(Shape { kernel: Kernel::Upsample, size: (4, 4), channels: (512, 512), ..PLAIN });
    // Long strips, behind a normalization.
    for (kernel, size) in [(Kernel::Upsample, (20, 34)), (Kernel::Downsample, (40, 68))] {
        let shape = Shape { kernel, size, channels: (32, 16), norm: Some(true), ..PLAIN };
        check_in_pairs(Shape { residual: true, images: 4, ..shape });
    }
    let point = Shape { kernel: Kernel::Point, size: (9, 9), channels: (512, 512), norm: Some(false), ..PLAIN };
    check_in_pairs(point);
    check_in_pairs(Shape { size: (18, 33), channels: (128, 3), norm: Some(true), store: Store::Rgb8, ..PLAIN });
}

fn check_on_cuda(shape: Shape, elems: Elems) {
    let (case, op) = case(&shape, elems);
    let twin = case.twin();
    let expected = &twin.buffers[op.out.index()];
    let allowed = allowed_on_cuda(&case, &op, expected);
    let what = format!("{:?} {:?} {:?} x {}", shape.kernel, shape.size, shape.channels, shape.images);
    for (device, left) in case.run_on_cuda() {
        let found = case.values(&left, op.out);
        if shape.store == Store::Rgb8 {
            // A level is cut, so one that lies near an integer may fall to the next one; as often up as down.
            compare(&what, found.iter().copied(), expected, |i| 1.0 + (127.5 * allowed[i]).floor());
            let drift = found.iter().zip(expected).map(|(found, expected)| found - expected).sum::<f64>();
            assert!(drift.abs() < 4.0 * (found.len() as f64).sqrt(), "{what}: drifts by {drift} levels in all");
        } else {
            let share = compare(&format!("{what} on {device}"), found, expected, |i| allowed[i]);
            println!("{what} on {device}: {share:.3} of the allowance");
        }
        check_moments(&what, &case, &op, &left, true);
        if shape.images > 1 {
            // An image alone may be cut into smaller tiles.
            case.check_rows_alone_on_cuda(&device, &left, &outputs(&op));
        }
    }
}

#[test]
fn every_kernel_matches_its_twin_on_cuda() {
    for kernel in [Kernel::Point, Kernel::Square, Kernel::Downsample, Kernel::Upsample] {
        for size in [(5, 7), (17, 9)] {
            for channels in [(32, 32), (64, 96), (40, 72)] {
                check_on_cuda(Shape { kernel, size, channels, images: 3, ..PLAIN }, BF16);
            }
        }
    }
}

#[test]
fn normalization_and_residual_match_on_cuda() {
    for norm in [None, Some(false), Some(true)] {
        for residual in [false, true] {
            for (kernel, channels) in [(Kernel::Square, (32, 64)), (Kernel::Point, (96, 48))] {
                check_on_cuda(Shape { kernel, size: (9, 17), channels, norm, residual, images: 3, ..PLAIN }, BF16);
            }
        }
    }
    for kernel in [Kernel::Downsample, Kernel::Upsample] {
        let shape = Shape { kernel, size: (4, 6), channels: (64, 33), norm: Some(true), residual: true, ..PLAIN };
        check_on_cuda(shape, BF16);
    }
}

#[test]
fn every_tile_gives_the_same_bits_on_cuda() {
    for (kernel, size, norm) in [
        (Kernel::Point, (9, 20), Some(false)),
        (Kernel::Square, (15, 18), Some(true)),
        (Kernel::Downsample, (9, 20), None),
        (Kernel::Upsample, (7, 9), Some(true)),
    ] {
        // Whole stages and tiles, then neither.
        // The last goes through more stages than any tile has in shared memory.
        for channels in [(32, 128), (40, 120), (160, 128)] {
            let norm = norm.filter(|_| channels.0 % GROUPS == 0);
            let shape = Shape { kernel, size, channels, norm, residual: norm == Some(true), images: 3, ..PLAIN };
            check_on_cuda(shape, BF16);
            case(&shape, BF16).0.run_on_cuda_of_all_sizes();
        }
    }
}

#[test]
fn true_widths_match_on_cuda() {
    check_on_cuda(Shape { size: (3, 5), channels: (512, 512), norm: Some(true), residual: true, ..PLAIN }, BF16);
    check_on_cuda(Shape { kernel: Kernel::Upsample, size: (2, 2), channels: (256, 256), ..PLAIN }, BF16);
    let point = Shape { kernel: Kernel::Point, size: (4, 5), channels: (512, 512), norm: Some(false), ..PLAIN };
    check_on_cuda(point, BF16);
    // To the vectors before the codebook.
    check_on_cuda(Shape { channels: (256, 8), norm: None, ..point }, Elems { out: Elem::F32, ..BF16 });
}

#[test]
fn images_go_in_and_out_on_cuda() {
    let shape = Shape { size: (7, 19), images: 3, ..PLAIN };
    for x in [Elem::F32, Elem::Bf16] {
        for kernel in [Kernel::Point, Kernel::Square] {
            check_on_cuda(Shape { kernel, channels: (3, 32), ..shape }, Elems { x, ..BF16 });
        }
        check_on_cuda(Shape { channels: (100, 5), residual: true, ..shape }, Elems { x, ..BF16 });
    }
    for channels in [(32, 3), (128, 3)] {
        let shape = Shape { channels, norm: Some(true), ..shape };
        check_on_cuda(shape, Elems { out: Elem::F32, ..BF16 });
        check_on_cuda(Shape { store: Store::Rgb8, ..shape }, BF16);
    }
}

#[test]
fn an_identity_doubles_a_map_on_cuda() {
    let (mut case, op) = case(&Shape { kernel: Kernel::Upsample, size: (2, 3), channels: (16, 16), ..PLAIN }, BF16);
    case.weights[op.weight.index()] =
        (0..16 * 16 * 9).map(|i| if i % 9 == 4 && i / 9 / 16 == i / 9 % 16 { 1.0 } else { 0.0 }).collect();
    case.weights[op.bias.index()].fill(0.0);
    case.buffers = vec![(op.x, (0..2 * 3 * 16).map(|i| i as f32).collect())];
    for (_, left) in case.run_on_cuda() {
        for (i, found) in case.values(&left, op.out).into_iter().enumerate() {
            let (y, x, channel) = (i / 16 / 6, i / 16 % 6, i % 16);
            assert_eq!(found, ((y / 2 * 3 + x / 2) * 16 + channel) as f64, "pixel ({y}, {x}), channel {channel}");
        }
    }
}

/// An identity of values within two powers of two whose mean costs the variance nothing: 1020 and 1024, neighbours in
/// bf16, in patches of 2 x 16, 2 x 3, 1 x 16 and 1 x 3 pixels.
fn check_a_large_mean(elems: Elems, run: fn(&Case) -> Vec<(String, Left)>) {
    let shape = Shape { kernel: Kernel::Point, size: (5, 35), channels: (32, 32), ..PLAIN };
    let (mut case, op) = case(&shape, elems);
    case.weights[op.weight.index()] = (0..32 * 32).map(|i| f32::from(u8::from(i % 33 == 0))).collect();
    case.weights[op.bias.index()].fill(0.0);
    let random = &mut Random::new(3);
    case.buffers = vec![(op.x, (0..5 * 35 * 32).map(|_| 1020.0 + 4.0 * (2.0 * random.uniform()).floor()).collect())];
    for (device, left) in run(&case) {
        let expected = op.moments_of(&case.values(&left, op.out));
        compare(&format!("moments on {device}"), case.values(&left, op.moments.unwrap()), &expected, |i| {
            if i % 2 == 0 { 2.0 * U * expected[i] } else { 36.0 * U * (expected[i] + 2.0 * U * expected[i - 1]) }
        });
    }
}

#[test]
fn a_large_mean_costs_the_variance_nothing() {
    check_a_large_mean(F32, |case| vec![("cpu".into(), case.run_everywhere())]);
}

#[test]
fn a_large_mean_costs_the_variance_nothing_on_cuda() {
    check_a_large_mean(BF16, Case::run_on_cuda);
}
