//! The one seam: sends an HTTP request and returns its size-limited answer before the deadline, or a named failure. Knows
//! nothing of actions or signatures.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shutdown::Shutdown;

use super::authorities::Authorities;
use super::id::Region;
use super::proxies::Proxies;

/// Sends one request to the cloud and returns its whole answer.
///
/// An implementation applies the deadline to the whole exchange, body included, returns at most [`ANSWER_LIMIT`] bytes,
/// follows no redirect and never sends a request twice. It sends none when the [`Shutdown`] among the request's extensions says that
/// another process may act.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request.
    fn send(
        &self,
        request: http::Request<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>>;
}

/// Longest body in bytes (16 MiB). A page of 100 instances has about 300 KiB, and 1.6 MiB if each has 8 interfaces of 30 addresses.
pub const ANSWER_LIMIT: usize = 16 * MIB;

/// The part of a body that needs no room among the large ones (512 KiB).
const SMALL: usize = MIB / 2;

/// All that is beyond [`SMALL`], of all answers that are read at the same time, has so many bytes at most (64 MiB).
const ROOM: usize = 64 * MIB;

/// Most clients for private clouds that are kept. Their connections are lost when there are more.
const PRIVATE_CLIENTS: usize = 64;

const MIB: usize = 1024 * 1024;

/// Ways an exchange can end without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection: no byte of the request was sent.
    #[error("cannot connect: {cause}")]
    Connect {
        /// Message of the operating system, the resolver or TLS.
        cause: String,
    },
    /// Nothing was sent: the region is none that this version knows, it has never answered, and others like it did not either.
    #[error(
        "{region} is not a region that this version knows, and of such regions that have never answered only one is called at a time"
    )]
    NotTried {
        /// The region.
        region: Region,
    },
    /// The deadline passed.
    #[error("no complete answer within {} s", after.as_secs_f32())]
    Timeout {
        /// The deadline.
        after: Duration,
    },
    /// The body exceeds the limit.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answers of other calls use up the memory for large ones.
    #[error("the operator reads other large answers now, which may have {limit} bytes together")]
    NoRoom {
        /// The limit in bytes.
        limit: usize,
    },
    /// The connection broke after the request may have been sent.
    #[error("the connection broke before the answer was complete: {cause}")]
    Interrupted {
        /// Message of the operating system or of HTTP.
        cause: String,
    },
}

impl TransportError {
    /// Whether the request may have reached the cloud and taken effect.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NotTried { .. } => false,
            Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::Interrupted { .. } => true,
        }
    }

    /// Whether an answer to fewer questions could be read.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::NoRoom { .. } => true,
            Self::Connect { .. }
            | Self::NotTried { .. }
            | Self::Timeout { .. }
            | Self::Interrupted { .. } => false,
        }
    }
}

/// The real network, through reqwest: no redirects, no retries, and no proxies of the environment unless they are asked for.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    /// Clients for servers of private clouds, by their authorities.
    private: Arc<Mutex<HashMap<Authorities, reqwest::Client>>>,
    /// Why no certificate of a server can be verified. http:// works all the same.
    without_authorities: Option<String>,
    /// Room for large answers: a permit per MiB.
    room: Arc<Semaphore>,
    proxies: Proxies,
}

