//! The wire between a `kube::Client` and the server: a tower service whose calls take time and can fail.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::json;
use tokio::time::Instant;

use super::request::{Reply, Request, Verb, failure};
use super::store::{ApiServer, Entry};
use super::watch;

/// A call on its way to the server.
pub type Call = Request;

/// Fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The call takes this long and succeeds.
    Pass(Duration),
    /// The server answers with this status and does nothing.
    Refuse(u16),
    /// The same, in words of its own.
    RefuseWith(Refusal),
    /// The connection breaks before the server has received the call.
    LoseBefore,
    /// The connection breaks after the server has performed the call.
    LoseAfter,
    /// No answer, for ever: the caller was killed before the call.
    Hang,
    /// The server performs the call, but the caller was killed before the answer.
    HangAfter,
    /// The call is on its way for so long, and nobody waits for its answer any more.
    Late(Duration),
}

/// What the server says when it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub message: &'static str,
    /// The reason of the one cause in its details.
    pub cause: Option<&'static str>,
}

/// Fault of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    Deliver,
    Delay(Duration),
    Twice,
    /// The event is lost, and the watch ends with 410.
    Expire,
    /// The connection breaks; the next watch resumes from the same revision.
    Break,
    /// The watcher was killed: the event is never delivered.
    Never,
    /// The object is shown as deleted and lives: a watch with a selector shows so what no longer fits.
    Unselect,
}

/// A watch that stays open and shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    pub until: Instant,
    /// Whether its connection breaks then, and what it has not shown is lost with it.
    pub breaks: bool,
}

/// Decides which calls and events fail, and how.
pub trait FaultPlan: Send + Sync + 'static {
    /// The fault of a call.
    fn call(&self, call: &Call) -> CallFault;
    /// What a mutating webhook makes of a call.
    fn admit(&self, _call: &mut Call) {}
    /// The fault of an event.
    fn event(&self, _watch: &Call, _event: &Entry) -> WatchFault {
        WatchFault::Deliver
    }
    /// Whether a watch that began at `since` shows nothing now.
    fn silence(&self, _watch: &Call, _since: Instant) -> Option<Silence> {
        None
    }
    /// The revision that a list shows; `None` for the newest.
    fn list_at(&self, _call: &Call, _newest: u64) -> Option<u64> {
        None
    }
    /// Leaves rows out of the answer to a list, as a server does that does not know all objects.
    fn cut(&self, _call: &Call, _reply: &mut Reply) {}
    /// The server has performed a call.
    fn done(&self, _call: &Call, _reply: &Reply) {}
    /// The server has performed a call of [`CallFault::Late`].
    fn arrived_late(&self, _reply: &Reply) {}
    /// The client has received an event.
    fn delivered(&self, _watch: &Call, _event: &Entry) {}
    /// Whether the caller was killed.
    fn is_dead(&self) -> bool {
        false
    }
}

/// No faults.
#[derive(Debug)]
pub struct NoFaults;

impl FaultPlan for NoFaults {
    fn call(&self, _call: &Call) -> CallFault {
        CallFault::Pass(Duration::ZERO)
    }
}

/// A client of the server with its own fault plan.
pub fn client(server: &Arc<ApiServer>, faults: Arc<dyn FaultPlan>) -> kube::Client {
    let wire = Wire {
        server: Arc::clone(server),
        faults,
    };
    kube::Client::new(wire, "default")
}

#[derive(Clone)]
struct Wire {
    server: Arc<ApiServer>,
    faults: Arc<dyn FaultPlan>,
}

type ResponseBody = UnsyncBoxBody<Bytes, std::io::Error>;
type Answered = Result<Response<ResponseBody>, std::io::Error>;

impl tower::Service<http::Request<Body>> for Wire {
    type Response = Response<ResponseBody>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Answered> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let wire = self.clone();
        Box::pin(async move { wire.exchange(request).await })
    }
}

impl Wire {
    async fn exchange(self, request: http::Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
        let mut call = match Request::read(&parts.method, &parts.uri, &parts.headers, &body) {
            Ok(call) => call,
            Err(refusal) => return Ok(response(&refusal)),
        };
        let fault = self.faults.call(&call);
        match fault {
            CallFault::Hang => std::future::pending().await,
            CallFault::LoseBefore => return Err(broken()),
            CallFault::Refuse(code) => return Ok(response(&refusal(code))),
            CallFault::RefuseWith(refusal) => return Ok(response(&refusal.reply())),
            CallFault::Late(after) => {
                tokio::spawn(self.arrive_late(call, after));
                return std::future::pending().await;
            }
            CallFault::Pass(_) | CallFault::LoseAfter | CallFault::HangAfter => {}
        }
        if let CallFault::Pass(takes) = fault
            && !takes.is_zero()
        {
            tokio::time::sleep(takes / 2).await;
            // Killed before the call was sent.
            if self.faults.is_dead() {
                std::future::pending::<()>().await;
            }
        }
        if call.verb == Verb::Watch {
            let lines = watch::stream(self.server, self.faults, call);
            return Ok(Response::new(StreamBody::new(lines.boxed()).boxed_unsync()));
        }
        self.faults.admit(&mut call);
        let newest = self.server.state().revision;
        let mut reply = self
            .server
            .answer(&call, self.faults.list_at(&call, newest));
        self.faults.cut(&call, &mut reply);
        self.faults.done(&call, &reply);
        match fault {
            CallFault::LoseAfter => return Err(broken()),
            CallFault::Hang | CallFault::HangAfter => std::future::pending().await,
            CallFault::Pass(takes) if !takes.is_zero() => {
                tokio::time::sleep(takes / 2).await;
                if self.faults.is_dead() {
                    std::future::pending::<()>().await;
                }
            }
            CallFault::Pass(_)
            | CallFault::Refuse(_)
            | CallFault::RefuseWith(_)
            | CallFault::Late(_)
            | CallFault::LoseBefore => {}
        }
        Ok(response(&reply))
    }

    async fn arrive_late(self, call: Call, after: Duration) {
        tokio::time::sleep(after).await;
        let reply = self.server.answer(&call, None);
        self.faults.done(&call, &reply);
        self.faults.arrived_late(&reply);
    }
}

fn refusal(code: u16) -> Reply {
    failure(code, reason(code), "by a fault")
}

fn reason(code: u16) -> &'static str {
    match code {
        403 => "Forbidden",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    }
}

impl Refusal {
    fn reply(self) -> Reply {
        let mut reply = failure(self.code, reason(self.code), self.message);
        if let Some(cause) = self.cause {
            let status = Arc::make_mut(&mut reply.body);
            status["details"] = json!({"causes": [{"reason": cause, "message": self.message}]});
        }
        reply
    }
}

fn broken() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::ConnectionReset,
        "the connection was reset",
    )
}

fn response(reply: &Reply) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(serde_json::to_vec(&*reply.body).unwrap()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.code).unwrap();
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}
