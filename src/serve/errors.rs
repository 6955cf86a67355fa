//! Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Error;

/// Tells OpenAI's clients that the same request would fail again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub status: StatusCode,
    code: &'static str,
    param: Option<String>,
    message: String,
    /// Seconds.
    retry_after: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), retry_after: None }
    }

    /// A field of the request that cannot be.
    pub fn field(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, code, message) }
    }

    /// The same about a field that goes by another name.
    pub fn about(self, param: &str) -> Self {
        let message = match &self.param {
            Some(old) => self.message.replacen(old.as_str(), param, 1),
            None => self.message,
        };
        Self { param: Some(param.into()), message, ..self }
    }

    /// Seconds until it may be tried again.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The label of its request in the metrics.
    pub fn label(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "busy",
            StatusCode::GATEWAY_TIMEOUT => "deadline",
            status if status.is_client_error() => "invalid",
            _ => "failed",
        }
    }

    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        if let Some(hint) = error.hint() {
            message = format!("{message}; {hint}");
        }
        match error {
            // The engine speaks of options as the command line does.
            Error::Option { option, value, expected, hint } => {
                let param = match option {
                    "class" => "prompt".to_string(),
                    "count" => "n".to_string(),
                    other => other.replace('-', "_"),
                };
                let hint = if hint.is_empty() { hint } else { format!("; {hint}") };
                Self::field(&param, "invalid_value", format!("{param} {value}: expected {expected}{hint}"))
            }
            Error::Busy { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).retry_after(1),
            Error::Deadline { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message),
            Error::Ended { .. } | Error::Cancelled => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_stopped", message).retry_after(2)
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "generation_failed", message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        match self.retry_after {
            Some(seconds) => _ = headers.insert(RETRY_AFTER, HeaderValue::from(seconds)),
            None => _ = headers.insert(SHOULD_RETRY, HeaderValue::from_static("false")),
        }
        response
    }
}
