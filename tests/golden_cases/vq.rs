//! VQ models: decoded images, pixels, encoder output, codes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use smalti::backend::cpu::CpuExecutor;
use smalti::backend::{Executor, Plan};
use smalti::checkpoint::{Checkpoint, WeightsChoice};
use smalti::config::VqConfig;
use smalti::graph::{BufferId, Elem, Extent, Graph, Op, PhaseId};
use smalti::image;
use smalti::models::{Pixels, VqDecoder, VqEncoder};

use crate::common::{Expected, compare, compare_to_largest, cuda_executors};

pub fn check(name: &str, folder: &Path, meta: &serde_json::Value, expected: &BTreeMap<String, Expected>) {
    let checkpoint = Checkpoint::open(&folder.join("vq.pt"), WeightsChoice::Model).expect("the checkpoint opens");
    let config = VqConfig::detect(&checkpoint).expect("the configuration is seen in the tensors");
    assert_eq!(config.downsample_size() as u64, meta["downsample"].as_u64().expect("meta.json says the down-sampling"));
    let case = Case { name, checkpoint: &checkpoint, config: &config, expected };
    case.read_inputs(folder);
    case.decode();
    case.encode();
    case.decode_on_cuda();
    case.encode_on_cuda();
}

struct Case<'a> {
    name: &'a str,
    checkpoint: &'a Checkpoint,
    config: &'a VqConfig,
    expected: &'a BTreeMap<String, Expected>,
}

