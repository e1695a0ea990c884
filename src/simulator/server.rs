//! Serves a [`Simulator`] on a port: the only module with sockets and a clock. Decides nothing.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};

use super::{Delivery, SimulatedResponse, Simulator};

/// Serves the API until the future is dropped. Uses hyper rather than axum, because a fault must be able to break the
/// connection.
pub async fn serve(listener: TcpListener, simulator: Arc<Simulator>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, simulator.clone()));
            }
            Err(error) => {
                // Usually out of file descriptors, until other connections close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves the metadata service until the future is dropped.
///
/// # Errors
/// The listener cannot be used any more.
pub async fn serve_metadata(
    listener: TcpListener,
    simulator: Arc<Simulator>,
) -> std::io::Result<()> {
    let answer = move |request: Request<Body>| {
        let simulator = Arc::clone(&simulator);
        async move {
            let (parts, _) = request.into_parts();
            let request = Request::from_parts(parts, Bytes::new());
            match simulator.metadata(&request, Timestamp::now()) {
                Some(response) => response.map(Body::from),
                None => pending().await,
            }
        }
    };
    axum::serve(listener, axum::Router::new().fallback(answer)).await
}

async fn connection(stream: TcpStream, simulator: Arc<Simulator>) {
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| Box::pin(answer(request, simulator.clone(), reset.clone())));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let stream = connection.into_parts().io.into_inner();
    if ended.is_err() && reset.load(Ordering::Relaxed) {
        // Without linger the kernel sends a reset instead of an orderly close.
        let _ = stream.set_zero_linger();
    }
}

/// The connection must be broken.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
struct Break;

async fn answer(
    request: Request<Incoming>,
    simulator: Arc<Simulator>,
    reset: Arc<AtomicBool>,
) -> Result<Response<Body>, Break> {
    if request.uri().path() == "/healthz" {
        return Ok(Response::new(Body::from("ok\n")));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), LARGEST_REQUEST).await else {
        let mut response = Response::new(Body::from("the request is too large or was cut off\n"));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(response);
    };
    let request = Request::from_parts(parts, body);
    let SimulatedResponse {
        response,
        delay,
        delivery,
        action,
        outcome,
        notices,
    } = simulator.answer(&request, Timestamp::now());
    for notice in notices {
        tracing::warn!("{notice}");
    }
    tracing::debug!(
        action = &*action,
        outcome,
        status = response.status().as_u16(),
        "answered"
    );
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    reset.store(delivery == Delivery::Reset, Ordering::Relaxed);
    deliver(response, delivery).await
}

/// The limit of the vendor's gateway, in bytes; far more than our calls need.
const LARGEST_REQUEST: usize = 1 << 20;

async fn deliver(response: Response<Bytes>, delivery: Delivery) -> Result<Response<Body>, Break> {
    match delivery {
        Delivery::Whole => Ok(response.map(Body::from)),
        Delivery::Reset => Err(Break),
        Delivery::Silence => pending().await,
        Delivery::Truncated => {
            let (mut parts, body) = response.into_parts();
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            let half = body.slice(..body.len() / 2);
            // The pause lets the first half reach the client before the connection closes.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(Break)
            });
            let pieces = stream::iter([Ok(half)]).chain(broken);
            Ok(Response::from_parts(parts, Body::from_stream(pieces)))
        }
        Delivery::Drip => {
            let (mut parts, body) = response.into_parts();
            let length = HeaderValue::from(body.len());
            parts.headers.insert(header::CONTENT_LENGTH, length);
            let pieces = stream::unfold(body, |mut body| async move {
                if body.is_empty() {
                    return None;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                let piece = body.split_to(1);
                Some((Ok::<_, Infallible>(piece), body))
            });
            Ok(Response::from_parts(parts, Body::from_stream(pieces)))
        }
    }
}
