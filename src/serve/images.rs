//! `POST /v1/images/generations`: reads the body, hands it to the engine, answers when all pictures are there.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use super::account::Account;
use super::app::{App, now};
use super::errors::ApiError;
use super::going::{Going, size, usage};
use super::stream;
use super::wire::Wanted;
use crate::engine::Timings;

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
