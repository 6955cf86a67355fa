//! What the server tells of itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use super::app::App;
use super::errors::ApiError;
use crate::config::GenerationOptions;

/// Everything of the page is in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'";

pub async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("page.html"))).into_response()
}

pub async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [about(&app)] }))
}

pub async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if name != app.name {
        let message = format!("the only model here is `{}`", app.name);
        return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message));
    }
    Ok(Json(about(&app)))
}

fn about(app: &App) -> Value {
    let model = &app.model;
    json!({
        "id": app.name,
        "object": "model",
        "created": app.created,
        "owned_by": "smalti",
        "root": model.name(),
        "task": if model.num_classes().is_some() { "c2i" } else { "t2i" },
        "image_size": model.image_size(),
        "rows": model.latent_size(),
        "num_classes": model.num_classes(),
        "max_images": app.options.max_images,
        "defaults": model.options(&GenerationOptions::default()),
    })
}

/// Names of the classes by number; null where there are none.
pub async fn classes(State(app): State<Arc<App>>) -> Json<Value> {
    let model = &app.model;
    let names = model.labels().map(|labels| {
        let number = 0..model.num_classes().unwrap_or_default() as u32;
        number.map(|class| labels.names(class).unwrap_or_default()).collect::<Vec<_>>()
    });
    Json(json!({ "num_classes": model.num_classes(), "names": names }))
}

pub async fn health(State(app): State<Arc<App>>) -> Result<StatusCode, ApiError> {
    app.session().map(|_| StatusCode::OK)
}

pub async fn load(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "server_load": app.metrics.under_way() }))
}

pub async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "commit": env!("SMALTI_COMMIT") }))
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let session = app.any_session();
    let stats = session.as_ref().map(|session| session.stats()).unwrap_or_default();
    let text = app.metrics.text(&app.model, &stats, session.as_deref());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
