//! Convolutions of all kernels, with and without normalization, residual and the cut to bytes.
//!
//! Rounding: in one chain of K = taps * channels products of random signs the partial sum grows as √k, so the
//! roundings' root sum of squares is K U σ / √6 = ½ U Σ|w x|; six of those for one element in 10^8. The input's
//! own roundings (normalization, SiLU, or the weights' transform), 16 U each at most, average out as 1 / √K.
//! Winograd's F(4, 3) sums products that are larger than the taps': the error of output i grows by
//! √(Σ_p (A_ip |G_p| |B_p|)²) / √3 ≤ 2.7 in each dimension (|·| Euclidean, p the points; the outermost outputs have
//! it largest), 7.1 in two. The products of a doubled map have coefficients of 1 and ½; the same sum gives
//! √3 in each dimension, 3 in two.

use smalti::graph::ops::{self, Conv2d, GROUPS, Kernel, Norm, Store};
use smalti::graph::twin::Twin;
use smalti::graph::{Elem, Extent, Graph, Per, Role, Row, Source};

use crate::common::compare;
use crate::harness::{Case, Random, U};

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

fn case(shape: &Shape) -> (Case, Conv2d) {
    let &Shape { kernel, size, channels: (c, n), images, .. } = shape;
    let extent = Extent { rows: images, draws: 0 };
    let mut graph = Graph::new("conv2d", extent);
    let (height, width) = kernel.output(size);
    let elem = if shape.store == Store::Plain { Elem::F32 } else { Elem::U8 };
    let out = graph.buffer("out", elem, Per::Row, &[height, width, n], Role::Output);
    let x = graph.buffer("x", Elem::F32, Per::Row, &[size.0, size.1, c], Role::Scratch);
    let stats = graph.buffer("stats", Elem::F32, Per::Row, &[GROUPS, 2], Role::Scratch);
    let table = graph.buffer("rows", Elem::Row, Per::Row, &[], Role::Input);
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
        weight: graph.weight("weight", Elem::F32, &[n, c, kernel.side(), kernel.side()], Source::Tensor),
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

/// Σ |w f(x)| for every output.
fn magnitudes(case: &Case, op: &Conv2d) -> Vec<f64> {
    let before = case.twin_before();
    let mut twin = Twin::new(&case.graph, before.weights.clone());
    let mut plain = Conv2d { residual: None, store: Store::Plain, ..op.clone() };
    let x = &before.buffers[op.x.index()];
    twin.buffers[op.x.index()] = (0..x.len())
        .map(|i| {
            let Some(norm) = op.norm else { return x[i].abs() };
            let (image, channel) = (i / op.len_in(), i % op.channels_in);
            let pair = 2 * (image * GROUPS + channel * GROUPS / op.channels_in);
            let stats = &before.buffers[norm.stats.index()];
            let weight = |id: smalti::graph::WeightId| before.weights[id.index()][channel];
            let y = (x[i] - stats[pair]) * stats[pair + 1] * weight(norm.weight) + weight(norm.bias);
            if norm.silu { (y / (1.0 + (-y).exp())).abs() } else { y.abs() }
        })
        .collect();
    plain.norm = None;
    twin.weights[op.weight.index()].iter_mut().for_each(|w| *w = w.abs());
    ops_twin(&plain, &mut twin, case.extent);
    twin.buffers[op.out.index()].clone()
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

fn check(shape: Shape) {
    let (case, op) = case(&shape);
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
    if shape.images > 1 {
        case.check_rows_alone(&left, &[op.out]);
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
    let (mut case, op) = case(&Shape { kernel: Kernel::Upsample, size: (2, 3), channels: (16, 16), ..PLAIN });
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
