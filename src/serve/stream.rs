//! The same as a stream of server-sent events: rows and previews as they come, each picture, the end.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use super::account::Account;
use super::app::now;
use super::errors::ApiError;
use super::going::{Going, size, usage};
use super::wire::Wanted;
use crate::Error;
use crate::engine::Event;

/// A comment is sent after so long without an event: whoever is between would close the connection.
const PING: Duration = Duration::from_secs(15);

/// Events that wait for a client that reads slowly; then its stream waits, and nobody else.
const AHEAD: usize = 4;

/// The reply that the events go into; its end cancels the request.
pub fn respond(going: Going, wanted: Wanted, account: Account) -> Response {
    let (send, receive) = channel(AHEAD);
    tokio::spawn(async move {
        let mut client = Client(send);
        if let Err(Gone) = tell(going, wanted, account, &mut client).await {
            // Dropped with what it held: the request is cancelled and counted so.
        }
    });
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(ReceiverStream::new(receive))).into_response()
}

/// The client hung up.
struct Gone;

struct Client(Sender<Result<Bytes, Infallible>>);

impl Client {
    async fn send(&mut self, text: String) -> Result<(), Gone> {
        self.0.send(Ok(text.into())).await.map_err(|_| Gone)
    }

    /// An event whose name is its data's `type`.
    async fn event(&mut self, data: Value) -> Result<(), Gone> {
        let name = data["type"].as_str().unwrap_or("error");
        self.send(format!("event: {name}\ndata: {data}\n\n")).await
    }
}

async fn tell(mut going: Going, wanted: Wanted, mut account: Account, client: &mut Client) -> Result<(), Gone> {
    let app = going.app.clone();
    // OpenAI's events do not say which picture they are of; its clients pass over what they do not know.
    let common = |kind: &str, index: usize| {
        json!({
            "type": kind,
            "created_at": now(),
            "size": size(&app),
            "quality": "auto",
            "background": "opaque",
            "output_format": "png",
            "image_index": index,
        })
    };
    let mut condition_tokens = 0;
    let failed = loop {
        let event = tokio::select! {
            event = going.events.recv() => event,
            () = client.0.closed() => return Err(Gone),
            () = tokio::time::sleep(PING) => {
                client.send(": ping\n\n".into()).await?;
                continue;
            }
        };
        match event {
            Some(Event::Rows { index, rows }) if wanted.progress => {
                let of = app.model.latent_size();
                client
                    .event(json!({ "type": "smalti.progress", "image_index": index, "rows": rows, "of": of }))
                    .await?;
            }
            Some(Event::Preview { index, number, rows, picture }) => {
                let mut data = common("image_generation.partial_image", index);
                data["partial_image_index"] = number.into();
                data["rows"] = rows.into();
                match going.png(picture, None).await {
                    Ok(png) => data["b64_json"] = png.into(),
                    Err(error) => break error,
                }
                client.event(data).await?;
            }
            Some(Event::Image(image)) => {
                let mut data = common("image_generation.completed", image.index);
                data["usage"] = usage(&app, image.condition_tokens, 1);
                condition_tokens += image.condition_tokens;
                match going.pack(image).await {
                    Ok(Value::Object(about)) => about.into_iter().for_each(|(name, value)| data[name] = value),
                    Ok(_) => {}
                    Err(error) => break error,
                }
                client.event(data).await?;
            }
            Some(Event::Done(Ok(timings))) => {
                account.end_well(&timings, wanted.request.images(), condition_tokens);
                return client.send("data: [DONE]\n\n".into()).await;
            }
            Some(Event::Done(Err(error))) => break ApiError::from(error),
            Some(_) => {}
            None => break Error::Ended { reason: "its engine is gone".into() }.into(),
        }
    };
    account.end(failed.label());
    client.send(format!("event: error\ndata: {}\n\n", failed.body())).await
}