impl Case<'_> {
    fn expect(&self, tensor: &str) -> &Expected {
        self.expected.get(tensor).unwrap_or_else(|| panic!("{}: no tensor `{tensor}`", self.name))
    }

    /// `input_i.png` → `encode_input`: the same formula in the same type, so the same bits.
    fn read_inputs(&self, folder: &Path) {
        let input = self.expect("encode_input");
        let pictures = (0..input.shape[0]).flat_map(|i| {
            let picture = image::read(&folder.join(format!("input_{i}.png"))).expect("a picture");
            assert_eq!((picture.height(), picture.width()), (input.shape[2], input.shape[3]), "{}: size", self.name);
            picture.to_f32()
        });
        let read: Vec<f64> = pictures.map(f64::from).collect();
        assert!(read == channels_last(input), "{}: the read pictures are not encode_input", self.name);
    }

    /// `decoder_conv_in`, `image`, `image_u8`.
    fn decode(&self) {
        let image = self.expect("image");
        let codes: Vec<u32> = self.expect("codes").values.iter().map(|&code| code as u32).collect();
        self.check_image("image", &codes, image);

        let (plan, graph) = &mut self.plan_decoder(&image.shape, Pixels::F32, 0);
        let node = graph.graph.nodes(graph.decode).iter().position(|node| node.name == "decoder.conv_in");
        let node = node.expect("the decoder has a conv_in");
        let Op::Conv2d(conv_in) = &graph.graph.nodes(graph.decode)[node].op else { panic!("conv_in is a convolution") };
        let extent = Extent { rows: image.shape[0], draws: 0 };
        plan.write(graph.codes, 0, &codes).expect("written");
        plan.run_nodes(graph.decode, 0..node + 1, extent).expect("it runs");
        let h = self.expect("decoder_conv_in");
        let mut found = vec![0f32; h.values.len()];
        plan.read(conv_in.out, 0, &mut found).expect("read");
        let share = compare_to_largest(
            &format!("{}: decoder_conv_in", self.name),
            found.into_iter().map(f64::from),
            &channels_last(h),
        );
        println!("{}: decoder_conv_in: {share:.4} of the allowance", self.name);
    }

    /// `encode_z`, `encode_codes`, `reconstruction`, `reconstruction_u8`.
    fn encode(&self) {
        let input = self.expect("encode_input");
        let (images, size) = (input.shape[0], (input.shape[2], input.shape[3]));
        let pixels: Vec<f32> = channels_last(input).iter().map(|&x| x as f32).collect();
        let encoder = VqEncoder::build(self.config, size, images, Pixels::F32, Elem::F32).expect("an encoder");
        let run = |threads: usize, together: bool| {
            let mut runs = Runs::new(self, encoder.graph.clone(), encoder.encode, threads);
            let z = runs.run(images, together, (encoder.image, &pixels), (encoder.z, 0f32));
            let codes = runs.run(images, together, (encoder.image, &pixels), (encoder.codes, 0u32));
            (z, codes)
        };
        let (z, codes) = run(0, true);
        for (threads, together) in [(1, true), (2, true), (1, false), (2, false)] {
            let again = run(threads, together);
            assert!(again.0 == z, "{}: z differs with {threads} threads, together: {together}", self.name);
            assert!(again.1 == codes, "{}: codes differ with {threads} threads, together: {together}", self.name);
        }

        let share = compare_to_largest(
            &format!("{}: encode_z", self.name),
            z.iter().map(|&x| f64::from(x)),
            &channels_last(self.expect("encode_z")),
        );
        println!("{}: encode_z: {share:.4} of the allowance", self.name);

        // z may be off by 1e-4 of its largest magnitude, the cosine of a vector by that over the vector's
        // length in each of its E coordinates, and the margin, between two codes, by twice as much.
        let e = self.config.codebook_embed_dim;
        let z = channels_last(self.expect("encode_z"));
        let largest = z.iter().fold(0f64, |max, x| max.max(x.abs()));
        let margins = &self.expect("encode_margin").values;
        let expected = &self.expect("encode_codes").values;
        let mut compared = 0;
        for (p, z) in z.chunks_exact(e).enumerate() {
            let length = z.iter().map(|x| x * x).sum::<f64>().sqrt();
            if margins[p] > 2.0 * 1e-4 * largest * (e as f64).sqrt() / length {
                assert_eq!(f64::from(codes[p]), expected[p], "{}: code {p}, margin {}", self.name, margins[p]);
                compared += 1;
            }
        }
        println!(
            "{}: encode_codes: {compared} of {} compared, the others are too close to call",
            self.name,
            codes.len()
        );
        assert!(2 * compared > codes.len(), "{}: hardly any code could be compared", self.name);

        let given: Vec<u32> = expected.iter().map(|&code| code as u32).collect();
        self.check_image("reconstruction", &given, self.expect("reconstruction"));
    }

    fn plan_decoder(&self, image: &[usize], output: Pixels, threads: usize) -> (Box<dyn Plan>, VqDecoder) {
        let decoder = self.decoder(image, output);
        let executor = CpuExecutor::new(threads);
        (executor.plan(Arc::new(decoder.graph.clone()), self.checkpoint).expect("it can be planned"), decoder)
    }

    fn decoder(&self, image: &[usize], output: Pixels) -> VqDecoder {
        let latent = smalti::models::latent_size(self.config, (image[2], image[3])).expect("a size that fits");
        VqDecoder::build(self.config, latent, image[0], output, Elem::F32).expect("a decoder")
    }

    /// Decodes to f32 and to bytes; against the tensors `name` and `name`_u8, and against itself one image
    /// at a time and with one and two threads.
    fn check_image(&self, name: &str, codes: &[u32], expected: &Expected) {
        let images = expected.shape[0];
        let what = format!("{}: {name}", self.name);
        let decoder = self.decoder(&expected.shape, Pixels::F32);
        let cut = self.decoder(&expected.shape, Pixels::U8);
        let run = |threads: usize, together: bool| {
            let mut runs = Runs::new(self, decoder.graph.clone(), decoder.decode, threads);
            let wide = runs.run(images, together, (decoder.codes, codes), (decoder.image, 0f32));
            let mut runs = Runs::new(self, cut.graph.clone(), cut.decode, threads);
            (wide, runs.run(images, together, (cut.codes, codes), (cut.image, 0u8)))
        };
        let (image, bytes) = run(0, true);
        for (threads, together) in [(1, true), (2, true), (1, false), (2, false)] {
            let again = run(threads, together);
            assert!(again.0 == image, "{what}: differs with {threads} threads, together: {together}");
            assert!(again.1 == bytes, "{what}_u8: differs with {threads} threads, together: {together}");
        }

        let share = compare_to_largest(&what, image.iter().map(|&x| f64::from(x)), &channels_last(expected));
        println!("{what}: {share:.4} of the allowance");
        let expected = &self.expect(&format!("{name}_u8")).values;
        compare(&format!("{what}_u8"), bytes.iter().map(|&x| f64::from(x)), expected, |_| 1.0);
        let apart = bytes.iter().zip(expected).filter(|(found, expected)| f64::from(**found) != **expected).count();
        println!("{what}_u8: {apart} of {} values are one apart", bytes.len());
        assert!((apart as f64) < 1e-3 * bytes.len() as f64, "{what}_u8: {apart} of {} differ", bytes.len());
    }
}

