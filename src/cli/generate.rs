//! `smalti generate`: classes to pictures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::json;

use super::device::{DeviceArgs, Precision, VqArgs};
use super::output::{COLUMNS, Gallery, Output, check_file};
use super::parameters::{Parameters, file_name};
use super::progress::Display;
use super::{check_image_size, plural, tell, wrong_option};
use crate::checkpoint::{Checkpoint, WeightsChoice};
use crate::config::{Condition, GenerationOptions, GptConfig, Labels, default_image_size, resolve_classes};
use crate::generate::{Codes, Generator, Layout, Model, Request, generate_each, requests};
use crate::{Error, Result};

/// LlamaGen's own sample classes, for models of the 1000 ImageNet classes.
const SAMPLE_CLASSES: &str = "207,360,387,974,88,979,417,279";

/// Make images of classes
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 207,360 --image-size 256
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 'golden retriever' --count 4 -o pictures/

SMALTI_CPU=avx512, avx2 or portable chooses the CPU's instructions; by default the best that it has.")]
pub struct Args {
    /// GPT checkpoint: .pt, .safetensors, or a folder with model.safetensors and config.json
    #[arg(long, value_name = "FILE", env = "SMALTI_GPT_CKPT")]
    gpt_ckpt: PathBuf,
    #[command(flatten)]
    vq: VqArgs,
    /// Which weights of a GPT checkpoint that has two sets
    #[arg(long, value_enum, default_value_t)]
    weights: WeightsChoice,
    /// Attention heads, where the checkpoint does not tell
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    n_head: Option<usize>,
    /// Class numbers or names, separated by commas; LlamaGen's eight sample classes by default
    #[arg(long = "class", value_name = "CLASSES", allow_negative_numbers = true)]
    classes: Option<String>,
    /// Pictures per class
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    count: usize,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    image_size: Option<usize>,
    #[command(flatten)]
    options: GenerationOptions,
    /// What the transformer's weights and cache are held as
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
    /// Pictures at once; by default as many as memory holds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Number of the first picture; with the seed, a picture's number decides its noise
    #[arg(long, default_value_t = 0, value_name = "K", allow_negative_numbers = true)]
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

/// More pictures in one run are a slip of the finger.
const MOST_PICTURES: usize = 1 << 20;

pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // Everything that can be wrong is found before anything is computed.
    for (option, value) in [("count", Some(args.count)), ("batch-size", args.batch_size)] {
        if value == Some(0) {
            return Err(wrong_option(option, 0, "1 or more", ""));
        }
    }
    let output = Output::check(&args.output)?;
    if let Some(path) = &args.codes {
        check_file("codes", path)?;
    }
    let display = Display::new(args.quiet);
    let model = open(args, &display)?;
    let sampling = args.options.validate(model.gpt_config.vocab_size)?;
    let labels = labels(&model, &display);
    let classes = classes(args, &model.gpt_config, labels.as_ref())?;
    let downsample_size = model.vq_config.downsample_size();
    let image_size =
        args.image_size.unwrap_or_else(|| default_image_size(&model.gpt, &model.gpt_config.condition, downsample_size));
    check_image_size(image_size, downsample_size)?;
    check_count(args, classes.len())?;
    let requests = requests(&classes, args.count, args.first_image, sampling);
    if let Some(path) = &args.codes
        && output.holds(path, requests.iter().map(|request| request.image))
    {
        return Err(wrong_option("codes", path.display(), "another file than the pictures of --output", ""));
    }

    let executor = args.device.executor(Some(args.precision), &display)?;
    if let Output::Grid(_) = output {
        check_grid(requests.len(), image_size, executor.free_memory())?;
    }
    let precision = args.precision.elem();
    let layout = Layout { image_size, precision, batch_size: args.batch_size, images: requests.len() };
    let mut generator = Generator::new(executor.as_ref(), &model, &layout)?;
    display.say(&format!(
        "{} of {image_size}x{image_size} on {}, {}, batches of {}; ready after {:.2} s",
        plural(requests.len(), "image"),
        executor.describe(),
        args.precision.name(),
        generator.batch_size(),
        started.elapsed().as_secs_f64(),
    ));

    let parameters = parameters(args, &requests, labels.as_ref(), image_size);
    let gallery = Gallery::new(output, COLUMNS);
    let codes = draw(&mut generator, &requests, &parameters, gallery, args.codes.is_some(), &display)?;
    if let Some(path) = &args.codes {
        let latent = (image_size / downsample_size, image_size / downsample_size);
        Codes { latent, pictures: codes, metadata: parameters.of_all().into_iter().collect() }.write(path)?;
        tell(path.display())?;
    }
    Ok(())
}