impl Http {
    /// A client for the whole process; it holds the connection pool. Without certificate authorities on this machine it is a
    /// client for http:// only.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, TransportError> {
        Self::through(Proxies::None)
    }

    /// The same, through these proxies.
    ///
    /// # Errors
    /// TLS cannot be set up, or a variable names no proxy.
    pub fn through(proxies: Proxies) -> Result<Self, TransportError> {
        Self::with(proxies, |builder| builder)
    }

    /// The same without proxies, and with another resolver of host names than that of the machine.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn resolving(resolver: Arc<dyn reqwest::dns::Resolve>) -> Result<Self, TransportError> {
        Self::with(Proxies::None, |builder| {
            builder.dns_resolver(Arc::clone(&resolver))
        })
    }

    fn with(
        proxies: Proxies,
        change: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self, TransportError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails only if another thread installs a provider at the same time, which is fine.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let built = |builder: reqwest::ClientBuilder| {
            let client = builder.build();
            client.map_err(|error| root_cause(&error))
        };
        match built(change(proxies.client())) {
            Ok(client) => Ok(Self {
                client,
                private: Arc::default(),
                without_authorities: None,
                room: Arc::new(Semaphore::new(ROOM / MIB)),
                proxies,
            }),
            Err(cause) => {
                let client = built(change(proxies.client()).tls_certs_only([]));
                Ok(Self {
                    client: client.map_err(|cause| TransportError::Connect { cause })?,
                    private: Arc::default(),
                    without_authorities: Some(format!(
                        "{cause}; add the file /etc/ssl/certs/ca-certificates.crt, or name one in SSL_CERT_FILE, and restart the operator"
                    )),
                    room: Arc::new(Semaphore::new(ROOM / MIB)),
                    proxies,
                })
            }
        }
    }

    /// Why no https:// endpoint can be used, and what to do; `None` if they can.
    #[must_use]
    pub fn without_authorities(&self) -> Option<&str> {
        self.without_authorities.as_deref()
    }

    /// The client for servers with certificates of these authorities, or of those of the machine.
    fn client(&self, authorities: Option<Authorities>) -> Result<reqwest::Client, TransportError> {
        let Some(authorities) = authorities else {
            return Ok(self.client.clone());
        };
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = private.get(&authorities) {
            return Ok(client.clone());
        }
        let unusable = |error: &reqwest::Error| TransportError::Connect {
            cause: format!("endpoints.caBundle cannot be used: {}", root_cause(error)),
        };
        let pem = authorities.pem().as_bytes();
        let certificates =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|error| unusable(&error))?;
        let builder = self.proxies.client().tls_certs_only(certificates);
        let client = builder.build().map_err(|error| unusable(&error))?;
        if private.len() >= PRIVATE_CLIENTS {
            private.clear();
        }
        private.insert(authorities, client.clone());
        Ok(client)
    }

    async fn exchange(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let authorities: Option<Authorities> = request.extensions().get().cloned();
        if let Some(cause) = &self.without_authorities
            && authorities.is_none()
            && request.uri().scheme() == Some(&http::uri::Scheme::HTTPS)
        {
            return Err(TransportError::Connect {
                cause: cause.clone(),
            });
        }
        let shutdown = request.extensions().get().cloned().unwrap_or_default();
        let request = request.map(|bytes| reqwest::Body::wrap(LastMoment { bytes, shutdown }));
        let request =
            reqwest::Request::try_from(request).map_err(|error| TransportError::Connect {
                cause: root_cause(&error),
            })?;
        let client = self.client(authorities)?;
        let mut answer = client.execute(request).await.map_err(named)?;
        let mut body = BytesMut::new();
        let mut room = Room::of(&self.room);
        // What is announced is reserved at once: a body that grows step by step would take up to twice its size.
        if let Some(announced) = answer.content_length() {
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            room.reserve(announced)?;
            body.reserve(announced);
        }
        while let Some(chunk) = answer.chunk().await.map_err(named)? {
            room.reserve(body.len() + chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body.freeze());
        // Until the answer has been read.
        response.extensions_mut().insert(Arc::new(room));
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

/// The room that one answer takes among the large ones.
struct Room {
    all: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn of(all: &Arc<Semaphore>) -> Self {
        Self {
            all: Arc::clone(all),
            taken: None,
        }
    }

    /// Takes the room for a body of `bytes`. Never waits: answers that wait for each other would all miss their deadlines.
    fn reserve(&mut self, bytes: usize) -> Result<(), TransportError> {
        if bytes > ANSWER_LIMIT {
            return Err(TransportError::TooLarge {
                limit: ANSWER_LIMIT,
            });
        }
        let needed = bytes.saturating_sub(SMALL).div_ceil(MIB);
        let taken = self
            .taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(needed.saturating_sub(taken)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.all).try_acquire_many_owned(more);
        let more = more.map_err(|_| TransportError::NoRoom { limit: ROOM })?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

/// The body of a request. The connection takes it when it writes the request: if another process may act by then, because this one
/// was frozen in between, the request is broken off, and the cloud does nothing without its body.
struct LastMoment {
    bytes: Bytes,
    shutdown: Shutdown,
}

impl http_body::Body for LastMoment {
    type Data = Bytes;
    type Error = LeaseOver;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LeaseOver>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(if self.shutdown.may_have_successor() {
            Err(LeaseOver)
        } else {
            Ok(Frame::data(std::mem::take(&mut self.bytes)))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// Why a request is broken off.
#[derive(Debug, thiserror::Error)]
#[error("another process may act by now")]
struct LeaseOver;

impl Transport for Http {
    fn send(
        &self,
        request: http::Request<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        async move {
            tokio::time::timeout(deadline, self.exchange(request))
                .await
                .unwrap_or(Err(TransportError::Timeout { after: deadline }))
        }
        .boxed()
    }
}

fn named(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    let cause = root_cause(&error);
    if error.is_connect() {
        TransportError::Connect { cause }
    } else {
        TransportError::Interrupted { cause }
    }
}

/// The innermost cause: the outer layers only repeat that the request failed.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
