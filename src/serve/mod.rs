//! The HTTP server: OpenAI's images API over a [`Session`](crate::Session), and a page to try it with.
//!
//! Sees the crate's public face alone. Requests are parsed and checked into what the engine takes (`wire`), errors
//! have OpenAI's shape (`errors`), `going` is a request that the engine has, everything else is a file per route. The
//! engine's thread does the drawing; the runtime's threads parse, pack PNGs and move bytes. Tested by `tests/serve`
//! with the program itself, and by `tests/clients` with other people's clients.
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/images/generations` | pictures, whole or as a stream of events |
//! | `GET /v1/models`, `GET /v1/models/{name}` | what is served |
//! | `GET /health`, `/ping` | 200 when requests are taken, else 503 |
//! | `GET /metrics`, `/load`, `/version`, `/classes` | figures; requests under way; the build; names of classes |
//! | `GET /` | the page |

mod account;
mod app;
mod connections;
mod errors;
mod going;
mod images;
mod info;
mod metrics;
mod stream;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use self::app::App;
use self::errors::ApiError;
use crate::engine::{Model, SessionOptions};
use crate::{Error, Result};

/// Where to listen and what to allow.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub host: IpAddr,
    /// 0 for any that is free.
    pub port: u16,
    /// What the model is called; by default as its file.
    pub name: Option<String>,
    /// What clients must send as `Authorization: Bearer …` to routes below `/v1`.
    pub api_key: Option<String>,
    /// Pictures of one request.
    pub max_images: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// How long a request may take, waiting included.
    pub timeout: Duration,
}

/// Serves until SIGTERM or SIGINT, then finishes what was taken; a second signal ends it at once. When the engine fails,
/// all requests are told and it ends with the error: whoever watches over it may start it again. A signal then does not
/// wait for those who read slowly.
///
/// The port is open before the model is laid out: until then requests are answered with 503. `listening` is told the
/// address, `ready` what device it is once pictures can be drawn.
///
/// # Errors
///
/// When the address cannot be listened at, as [`Session::start`](crate::Session::start), and [`Error::Ended`] when the
/// engine has failed.
pub fn serve(
    model: &Model,
    session: &SessionOptions,
    options: &ServeOptions,
    listening: impl FnOnce(SocketAddr),
    ready: impl FnOnce(&crate::Session),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("smalti-serve")
        .enable_all()
        .build()
        .map_err(Error::io("start", "the server's threads"))?;
    let app = Arc::new(App::new(model.clone(), options.clone()));
    let router = routes(app.clone());
    let ended = runtime.block_on(connections::run(app, router, session.clone(), listening, ready));
    // A second signal does not wait for the loading of a model.
    runtime.shutdown_background();
    ended
}

fn routes(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/v1/images/generations", post(images::generate))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{name}", get(info::model))
        .route_layer(from_fn_with_state(app.clone(), authorize));
    Router::new()
        .merge(guarded)
        .route("/", get(info::page))
        .route("/classes", get(info::classes))
        .route("/health", get(info::health))
        .route("/ping", get(info::health))
        .route("/load", get(info::load))
        .route("/metrics", get(info::metrics))
        .route("/version", get(info::version))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no such page here"))
        .method_not_allowed_fallback(async || {
            let message = "the page is there, but not by this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(from_fn(name_request))
        .with_state(app)
}

/// Checks the key, where one is asked for.
async fn authorize(
    axum::extract::State(app): axum::extract::State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    app.authorize(request.headers())?;
    Ok(next.run(request).await)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sends a request's name back, or a new one.
async fn name_request(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|name| name.len() <= 128).cloned();
    let name = given.unwrap_or_else(|| {
        let name = format!("req-{:016x}", app::random());
        HeaderValue::from_str(&name).expect("plain letters")
    });
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, name);
    response
}