/// Draws, paints and writes picture after picture; returns the codes when they are to be kept.
fn draw(
    generator: &mut Generator,
    requests: &[Request],
    parameters: &Parameters,
    mut gallery: Gallery,
    keep: bool,
    display: &Display,
) -> Result<Vec<Vec<u32>>> {
    let (session, painter) = generator.parts();
    let tokens = session.tokens() * requests.len();
    let mut kept = vec![Vec::new(); if keep { requests.len() } else { 0 }];
    let mut painting = Duration::ZERO;
    let started = Instant::now();
    display.start();
    let take = |index: usize, codes: Vec<u32>| {
        let started = Instant::now();
        let picture = painter.paint(&codes)?;
        if let Some(place) = kept.get_mut(index) {
            *place = codes;
        }
        display.aside(|| gallery.put(requests[index].image, picture, || parameters.of_one(index)))?;
        painting += started.elapsed();
        Ok(())
    };
    let progress = |progress| {
        display.step(progress);
        true
    };
    generate_each(session, requests, take, progress)?;
    let beside = session.runs_ahead();
    let drawing = if beside { started.elapsed() } else { started.elapsed() - painting }.as_secs_f64();
    display.finish();
    gallery.finish(|| parameters.of_all())?;
    display.say(&format!(
        "{tokens} tokens in {drawing:.2} s ({:.1} tokens/s), painted in {:.2} s{}",
        tokens as f64 / drawing,
        painting.as_secs_f64(),
        if beside { " of them" } else { "" }
    ));
    Ok(kept)
}

fn open(args: &Args, display: &Display) -> Result<Model> {
    let gpt = Checkpoint::open(&args.gpt_ckpt, args.weights)?;
    let (gpt_config, guess) = GptConfig::detect(&gpt, args.n_head)?;
    if let Some(guess) = guess {
        display.note(&guess);
    }
    if let Condition::Text { .. } = gpt_config.condition {
        let hint = "text conditioning is not there yet; use a class-conditional checkpoint (c2i)";
        return Err(wrong_option("gpt-ckpt", args.gpt_ckpt.display(), "a class-conditional model", hint));
    }
    Model::new((gpt, gpt_config), args.vq.open()?)
}

/// Checks how many pictures there will be and that all have numbers.
fn check_count(args: &Args, classes: usize) -> Result<()> {
    let pictures = classes.saturating_mul(args.count);
    if pictures > MOST_PICTURES {
        let hint = "make the rest in further runs, each with its own --first-image";
        return Err(wrong_option("count", args.count, format!("at most {MOST_PICTURES} pictures in all"), hint));
    }
    if args.first_image.checked_add(pictures as u64).is_none() {
        let expected = format!("room for the numbers of {}", plural(pictures, "picture"));
        return Err(wrong_option("first-image", args.first_image, expected, ""));
    }
    Ok(())
}

/// Checks that memory holds all pictures of a grid: themselves, laid out, and packed into a file.
fn check_grid(pictures: usize, image_size: usize, free_bytes: u64) -> Result<()> {
    let needed_bytes = 3 * pictures as u64 * (image_size * image_size * 3) as u64;
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    let what = format!("a grid of {pictures} pictures");
    Err(Error::OutOfMemory { what, needed_bytes, free_bytes, hint: "write a folder: -o pictures/".into() })
}

/// Names from the model's metadata, else ImageNet's where they fit.
fn labels(model: &Model, display: &Display) -> Option<Labels> {
    let Condition::Class { num_classes } = model.gpt_config.condition else { return None };
    let names = model.gpt.metadata().get("class_names").and_then(|text| {
        let names = serde_json::from_str::<Vec<String>>(text);
        let found = match &names {
            Ok(names) if names.len() == num_classes => None,
            Ok(names) => Some(plural(names.len(), "name")),
            Err(error) => Some(format!("another text ({error})")),
        };
        if let Some(found) = found {
            display.note(&format!("class_names ignored: expected a JSON list of {num_classes} names, found {found}"));
        }
        names.ok()
    });
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

/// What the files tell about their making.
fn parameters(args: &Args, requests: &[Request], labels: Option<&Labels>, image_size: usize) -> Parameters {
    #[derive(Serialize)]
    struct Settings<'a> {
        options: &'a GenerationOptions,
        image_size: usize,
        precision: &'a str,
        gpt_ckpt: Option<String>,
        vq_ckpt: Option<String>,
    }
    let settings = Settings {
        options: &args.options,
        image_size,
        precision: args.precision.name(),
        gpt_ckpt: file_name(&args.gpt_ckpt),
        vq_ckpt: file_name(&args.vq.vq_ckpt),
    };
    let image = |request: &Request| {
        let name = labels.and_then(|labels| labels.name(request.class));
        json!({ "image": request.image, "class": request.class, "class_name": name })
    };
    Parameters::new(&settings, requests.iter().map(image).collect())
}
