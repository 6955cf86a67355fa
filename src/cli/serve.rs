//! `smalti serve`: OpenAI's images API over HTTP, and a page.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::device::{DeviceArgs, PainterArgs, Precision};
use super::model::ModelArgs;
use super::progress::Display;
use super::subjects::OWN_ENCODER;
use super::{plural, tell, wrong_option};
use crate::Result;
use crate::backend::Device;
use crate::engine::{Model, ModelFiles, Session, SessionOptions};
use crate::generate::Lookahead;
use crate::serve::{ServeOptions, serve};

/// Serve pictures over HTTP, as OpenAI's images API and as a page
#[derive(ClapArgs, Debug)]
#[command(after_help = "Examples:
  smalti serve
  smalti serve --gpt-ckpt c2i_B_256.pt --vq-ckpt vq_ds16_c2i.pt
  smalti serve --gpt-ckpt t2i_XL_stage1_256.pt --vq-ckpt vq_ds16_t2i.pt --t5-path flan-t5-xl --host 0.0.0.0 --api-key secret
  curl localhost:8080/v1/images/generations -H 'Content-Type: application/json' -d '{\"prompt\": \"a blue fish\", \"seed\": 1}'

The address is the only line on standard output. SIGTERM finishes what was taken; a second one ends at once.
A device that fails ends it with an error, for whoever watches over it to start it again.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text encoder of a text model: a Hugging Face T5 folder
    #[arg(long, value_name = "FOLDER", env = "SMALTI_T5_PATH")]
    t5_path: Option<PathBuf>,
    /// Side of the pictures in pixels; by default what the checkpoint tells, else 384, for text models 512
    #[arg(long, value_name = "PIXELS", requires = "gpt_ckpt", allow_negative_numbers = true)]
    image_size: Option<usize>,
    /// What the transformer's weights and cache are held as
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    precision: Precision,
    #[command(flatten)]
    painter: PainterArgs,
    /// Rows of a pass per picture while few are drawn: auto, or 1 (off) and more; changes the time alone
    #[arg(long, default_value = "auto", value_name = "W", allow_negative_numbers = true)]
    lookahead: Lookahead,
    #[command(flatten)]
    device: DeviceArgs,
    /// Of the demo model, serve the half that takes classes
    #[arg(long, conflicts_with = "gpt_ckpt")]
    demo_classes: bool,
    /// Where to run the text encoder; by default where all else runs
    #[arg(long, value_name = "DEVICE", env = "SMALTI_TEXT_DEVICE")]
    text_device: Option<Device>,
    /// Pictures at once; by default 8 on a CPU and 32 on a GPU, or as many as memory holds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// The address to listen at; 0.0.0.0 for all of this machine
    #[arg(long, default_value = "127.0.0.1", env = "SMALTI_HOST")]
    host: IpAddr,
    /// The port to listen at; 0 for any that is free
    #[arg(long, default_value_t = 8080, env = "SMALTI_PORT")]
    port: u16,
    /// What clients must send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "SMALTI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// What the model is called; by default as its file
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Requests that may wait; another one is answered with 429
    #[arg(long, default_value_t = 64, value_name = "N", allow_negative_numbers = true)]
    queue: usize,
    /// Seconds that a request may take, waiting included
    #[arg(long, default_value_t = 600, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: u64,
    /// Pictures that one request may ask for
    #[arg(long, default_value_t = 10, value_name = "N", allow_negative_numbers = true)]
    max_images: usize,
    /// Bytes that a request's body may have
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", allow_negative_numbers = true)]
    max_body: usize,
    /// Print nothing but the address and errors
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let display = Display::new(args.quiet);
    for (option, value) in [("timeout", args.timeout), ("max-images", args.max_images as u64)] {
        if value == 0 {
            return Err(wrong_option(option, 0, "1 or more", ""));
        }
    }
    if args.t5_path.is_some() && args.model.is_demo() && !args.demo_classes {
        display.note(OWN_ENCODER);
    }
    let model = open(args)?;
    model.notes().iter().for_each(|note| display.note(note));
    let session = SessionOptions {
        device: args.device.device,
        text_device: args.text_device,
        threads: args.device.threads,
        precision: args.precision.elem(),
        vq_precision: args.painter.vq_precision.map(Precision::elem),
        batch_size: args.batch_size,
        queue: args.queue,
        lookahead: args.lookahead,
    };
    let options = ServeOptions {
        host: args.host,
        port: args.port,
        name: args.name.clone(),
        api_key: args.api_key.clone().filter(|key| !key.is_empty()),
        max_images: args.max_images,
        max_body: args.max_body,
        timeout: Duration::from_secs(args.timeout),
    };
    let ready = |session: &Session| {
        session.notes().iter().for_each(|note| display.note(note));
        let (model, side) = (session.model(), session.model().image_size());
        display.say(&format!(
            "{} of {side}x{side} on {}, {}, {} at once",
            model.name(),
            session.device(),
            args.precision.name(),
            plural(session.batch_size(), "picture")
        ));
    };
    serve(&model, &session, &options, |address| drop(tell(format_args!("http://{address}"))), ready)
}

/// The model that is served.
fn open(args: &Args) -> Result<Model> {
    match args.model.files() {
        Some(files) => Model::open(&ModelFiles { t5: args.t5_path.clone(), image_size: args.image_size, ..files }),
        None if args.demo_classes => Model::demo_classes(),
        None => Model::demo(),
    }
}
