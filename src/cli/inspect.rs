//! `smalti inspect`: what a checkpoint holds, the plan that runs it, and what that plan costs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::device::Precision;
use super::{check_image_size, plural, tell, wrong_option};
use crate::Result;
use crate::backend::{Device, cuda};
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::{GptConfig, ModelConfig, T5Config, VqConfig, default_image_size};
use crate::graph::print::{Table, buffers, by_layer, memory, ops};
use crate::graph::{Cost, Elem, Extent, Graph, Load, Node, PhaseId};
use crate::models::{GptGraph, GptShape, Pixels, T5Graph, T5Shape, VqDecoder, VqEncoder};
use crate::units::{bytes, flops};

/// Show a checkpoint's configuration, tensors, plan, memory and floor
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti inspect c2i_B_256.pt --image-size 256
  smalti inspect c2i_XL_384.pt --batch-size 8 --device cuda --bandwidth 4300
  smalti inspect vq_ds16_c2i.pt --bandwidth 40 --tensors

The floor is the time in which a run's bytes pass at the bandwidth: no program is faster without a cache
that holds them.")]
pub struct Args {
    /// GPT, VQ or T5 checkpoint: .pt, .safetensors, or a folder with model.safetensors and config.json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384 (GPT) or 256 (VQ)
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// Pixels per code along a side, for a GPT: its VQ model's down-sampling
    #[arg(long, default_value_t = 16, value_name = "N", allow_negative_numbers = true)]
    downsample_size: usize,
    /// Pictures, or texts, at once
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    batch_size: usize,
    /// What the transformer's weights and cache are held as
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    /// Whose plan to show: cpu, or cuda with its kernels' launches, for which no GPU need be there
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    n_head: Option<usize>,
    /// Which weights of a checkpoint that has two sets
    #[arg(long, value_enum, default_value_t)]
    weights: WeightsChoice,
    /// The memory's read bandwidth, for the floor
    #[arg(long, value_name = "GB/S", allow_negative_numbers = true)]
    bandwidth: Option<f64>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
}

/// More pictures at once than any machine holds.
const MOST_PICTURES: usize = 1 << 16;

/// The card that launches are listed for: an H100 or H200.
const CARD: cuda::device::Capacity = cuda::device::Capacity { multiprocessors: 132, shared_bytes: 227 * 1024 };

impl Args {
    fn on_cuda(&self) -> bool {
        matches!(self.device, Device::Cuda(_))
    }

    /// What the executor holds activations as.
    fn activations(&self) -> Elem {
        if self.on_cuda() { Elem::Bf16 } else { Elem::F32 }
    }
}

pub fn run(args: &Args) -> Result<()> {
    if !(1..=MOST_PICTURES).contains(&args.batch_size) {
        return Err(wrong_option("batch-size", args.batch_size, format!("1 to {MOST_PICTURES}"), ""));
    }
    if !(1..=1024).contains(&args.downsample_size) {
        return Err(wrong_option("downsample-size", args.downsample_size, "1 to 1024", "LlamaGen has 8 and 16"));
    }
    if let Some(bandwidth) = args.bandwidth.filter(|bandwidth| !(bandwidth.is_finite() && *bandwidth > 0.0)) {
        return Err(wrong_option("bandwidth", bandwidth, "a number above 0", ""));
    }
    if args.on_cuda() && args.precision == Precision::F32 {
        return Err(wrong_option("precision", "f32", "bf16, the CUDA kernels' type", ""));
    }
    let checkpoint = Checkpoint::open(&args.file, args.weights)?;
    // Told before the configuration is: a file of another kind is looked into all the same.
    tell(contents(&checkpoint, args.tensors).trim_end())?;
    let (config, note) = ModelConfig::detect(&checkpoint, args.n_head)?;
    tell(format!("\n{}", config.to_string().trim_end()))?;
    if let Some(note) = note {
        tell(format!("  note: {note}"))?;
    }
    let plan = match &config {
        ModelConfig::Gpt(config) => gpt(args, &checkpoint, config)?,
        ModelConfig::Vq(config) => vq(args, config)?,
        ModelConfig::T5(config) => t5(args, config)?,
    };
    tell(plan.trim_end())
}