/// bf16 maps and weights against f32 ones: each convolution rounds its weights, its input behind the
/// normalization and its output, three relative errors of up to 2^-8 that the next normalization passes on.
/// They are independent, so over all stages they add as a random walk does: sqrt(3 * stages) of them; twice
/// that holds for the largest of all pixels.
fn bf16_error(graph: &Graph, phase: PhaseId) -> f64 {
    let stages = graph.nodes(phase).iter().filter(|node| node.op.name() == "conv2d").count();
    2.0 * (3.0 * stages as f64).sqrt() / 256.0
}

impl Case<'_> {
    /// `image` and `image_u8` through the CUDA kernels.
    fn decode_on_cuda(&self) {
        let expected = self.expect("image");
        let codes: Vec<u32> = self.expect("codes").values.iter().map(|&code| code as u32).collect();
        let what = format!("{}: image", self.name);
        for (device, executor) in cuda_executors(&what) {
            let latent =
                smalti::models::latent_size(self.config, (expected.shape[2], expected.shape[3])).expect("fits");
            let build = |pixels| {
                VqDecoder::build(self.config, latent, expected.shape[0], pixels, executor.activations()).expect("built")
            };
            let (wide, cut) = (build(Pixels::F32), build(Pixels::U8));
            let images = expected.shape[0];
            let mut runs = Runs::on(executor.as_ref(), self, wide.graph.clone(), wide.decode);
            let image = runs.run(images, true, (wide.codes, &codes), (wide.image, 0f32));
            let alone = runs.run(images, false, (wide.codes, &codes), (wide.image, 0f32));
            assert!(image == alone, "{what} on {device}: depends on the other images");
            let mut runs = Runs::on(executor.as_ref(), self, cut.graph.clone(), cut.decode);
            let bytes = runs.run(images, true, (cut.codes, &codes), (cut.image, 0u8));

            let values = channels_last(expected);
            let largest = values.iter().fold(0f64, |max, x| max.max(x.abs()));
            let allowed = bf16_error(&wide.graph, wide.decode) * largest;
            let share =
                compare(&format!("{what} on {device}"), image.iter().map(|&x| f64::from(x)), &values, |_| allowed);
            println!("{what} on {device}: {share:.4} of ±{allowed:.4}");
            let cut_of = |x: f32| (127.5 * x + 128.0).clamp(0.0, 255.0) as u8;
            let same = image.iter().map(|&x| cut_of(x)).zip(&bytes).all(|(cut, &byte)| cut.abs_diff(byte) <= 1);
            assert!(same, "{what}_u8 on {device}: bytes are not the image's");
        }
    }

    /// `encode_codes` through the CUDA kernels, wherever the margin is beyond the error of `encode_z`.
    fn encode_on_cuda(&self) {
        let input = self.expect("encode_input");
        let (images, size) = (input.shape[0], (input.shape[2], input.shape[3]));
        let pixels: Vec<f32> = channels_last(input).iter().map(|&x| x as f32).collect();
        let what = format!("{}: encode_z", self.name);
        for (device, executor) in cuda_executors(&what) {
            let encoder =
                VqEncoder::build(self.config, size, images, Pixels::F32, executor.activations()).expect("built");
            let mut runs = Runs::on(executor.as_ref(), self, encoder.graph.clone(), encoder.encode);
            let found = runs.run(images, true, (encoder.image, &pixels), (encoder.z, 0f32));
            let codes = runs.run(images, true, (encoder.image, &pixels), (encoder.codes, 0u32));

            let z = channels_last(self.expect("encode_z"));
            let largest = z.iter().fold(0f64, |max, x| max.max(x.abs()));
            let allowed = bf16_error(&encoder.graph, encoder.encode) * largest;
            let share = compare(&format!("{what} on {device}"), found.iter().map(|&x| f64::from(x)), &z, |_| allowed);
            println!("{what} on {device}: {share:.4} of ±{allowed:.4}");
            // The codes are the nearest to the device's own vectors, and the golden ones where the best two cosines
            // are further apart than the error of the vector can move them: by its length against the vector's,
            // once for either code.
            let e = self.config.codebook_embed_dim;
            let book = self.checkpoint.get("quantize.embedding.weight").expect("the codebook").to_f32();
            let margins = &self.expect("encode_margin").values;
            let mut compared = 0;
            for (p, (z, found)) in z.chunks_exact(e).zip(found.chunks_exact(e)).enumerate() {
                let nearest = nearest(&book, found);
                let behind = nearest.0 - cosine(&book[codes[p] as usize * e..][..e], found);
                assert!(behind <= 1e-6, "{what} on {device}: code {p} is {} and {} is nearer", codes[p], nearest.1);
                let length = z.iter().map(|x| x * x).sum::<f64>().sqrt();
                let moved = z.iter().zip(found).map(|(z, found)| (z - f64::from(*found)).powi(2)).sum::<f64>().sqrt();
                if margins[p] > 2.0 * moved / length {
                    let golden = self.expect("encode_codes").values[p];
                    assert_eq!(f64::from(codes[p]), golden, "{what} on {device}: code {p}");
                    compared += 1;
                }
            }
            println!("{what} on {device}: {compared} of {} codes beyond doubt", codes.len());
            assert!(compared > 0, "{what} on {device}: no code could be compared");
        }
    }
}

