//! The admin port: a page to look at, state, statistics, journal, faults, and changes without an API call. Not part of the simulated API.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, body::Bytes};
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Simulator;
use super::change::Change;
use super::faults::Fault;

/// The routes.
pub fn router(simulator: Arc<Simulator>) -> Router {
    Router::new()
        .route("/", get(console))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/state", get(state))
        .route("/stats", get(stats))
        .route("/stats/reset", post(reset_stats))
        .route("/journal", get(journal))
        .route("/faults", get(faults).post(set_faults).delete(clear_faults))
        .route("/change", post(change))
        .with_state(simulator)
}

/// The page: targets by groups. A browser that obeys its policy asks no other host.
async fn console() -> impl IntoResponse {
    (
        [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, CONSOLE_POLICY),
        ],
        include_str!("console.html"),
    )
}

const CONSOLE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

async fn state(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    simulator.advance(Timestamp::now());
    Json(simulator.snapshot(Timestamp::now()))
}

async fn stats(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    simulator.advance(Timestamp::now());
    Json(simulator.stats())
}

async fn journal(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    simulator.advance(Timestamp::now());
    Json(simulator.journal())
}

async fn reset_stats(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.reset_stats();
    StatusCode::NO_CONTENT
}

async fn faults(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    Json(simulator.faults())
}

async fn set_faults(
    State(simulator): State<Arc<Simulator>>,
    body: Bytes,
) -> Result<StatusCode, BadRequest> {
    let faults: Vec<Fault> = one_or_many(&body)?;
    if let Some(wrong) = faults.iter().position(|fault| {
        fault
            .probability
            .is_some_and(|share| !(0.0..=1.0).contains(&share))
    }) {
        return Err(BadRequest(format!(
            "[{wrong}].probability: expected a number from 0 to 1"
        )));
    }
    simulator.set_faults(faults);
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.set_faults(Vec::new());
    StatusCode::NO_CONTENT
}

async fn change(
    State(simulator): State<Arc<Simulator>>,
    body: Bytes,
) -> Result<StatusCode, BadRequest> {
    let changes: Vec<Change> = one_or_many(&body)?;
    for (number, change) in changes.into_iter().enumerate() {
        simulator
            .change(change, Timestamp::now())
            .map_err(|error| {
                BadRequest(format!(
                    "[{number}] {error}; the changes before it are made"
                ))
            })?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Why the request is invalid.
struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, format!("{}\n", self.0)).into_response()
    }
}

/// A JSON array, or one item without its brackets.
fn one_or_many<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, BadRequest> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| BadRequest(format!("the body is not JSON: {error}")))?;
    let items = match value {
        Value::Array(items) => Value::Array(items),
        item @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => Value::Array(vec![item]),
    };
    serde_path_to_error::deserialize(items).map_err(|error| {
        let path = error.path().to_string();
        BadRequest(format!("{path}: {}", error.into_inner()))
    })
}
