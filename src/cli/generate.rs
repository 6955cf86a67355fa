//! `smalti generate`: classes or prompts to pictures.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::device::{DeviceArgs, PainterArgs, Precision};
use super::model::ModelArgs;
use super::output::{COLUMNS, Gallery, Output, check_file};
use super::parameters::{Parameters, file_name};
use super::progress::Display;
use super::subjects::{Encoding, Subject, SubjectArgs};
use super::{check_image_size, parse_lookahead, plural, tell, wrong_option};
use crate::backend::free_host_memory;
use crate::config::{Condition, GenerationOptions, Labels, default_image_size};
use crate::generate::{Codes, Conditioning, Generator, Layout, Model, Request, generate_each, requests};
use crate::{Error, Result};

/// Make images of classes or prompts
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti generate 'a red sailboat left of a yellow moon at night'
  smalti generate --class fish,rocket --count 4 -o pictures/
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 207,360 --image-size 256
  smalti generate --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt --class 'golden retriever' --count 4 -o pictures/
  smalti generate 'a red sailboat' 'a yellow moon' --gpt-ckpt t2i_XL_stage2_512.pt --vq-ckpt vq_ds16_t2i.pt --t5-path flan-t5-xl

SMALTI_CPU=amx, avx512_bf16, avx512, avx2 or portable chooses the CPU's instructions; by default the best that it has.
amx_portable draws on any processor, slowly, what amx does: its sums of bf16 weights are rounded in another order.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    subjects: SubjectArgs,
    /// Pictures per class or prompt
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    count: usize,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384, for text models 512
    #[arg(long, value_name = "PIXELS", requires = "gpt_ckpt", allow_negative_numbers = true)]
    image_size: Option<usize>,
    #[command(flatten)]
    options: GenerationOptions,
    /// What the transformer's weights and cache are held as
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    painter: PainterArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Pictures at once; by default as many as memory holds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Rows of a pass per picture: draw several tokens at once where guesses turn out right. auto, or 1 (off) and more;
    /// changes the time alone
    #[arg(long, default_value = "auto", value_name = "W", allow_negative_numbers = true)]
    lookahead: String,
    /// Number of the first picture; with the seed, a picture's number decides its noise
    #[arg(long, default_value_t = 0, value_name = "K", allow_negative_numbers = true)]
    first_image: u64,
    /// A PNG with all pictures in a grid, or a folder for one PNG each (a slash at the end makes it); by default
    /// sample_c2i.png, for text models sample_t2i.png
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write the codes too, as a safetensors file
    #[arg(long, value_name = "FILE")]
    codes: Option<PathBuf>,
    /// Show the pictures in the terminal too
    #[arg(long)]
    show: bool,
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
    if let Some(path) = &args.codes {
        check_file("codes", path)?;
    }
    let display = Display::new(args.quiet);
    let model = args.model.open(args.subjects.half(), &display)?;
    let output = Output::check(args.output.as_deref().unwrap_or(match model.gpt_config.condition {
        Condition::Class { .. } => Path::new("sample_c2i.png"),
        Condition::Text { .. } => Path::new("sample_t2i.png"),
    }))?;
    let options = args.options.of_model(&model.gpt, &model.gpt_config.condition);
    let sampling = options.validate(model.gpt_config.vocab_size)?;
    let (labels, note) = Labels::detect(&model.gpt, &model.gpt_config.condition);
    if let Some(note) = note {
        display.note(&note);
    }
    let downsample_size = model.vq_config.downsample_size();
    let image_size =
        args.image_size.unwrap_or_else(|| default_image_size(&model.gpt, &model.gpt_config.condition, downsample_size));
    check_image_size(image_size, downsample_size)?;
    let lookahead = parse_lookahead(&args.lookahead, (image_size / downsample_size).pow(2))?;
    let executor = args.device.executor(Some(args.precision), &display)?;
    let encoding = Encoding {
        executor: executor.as_ref(),
        device: &args.device,
        precision: args.precision,
        demo: args.model.is_demo(),
    };
    let subjects = args.subjects.resolve(&model, labels.as_ref(), &encoding, &display)?;
    check_count(args, subjects.len())?;
    let conditions: Vec<Conditioning> = subjects.iter().map(|subject| subject.condition.clone()).collect();
    let requests = requests(&conditions, args.count, args.first_image, sampling);
    if let Some(path) = &args.codes
        && output.holds(path, requests.iter().map(|request| request.image))
    {
        return Err(wrong_option("codes", path.display(), "another file than the pictures of --output", ""));
    }

    if let Output::Grid(_) = output {
        // Laid out in the host's memory, whatever draws them.
        check_grid(requests.len(), image_size, free_host_memory())?;
    }
    let precision = args.precision.elem();
    let vq_precision = Some(args.painter.elem(executor.as_ref())?);
    let layout =
        Layout { image_size, precision, vq_precision, batch_size: args.batch_size, images: requests.len(), lookahead };
    let mut generator = Generator::new(executor.as_ref(), &model, &layout)?;
    display.say(&format!(
        "{} of {image_size}x{image_size} on {}, {}, batches of {}; ready after {:.2} s",
        plural(requests.len(), "image"),
        executor.describe(),
        args.precision.name(),
        generator.batch_size(),
        started.elapsed().as_secs_f64(),
    ));

    let parameters = parameters(args, &model, &options, &requests, &subjects, image_size);
    let gallery = Gallery::new(output, COLUMNS, args.show);
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
    let together = painter.together();
    let tokens = session.tokens() * requests.len();
    let mut kept = vec![Vec::new(); if keep { requests.len() } else { 0 }];
    let mut painting = Duration::ZERO;
    let started = Instant::now();
    display.start();
    let take = |drawn: Vec<(usize, Vec<u32>)>| {
        let started = Instant::now();
        let (places, codes): (Vec<usize>, Vec<Vec<u32>>) = drawn.into_iter().unzip();
        for (some_places, some_codes) in places.chunks(together).zip(codes.chunks(together)) {
            for (&index, picture) in some_places.iter().zip(painter.paint_all(some_codes)?) {
                display.aside(|| gallery.put(index, requests[index].image, picture, || parameters.of_one(index)))?;
            }
        }
        if keep {
            places.into_iter().zip(codes).for_each(|(index, codes)| kept[index] = codes);
        }
        painting += started.elapsed();
        Ok(())
    };
    let progress = |progress| {
        display.step(progress);
        true
    };
    generate_each(session, requests, together, take, progress)?;
    let beside = session.runs_ahead();
    let drawing = if beside { started.elapsed() } else { started.elapsed() - painting }.as_secs_f64();
    display.finish();
    gallery.finish(|| parameters.of_all())?;
    let passes = session.take_passes()?;
    let ahead = match passes.windows() < passes.tokens() {
        true => format!(", {:.2} tokens of a picture per pass", passes.tokens_per_pass()),
        false => String::new(),
    };
    display.say(&format!(
        "{tokens} tokens in {drawing:.2} s ({:.1} tokens/s{ahead}), painted in {:.2} s{}",
        tokens as f64 / drawing,
        painting.as_secs_f64(),
        if beside { " of them" } else { "" }
    ));
    Ok(kept)
}

/// Checks how many pictures there will be and that all have numbers.
fn check_count(args: &Args, subjects: usize) -> Result<()> {
    let pictures = subjects.saturating_mul(args.count);
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

/// What the files tell about their making.
fn parameters(
    args: &Args,
    model: &Model,
    options: &GenerationOptions,
    requests: &[Request],
    subjects: &[Subject],
    image_size: usize,
) -> Parameters {
    #[derive(Serialize)]
    struct Settings<'a> {
        options: &'a GenerationOptions,
        image_size: usize,
        precision: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        vq_precision: Option<&'a str>,
        gpt_ckpt: Option<String>,
        vq_ckpt: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        t5_path: Option<String>,
    }
    let settings = Settings {
        options,
        image_size,
        precision: args.precision.name(),
        vq_precision: args.painter.vq_precision.map(Precision::name),
        gpt_ckpt: file_name(model.gpt.path()),
        vq_ckpt: file_name(model.vq.path()),
        t5_path: args.subjects.t5_name(args.model.is_demo()),
    };
    let image = |(index, request): (usize, &Request)| {
        let mut image = subjects[index / args.count].about.clone();
        image["image"] = request.image.into();
        image
    };
    Parameters::new(&settings, requests.iter().enumerate().map(image).collect())
}