/// What is in the file, whatever model it is of.
fn contents(checkpoint: &Checkpoint, list: bool) -> String {
    let tensors = checkpoint.tensors();
    let mut types: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for tensor in tensors.values() {
        let (count, size) = types.entry(tensor.dtype().name()).or_default();
        *count += 1;
        *size += (tensor.len() * tensor.dtype().size()) as u64;
    }
    let types = types.iter().map(|(name, (count, size))| format!("{count} of {name}, {}", bytes(*size)));
    let mut text = format!("{}: {}", checkpoint.path().display(), plural(tensors.len(), "tensor"));
    let types: Vec<String> = types.collect();
    let _ = writeln!(text, "{}{}", if types.is_empty() { "" } else { ": " }, types.join("; "));
    if list {
        let row = |(name, tensor): (&String, &crate::checkpoint::Tensor)| {
            vec![name.clone(), tensor.dtype().name().into(), format!("{:?}", tensor.shape())]
        };
        let _ = write!(text, "{}", Table { left: 3, rows: tensors.iter().map(row).collect() });
    }
    if !checkpoint.skipped().is_empty() {
        let _ = writeln!(text, "skipped:");
        let rows = checkpoint.skipped().iter().map(|(name, what)| vec![name.clone(), what.clone()]);
        let _ = write!(text, "{}", Table { left: 2, rows: rows.collect() });
    }
    if !checkpoint.metadata().is_empty() {
        let _ = writeln!(text, "metadata: {}", checkpoint.metadata().keys().cloned().collect::<Vec<_>>().join(", "));
    }
    text
}

/// The transformer's plan.
fn gpt(args: &Args, checkpoint: &Checkpoint, config: &GptConfig) -> Result<String> {
    let down = args.downsample_size;
    let image_size = args.image_size.unwrap_or_else(|| default_image_size(checkpoint, &config.condition, down));
    check_image_size(image_size, down)?;
    let pictures = args.batch_size;
    let shape = GptShape {
        latent_size: image_size / down,
        slots: 2 * pictures,
        rows: 2 * pictures,
        pictures,
        precision: args.precision.elem(),
        activations: args.activations(),
    };
    let GptGraph { graph, step, text: prefill, .. } = GptGraph::new(config, &shape);
    let tokens = shape.tokens();
    let extent = Extent { rows: shape.rows, draws: pictures };
    // A row at position p reads p + 1 cache rows: (N + 1) / 2 of them on average.
    let load = |keys| Load { extent, keys };
    let mean = load(tokens.div_ceil(2));
    let title = format!(
        "{image_size}x{image_size} pixels at {down} pixels per code, {}, {}, with guidance",
        args.precision.name(),
        plural(pictures, "picture"),
    );
    let mut text = plan(args, &title, &graph, step, &mean);
    let all: Cost = (1..=tokens).map(|keys| graph.cost(step, &load(keys))).sum();
    let _ = writeln!(text, "one step: {}", moved(args, graph.cost(step, &mean)));
    let _ = writeln!(text, "all {tokens}: {}", moved(args, all));
    if let Some(prefill) = prefill {
        const TOKENS: usize = 20;
        let load = Load { extent: Extent { rows: TOKENS, draws: 0 }, keys: 0 };
        let _ = writeln!(text, "\nops of a text of {TOKENS} tokens, once before its first step:");
        let _ = write!(text, "{}", ops(&graph, prefill.prefill, &load));
        let _ = writeln!(text, "one text: {}", moved(args, graph.cost(prefill.prefill, &load)));
    }
    Ok(text)
}

