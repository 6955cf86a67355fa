//! `smalti generate`: classes to pictures.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use serde_json::json;

use super::device::{DeviceArgs, Precision, VqArgs, Weights};
use super::output::{Output, check_file};
use super::progress::Display;
use super::{note, wrong_option};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::config::{Condition, GenerationOptions, GptConfig, Labels, default_image_size, resolve_classes};
use crate::generate::{Codes, Generator, Layout, Model, Request, requests};

/// LlamaGen's own sample classes, for models of the 1000 ImageNet classes.
const SAMPLE_CLASSES: &str = "207,360,387,974,88,979,417,279";

/// Make images of classes
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 207,360 --image-size 256
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 'golden retriever' --count 4 -o pictures/")]
pub struct Args {
    /// GPT checkpoint: .pt, .safetensors, or a folder with model.safetensors and config.json
    #[arg(long, value_name = "FILE", env = "SMALTI_GPT_CKPT")]
    gpt_ckpt: PathBuf,
    #[command(flatten)]
    vq: VqArgs,
    /// Which weights of a GPT checkpoint that has two sets
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N")]
    n_head: Option<usize>,
    /// Class numbers or names, separated by commas; LlamaGen's eight sample classes by default
    #[arg(long = "class", value_name = "CLASSES")]
    classes: Option<String>,
    /// Pictures per class
    #[arg(long, default_value_t = 1, value_name = "N")]
    count: usize,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    #[command(flatten)]
    options: GenerationOptions,
    /// What the transformer's weights and cache are held as
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
    /// Pictures at once; by default as many as memory holds
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Number of the first picture; with the seed, a picture's number decides its noise
    #[arg(long, default_value_t = 0, value_name = "K")]
    first_image: u64,
    /// A PNG with all pictures in a grid, or a folder for one PNG each (a slash at the end makes it)
    #[arg(short, long, default_value = "sample_c2i.png", value_name = "PATH")]
    output: PathBuf,
    /// Write the codes too, as a safetensors file
    #[arg(long, value_name = "FILE")]
    codes: Option<PathBuf>,
    /// Print nothing but the files that were written, and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // Everything that can be wrong is found before anything is computed.
    for (option, value) in [("count", Some(args.count)), ("batch-size", args.batch_size)] {
        if value == Some(0) {
            return Err(wrong_option(option, 0, "1 or more", ""));
        }
    }
    let output = Output::check(&args.output)?;
    args.codes.as_deref().map_or(Ok(()), check_file)?;
    let model = open(args)?;
    let sampling = args.options.validate(model.gpt_config.vocab_size)?;
    let labels = labels(&model);
    let classes = classes(args, &model.gpt_config, labels.as_ref())?;
    let downsample_size = model.vq_config.downsample_size();
    let image_size =
        args.image_size.unwrap_or_else(|| default_image_size(&model.gpt, &model.gpt_config.condition, downsample_size));
    if image_size == 0 || !image_size.is_multiple_of(downsample_size) {
        let expected = format!("a multiple of {downsample_size}, the VQ model's down-sampling");
        return Err(wrong_option("image-size", image_size, expected, ""));
    }
    let requests = requests(&classes, args.count, args.first_image, sampling);

    let executor = args.device.executor()?;
    let precision = args.precision.elem();
    let layout = Layout { image_size, precision, batch_size: args.batch_size, images: requests.len() };
    let mut generator = Generator::new(executor.as_ref(), &model, &layout)?;

    let mut display = Display::new(args.quiet);
    display.say(&format!(
        "{} of {image_size}x{image_size} on {}, {}, batches of {}; ready after {:.2} s",
        plural(requests.len(), "image"),
        executor.describe(),
        args.precision.name(),
        generator.batch_size(),
        started.elapsed().as_secs_f64(),
    ));
    let drawing = Instant::now();
    let codes = generator.codes(&requests, |progress| {
        display.step(progress);
        true
    })?;
    let drawn = drawing.elapsed().as_secs_f64();
    display.finish();

    let painting = Instant::now();
    let mut pictures = Vec::with_capacity(codes.len());
    for (codes, request) in codes.iter().zip(&requests) {
        pictures.push((request.image, generator.paint(codes)?));
    }
    let painted = painting.elapsed().as_secs_f64();
    let tokens: usize = codes.iter().map(Vec::len).sum();
    display.say(&format!(
        "{tokens} tokens in {drawn:.2} s ({:.1} tokens/s), painted in {painted:.2} s",
        tokens as f64 / drawn
    ));

    let describe = |number: Option<u64>| text_fields(args, &requests, labels.as_ref(), image_size, number);
    if let Some(path) = &args.codes {
        let latent = (image_size / downsample_size, image_size / downsample_size);
        let metadata = describe(None).into_iter().collect();
        Codes { latent, pictures: codes, metadata }.write(path)?;
        println!("{}", path.display());
    }
    for path in output.write(&pictures, describe)? {
        println!("{}", path.display());
    }
    Ok(())
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn open(args: &Args) -> Result<Model> {
    let gpt = Checkpoint::open(&args.gpt_ckpt, args.weights.into())?;
    let (gpt_config, guess) = GptConfig::detect(&gpt, args.n_head)?;
    if let Some(guess) = guess {
        note(&guess);
    }
    if let Condition::Text { .. } = gpt_config.condition {
        let hint = "text conditioning is not there yet; use a class-conditional checkpoint (c2i)";
        return Err(wrong_option("gpt-ckpt", args.gpt_ckpt.display(), "a class-conditional model", hint));
    }
    Model::new((gpt, gpt_config), args.vq.open()?)
}

/// Names from the model's metadata, else ImageNet's where they fit.
fn labels(model: &Model) -> Option<Labels> {
    let Condition::Class { num_classes } = model.gpt_config.condition else { return None };
    let names = model.gpt.metadata().get("class_names").and_then(|text| serde_json::from_str(text).ok());
    Labels::for_model(num_classes, names)
}

fn classes(args: &Args, config: &GptConfig, labels: Option<&Labels>) -> Result<Vec<u32>> {
    let num_classes = config.unconditional_label() as usize;
    let list = match &args.classes {
        Some(list) => list,
        None if num_classes == 1000 => SAMPLE_CLASSES,
        None => {
            let expected = format!("at least one class from 0 to {}, or a name", num_classes - 1);
            return Err(wrong_option("class", "(missing)", expected, ""));
        }
    };
    resolve_classes(labels, list, num_classes)
}

/// What a PNG tells about its making: one picture's, or all of a grid's.
fn text_fields(
    args: &Args,
    requests: &[Request],
    labels: Option<&Labels>,
    image_size: usize,
    number: Option<u64>,
) -> Vec<(String, String)> {
    let images: Vec<_> = requests
        .iter()
        .filter(|request| number.is_none_or(|number| number == request.image))
        .map(|request| {
            let name = labels.and_then(|labels| labels.name(request.class));
            json!({ "image": request.image, "class": request.class, "class_name": name })
        })
        .collect();
    let file = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let parameters = json!({
        "images": images,
        "options": args.options,
        "image_size": image_size,
        "precision": args.precision.name(),
        "gpt_ckpt": file(&args.gpt_ckpt),
        "vq_ckpt": file(&args.vq.vq_ckpt),
    });
    vec![
        ("Software".into(), format!("smalti {}", env!("CARGO_PKG_VERSION"))),
        ("parameters".into(), parameters.to_string()),
    ]
}
