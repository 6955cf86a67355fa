//! What all routes share: the model, the session once it is there, the figures.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use super::ServeOptions;
use super::errors::ApiError;
use super::metrics::Metrics;
use crate::engine::{Model, Session};

pub struct App {
    pub model: Model,
    /// What clients call it.
    pub name: String,
    pub options: ServeOptions,
    pub metrics: Metrics,
    /// Unix seconds.
    pub created: u64,
    phase: RwLock<Phase>,
}

#[derive(Clone)]
enum Phase {
    Loading,
    Ready(Arc<Session>),
    /// No new requests; a session that was being loaded comes too late.
    Draining(Option<Arc<Session>>),
}

impl App {
    pub fn new(model: Model, options: ServeOptions) -> Self {
        let name = options.name.clone().unwrap_or_else(|| model.name().to_string());
        let phase = RwLock::new(Phase::Loading);
        Self { model, name, options, metrics: Metrics::default(), created: now(), phase }
    }

    fn phase(&self) -> Phase {
        self.phase.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests are taken from now on.
    pub fn ready(&self, session: Arc<Session>) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = Phase::Ready(session);
    }

    /// No requests are taken from now on; the session whose requests are to be finished.
    pub fn drain(&self) -> Option<Arc<Session>> {
        let session = self.any_session();
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = Phase::Draining(session.clone());
        session
    }

    /// The session, whether it takes requests or not.
    pub fn any_session(&self) -> Option<Arc<Session>> {
        match self.phase() {
            Phase::Loading => None,
            Phase::Ready(session) => Some(session),
            Phase::Draining(session) => session,
        }
    }

    /// The session that takes requests, or why there is none.
    pub fn session(&self) -> Result<Arc<Session>, ApiError> {
        let unavailable = |code, message: &str| {
            let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
            Err(error.retry_after(2))
        };
        match self.phase() {
            Phase::Loading => unavailable("loading", "the model is being loaded"),
            Phase::Draining(_) => unavailable("draining", "the server is shutting down"),
            Phase::Ready(session) => match session.ended() {
                None => Ok(session),
                Some(reason) => unavailable("engine_stopped", &format!("the engine has ended: {reason}")),
            },
        }
    }

    /// Checks a request's key.
    pub fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.options.api_key else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match given.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(given) if equal(given.as_bytes(), key.as_bytes()) => Ok(()),
            given => {
                let message = match given {
                    Some(_) => "the API key is wrong",
                    None => "an API key is needed: Authorization: Bearer …",
                };
                Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
            }
        }
    }
}

/// Compares in a time that tells nothing of where the texts differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A number that nobody needs to guess wrong: names of requests, seeds that nobody chose.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