/// The VQ model's plans.
fn vq(args: &Args, config: &VqConfig) -> Result<String> {
    let down = config.downsample_size();
    let image_size = args.image_size.unwrap_or(256usize.next_multiple_of(down));
    check_image_size(image_size, down)?;
    let latent = (image_size / down, image_size / down);
    let load = Load { extent: Extent { rows: args.batch_size, draws: 0 }, keys: 0 };
    let title = format!("{image_size}x{image_size} pixels, {}", plural(args.batch_size, "picture"));
    let mut text = String::new();
    let mut add = |graph: &Graph, phase: PhaseId| {
        text += &plan(args, &title, graph, phase, &load);
        let _ = writeln!(text, "one run: {}", moved(args, graph.cost(phase, &load)));
    };
    let decoder = VqDecoder::build(config, latent, args.batch_size, Pixels::U8, args.activations())?;
    add(&decoder.graph, decoder.decode);
    if config.encoder_ch_mult.is_some() {
        let size = (image_size, image_size);
        let encoder = VqEncoder::build(config, size, args.batch_size, Pixels::U8, args.activations())?;
        add(&encoder.graph, encoder.encode);
    }
    Ok(text)
}

/// The text encoder's plan for texts of a common length.
fn t5(args: &Args, config: &T5Config) -> Result<String> {
    let (texts, tokens) = (args.batch_size, 20);
    let (precision, activations) = (args.precision.elem(), args.activations());
    let T5Graph { graph, encode, .. } =
        T5Graph::new(config, &T5Shape { rows: texts * tokens, tokens, precision, activations });
    let load = Load { extent: Extent { rows: texts * tokens, draws: 0 }, keys: tokens };
    let title = format!("{} of {tokens} tokens, {}", plural(texts, "text"), args.precision.name());
    let mut text = plan(args, &title, &graph, encode, &load);
    let _ = writeln!(text, "one run: {}", moved(args, graph.cost(encode, &load)));
    Ok(text)
}

/// Ops, launches, buffers and memory of a graph.
fn plan(args: &Args, title: &str, graph: &Graph, phase: PhaseId, load: &Load) -> String {
    let keys =
        if load.keys > 0 { format!(", {} cache rows read by each on average", load.keys) } else { String::new() };
    let rows = plural(load.extent.rows, "row");
    let launches = if args.on_cuda() { launches(graph, phase, load.extent) } else { String::new() };
    format!(
        "\nplan {}: {title}\n\nops at {rows}{keys}:\n{}{launches}\nbuffers:\n{}\nmemory: {}\n",
        graph.name(),
        ops(graph, phase, load),
        buffers(graph),
        memory(graph)
    )
}

/// What the CUDA executor launches.
fn launches(graph: &Graph, phase: PhaseId, extent: Extent) -> String {
    let shape = |[x, y, z]: [u32; 3]| [x, y, z].map(|n| n.to_string()).join(" x ");
    let of = |node: &Node| cuda::launches(graph, &node.op, extent, CARD);
    let lines = |node: &Node| match of(node) {
        Err(why) => vec![vec![format!("none: {why}")]],
        Ok(launches) => {
            let line = |launch: &cuda::device::Launch| {
                let name = launch.kernel.name.to_string();
                vec![name, shape(launch.grid), shape(launch.block), bytes(launch.shared_bytes.into())]
            };
            launches.iter().map(line).collect()
        }
    };
    let header = [graph.phase_name(phase), "kernel", "grid", "block", "shared"].map(String::from).to_vec();
    let nodes = graph.nodes(phase);
    let rows = [vec![header], by_layer(nodes, lines)].concat();
    let count: usize = nodes.iter().map(|node| of(node).map_or(0, |launches| launches.len())).sum();
    let multiprocessors = CARD.multiprocessors;
    format!("\nlaunches on a card of {multiprocessors} multiprocessors, {count} in all:\n{}", Table { left: 2, rows })
}

/// Bytes, FLOPs and the floor.
fn moved(args: &Args, cost: Cost) -> String {
    let floor = args.bandwidth.map_or_else(String::new, |bandwidth| {
        format!("; at least {:.3} ms at {bandwidth} GB/s", cost.bytes() as f64 / bandwidth / 1e6)
    });
    format!("{} moved, {}{floor}", bytes(cost.bytes()), flops(cost.flops))
}