/// The cosine of an angle, plainly.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest cosine of a codebook's rows with z, and its row.
fn nearest(book: &[f32], z: &[f32]) -> (f64, usize) {
    let cosines = book.chunks_exact(z.len()).map(|vector| cosine(vector, z));
    cosines.zip(0..).max_by(|a, b| a.0.total_cmp(&b.0)).expect("a codebook has codes")
}

/// A plan that is run with all images at once or with one after the other.
struct Runs {
    plan: Box<dyn Plan>,
    phase: PhaseId,
}

impl Runs {
    fn new(case: &Case<'_>, graph: Graph, phase: PhaseId, threads: usize) -> Self {
        Self::on(&CpuExecutor::new(threads), case, graph, phase)
    }

    fn on(executor: &dyn Executor, case: &Case<'_>, graph: Graph, phase: PhaseId) -> Self {
        Self { plan: executor.plan(Arc::new(graph), case.checkpoint).expect("it can be planned"), phase }
    }

    /// Writes the input, runs, and returns the output of all images; `output.1` only names its type.
    fn run<I: bytemuck::Pod, O: bytemuck::Pod>(
        &mut self,
        images: usize,
        together: bool,
        input: (BufferId, &[I]),
        output: (BufferId, O),
    ) -> Vec<O> {
        let step = if together { images } else { 1 };
        let width: usize = self.plan.graph().at(output.0).shape.iter().product();
        let mut out = Vec::new();
        for values in input.1.chunks_exact(input.1.len() / images * step) {
            self.plan.write(input.0, 0, values).expect("written");
            self.plan.run(self.phase, Extent { rows: step, draws: 0 }).expect("it runs");
            let mut values = vec![output.1; width * step];
            self.plan.read(output.0, 0, &mut values).expect("read");
            out.extend(values);
        }
        out
    }
}

/// (N, C, H, W) to (N, H, W, C).
fn channels_last(tensor: &Expected) -> Vec<f64> {
    let [n, c, h, w] = tensor.shape[..] else { panic!("an image has four dimensions") };
    let at = |i: usize| {
        let (image, pixel, channel) = (i / (c * h * w), i / c % (h * w), i % c);
        tensor.values[(image * c + channel) * h * w + pixel]
    };
    (0..n * c * h * w).map(at).collect()
}
