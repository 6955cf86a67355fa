//! `POST /v1/images/generations`: reads the body, hands it to the engine, answers when all pictures are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_stream::StreamExt;

use super::app::{App, now};
use super::errors::ApiError;
use super::metrics::Account;
use super::stream;
use super::wire::Wanted;
use crate::engine::{Canceller, Event, Image, Request, Session, Subject, Timings};
use crate::image::{Rgb8, encode_png};
use crate::{Error, Result};

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

pub async fn generate(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let mut account = Account::new(app.clone());
    let answer = answer(&app, &headers, body, &mut account).await;
    if let Err(error) = &answer {
        account.end(error.label());
    }
    answer
}

async fn answer(app: &Arc<App>, headers: &HeaderMap, body: Body, account: &mut Account) -> Result<Response, ApiError> {
    let session = app.session()?;
    let body = match tokio::time::timeout(BODY, read(headers, body, app.options.max_body)).await {
        Ok(body) => body?,
        Err(_) => {
            let message = format!("the body did not arrive within {} s", BODY.as_secs());
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message));
        }
    };
    let wanted = Wanted::parse(&body, app)?;
    let going = Going::start(app.clone(), &session, wanted.request.clone())?;
    if wanted.stream {
        let account = std::mem::replace(account, Account::told(app.clone()));
        return Ok(stream::respond(going, wanted, account));
    }
    let (data, condition_tokens, timings) = going.finish().await?;
    account.end_well(&timings, data.len(), condition_tokens);
    let request = &wanted.request;
    let reply = json!({
        "created": now(),
        "data": data,
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": size(app),
        "seed": request.options.seed,
        "usage": usage(app, condition_tokens, request.images()),
        "timings": told(&timings),
    });
    Ok(Json(reply).into_response())
}

/// The whole body, if it is JSON and not too long.
async fn read(headers: &HeaderMap, body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Without this, any web page could have a browser post here unasked.
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        let message = "expected a body of Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let too_long = || {
        let message = format!("expected a body of at most {most} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > most as u64) {
        return Err(too_long());
    }
    let mut whole = Vec::new();
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part
            .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body ended before its end"))?;
        if whole.len() + part.len() > most {
            return Err(too_long());
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

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
    fn start(app: Arc<App>, session: &Session, request: Request) -> Result<Self, ApiError> {
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
    async fn finish(mut self) -> Result<(Vec<Value>, usize, Timings), ApiError> {
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

/// Where the time went, in seconds.
fn told(timings: &Timings) -> Value {
    json!({
        "queued": timings.queued.as_secs_f64(),
        "text_encode": timings.encoding.as_secs_f64(),
        "decode": timings.drawing.as_secs_f64(),
        "first_token": timings.first_token.as_secs_f64(),
        "vq_decode": timings.painting.as_secs_f64(),
        "total": timings.total.as_secs_f64(),
    })
}
