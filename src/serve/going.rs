//! A request on its way: what the engine tells of it, and how a reply says that.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::app::App;
use super::errors::ApiError;
use crate::engine::{Canceller, Event, Image, Request, Session, Subject, Timings};
use crate::image::{Rgb8, encode_png};
use crate::{Error, Result};

/// A request that the engine has; dropped with the connection, it is cancelled.
pub struct Going {
    pub app: Arc<App>,
    pub request: Request,
    pub events: UnboundedReceiver<Event>,
    canceller: Canceller,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.canceller.cancel();
    }
}

impl Going {
    pub fn start(app: Arc<App>, session: &Session, request: Request) -> Result<Self, ApiError> {
        // What a request sends is bounded: its rows, previews and pictures.
        let (send, events) = unbounded_channel();
        let submitted = session.submit_to(request.clone(), move |event| _ = send.send(event));
        let canceller = submitted.map_err(|error| {
            let busy = matches!(error, Error::Busy { .. });
            let error = ApiError::from(error);
            if busy { error.retry_after(app.metrics.typical_seconds()) } else { error }
        })?;
        Ok(Self { app, request, events, canceller })
    }

    /// The pictures in their order, their condition tokens, and where the time went.
    pub async fn finish(mut self) -> Result<(Vec<Value>, usize, Timings), ApiError> {
        let mut condition_tokens = 0;
        let mut data = vec![Value::Null; self.request.images()];
        loop {
            match self.events.recv().await {
                Some(Event::Image(image)) => {
                    let index = image.index;
                    condition_tokens += image.condition_tokens;
                    let packed = self.pack(image).await?;
                    data[index] = packed;
                }
                Some(Event::Done(result)) => return Ok((data, condition_tokens, result?)),
                Some(_) => {}
                None => return Err(Error::Ended { reason: "its engine is gone".into() }.into()),
            }
        }
    }

    /// A picture as the reply has it.
    pub async fn pack(&self, image: Image) -> Result<Value, ApiError> {
        let subject = &self.request.subjects[image.index / self.request.count];
        let mut about = json!({ "seed": image.seed, "image": image.number });
        if let Some(cut) = &image.prompt_cut {
            about["prompt_cut"] = cut.as_ref().into();
        }
        if let Subject::Class(class) = subject {
            about["class"] = (*class).into();
            about["class_name"] = self.app.model.labels().and_then(|labels| labels.name(*class)).into();
        }
        let mut parameters = json!({
            "options": self.app.model.options(&self.request.options),
            "image_size": self.app.model.image_size(),
            "model": self.app.name,
            "images": [about],
        });
        if let Subject::Prompt(prompt) = subject {
            parameters["images"][0]["prompt"] = prompt.as_str().into();
        }
        about["b64_json"] = self.png(image.picture, Some(parameters)).await?.into();
        Ok(about)
    }

    /// A picture as the base64 of a PNG file, packed off the threads that move bytes.
    pub async fn png(&self, picture: Rgb8, parameters: Option<Value>) -> Result<String, ApiError> {
        let started = Instant::now();
        let pack = move || {
            let software = format!("smalti {}", env!("CARGO_PKG_VERSION"));
            // A NUL can be in no field of a PNG; JSON has it escaped.
            let parameters = parameters.map(|parameters| parameters.to_string());
            let mut fields = vec![("Software", software.as_str())];
            fields.extend(parameters.as_deref().map(|parameters| ("parameters", parameters)));
            encode_png(&picture, &fields).map(|bytes| STANDARD.encode(bytes))
        };
        let packed = tokio::task::spawn_blocking(pack).await;
        self.app.metrics.observe_packing(started.elapsed());
        match packed {
            Ok(packed) => Ok(packed?),
            Err(_) => Err(Error::Ended { reason: "the server is shutting down".into() }.into()),
        }
    }
}

/// `256x256`.
pub fn size(app: &App) -> String {
    let side = app.model.image_size();
    format!("{side}x{side}")
}

/// Tokens as OpenAI counts them: what stands for text, and codes of pictures.
pub fn usage(app: &App, input: usize, images: usize) -> Value {
    let output = images * app.model.latent_size().pow(2);
    json!({
        "input_tokens": input,
        "input_tokens_details": { "text_tokens": input, "image_tokens": 0 },
        "output_tokens": output,
        "total_tokens": input + output,
    })
}
