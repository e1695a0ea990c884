//! What the simulator answers: the response, its delay and its delivery.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

/// The response, its delay, and its delivery.
#[derive(Debug)]
pub struct SimulatedResponse {
    /// The response.
    pub response: Response<Bytes>,
    /// Duration of the call. The change is already made.
    pub delay: Duration,
    /// How the response reaches the client.
    pub delivery: Delivery,
    /// The action of the request, for the log.
    pub action: Cow<'static, str>,
    /// Result: `OK`, a code, or the name of a fault, as in the statistics.
    pub outcome: String,
    /// What the simulator lacks for this call, for the log: each sentence once in the life of the simulator.
    pub notices: Vec<String>,
}

/// How a response reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The whole response.
    Whole,
    /// The full length is announced, and the connection is closed half-way.
    Truncated,
    /// One byte per second.
    Drip,
    /// No response: the connection is reset.
    Reset,
    /// No response: the connection stays open.
    Silence,
}
