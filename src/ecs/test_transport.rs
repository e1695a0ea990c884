//! Clouds of unit tests: what a request asked for, and the answer that it gets.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::transport::{Transport, TransportError};

/// A cloud for unit tests: gives one answer (HTTP status and body) to every request until the next one is set.
#[derive(Default)]
pub(crate) struct TestTransport(Mutex<(u16, String)>);

impl TestTransport {
    /// Sets the answer.
    pub(crate) fn answers(&self, status: u16, body: &serde_json::Value) {
        *self.0.lock().unwrap() = (status, body.to_string());
    }
}

impl Transport for TestTransport {
    fn send(
        &self,
        _: http::Request<Bytes>,
        _: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let (status, body) = self.0.lock().unwrap().clone();
        test_answer(status, body)
    }
}

/// What a request asks a cloud of a test for.
pub(crate) fn test_parameters(request: &http::Request<Bytes>) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(request.body())
        .into_owned()
        .collect()
}

/// An answer of a cloud of a test, which comes at once.
pub(crate) fn test_answer(
    status: u16,
    body: String,
) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>> {
    let answer = http::Response::builder().status(status);
    std::future::ready(Ok(answer.body(body.into()).unwrap())).boxed()
}
