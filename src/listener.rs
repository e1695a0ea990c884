//! The port of probes and metrics: binds it and serves it within bounds. A client that can reach the port must not be able to use up
//! memory or file descriptors, or to keep the probes out. Decides nothing.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tower::ServiceExt as _;
use tracing::debug;

/// Binds the address that was typed, or the default. Only the default falls back to IPv4: an address that was typed is meant.
///
/// # Errors
/// The address that cannot be bound, and why.
pub async fn bind(typed: Option<SocketAddr>) -> Result<TcpListener, (SocketAddr, std::io::Error)> {
    bind_with(typed, TcpListener::bind).await
}

async fn bind_with<L, F>(
    typed: Option<SocketAddr>,
    bind: impl Fn(SocketAddr) -> F,
) -> Result<L, (SocketAddr, std::io::Error)>
where
    F: Future<Output = std::io::Result<L>>,
{
    let [default, without_ipv6] = DEFAULT_ADDRESSES;
    let mut address = typed.unwrap_or(default);
    let mut bound = bind(address).await;
    if let Err(error) = &bound
        && typed.is_none()
        && error.kind() != ErrorKind::AddrInUse
    {
        address = without_ipv6;
        bound = bind(address).await;
    }
    bound.map_err(|error| (address, error))
}

/// The first that exists: every address of IPv6 and IPv4, or every one of IPv4.
const DEFAULT_ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8080),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080),
];

/// Answers one request per connection, until the future is dropped. While `MAX_CONNECTIONS` are open, a new one closes the
/// oldest: an honest request is answered in milliseconds, and what is old by then waits for a header that does not come or for
/// a client that does not read.
pub async fn serve(listener: TcpListener, routes: Router) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Usually a client that has gone again, or no file descriptors.
                debug!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(answer(stream, routes.clone()));
        open.push_back(connection.abort_handle());
        // What has arrived of its request is read before others can close it.
        tokio::task::yield_now().await;
    }
}

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_LIMIT)
        .keep_alive(false)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| routes.clone().oneshot(request)),
        );
    // How a connection ends concerns its client only.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

/// From the first byte that may come to the end of the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// In bytes, of all headers together.
const HEADER_LIMIT: usize = 16 * 1024;
/// The whole exchange; what it leaves out is a client that does not read its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::{self, Telemetry};

    const HALF_A_HEADER: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ";
    /// Longer than any answer takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn served() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(
            listener,
            telemetry::routes(Arc::new(Telemetry::default())),
        ));
        address
    }

    async fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other end may have closed already.
        let _ = stream.write_all(bytes).await;
        stream
    }

    /// What is read until the other end closes.
    async fn rest(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        // A reset is an end, too.
        let _ = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the connection stays open");
        String::from_utf8(bytes).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        rest(sent(address, request.as_bytes()).await).await
    }

    #[tokio::test]
    async fn probes_answer_while_connections_without_a_request_pile_up() {
        let address = served().await;
        let mut unfinished = Vec::new();
        for _ in 0..200 {
            unfinished.push(sent(address, HALF_A_HEADER).await);
            let probe = get(address, "/livez").await;
            assert!(probe.starts_with("HTTP/1.1 200 "), "{probe}");
        }
        // A probe took a place as well.
        let closed = unfinished.drain(..200 - MAX_CONNECTIONS);
        for stream in closed {
            assert_eq!(rest(stream).await, "");
        }
    }

    #[tokio::test]
    async fn newest_connections_stay() {
        let address = served().await;
        let mut unfinished = Vec::new();
        for _ in 0..200 {
            unfinished.push(sent(address, HALF_A_HEADER).await);
        }
        let mut newest = unfinished.pop().unwrap();
        newest.write_all(b"no longer\r\n\r\n").await.unwrap();
        assert!(rest(newest).await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_header_ends_the_connection_after_5_seconds() {
        let address = served().await;
        for bytes in [b"".as_slice(), HALF_A_HEADER] {
            let opened = Instant::now();
            let stream = sent(address, bytes).await;
            assert_eq!(rest(stream).await, "");
            let open = opened.elapsed();
            assert!((HEADER_TIMEOUT..PATIENCE).contains(&open), "{open:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unread_answer_ends_the_connection_after_30_seconds() {
        // Less than an answer fits between the two ends.
        let (mut client, server) = tokio::io::duplex(256);
        let routes = telemetry::routes(Arc::new(Telemetry::default()));
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let opened = Instant::now();
        tokio::time::timeout(PATIENCE, answer(server, routes))
            .await
            .expect("the connection stays open");
        assert_eq!(opened.elapsed(), CONNECTION_TIMEOUT);
        let mut begun = Vec::new();
        client.read_to_end(&mut begun).await.unwrap();
        assert!(begun.starts_with(b"HTTP/1.1 200 ") && begun.len() <= 256);
    }

    #[tokio::test]
    async fn long_header_is_refused() {
        let address = served().await;
        for (length, accepted) in [(HEADER_LIMIT / 2, true), (2 * HEADER_LIMIT, false)] {
            let long = "x".repeat(length);
            let request = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n");
            let answer = rest(sent(address, request.as_bytes()).await).await;
            assert_eq!(answer.starts_with("HTTP/1.1 200 "), accepted, "{answer}");
        }
    }

    const EAFNOSUPPORT: i32 = 97;

    /// The address that is bound, or the error in words, on a machine without IPv6 and with these addresses in use.
    fn bound(typed: Option<&str>, in_use: &[&str]) -> Result<String, String> {
        let bind = |address: SocketAddr| {
            let result = if address.is_ipv6() {
                Err(std::io::Error::from_raw_os_error(EAFNOSUPPORT))
            } else if in_use.contains(&address.to_string().as_str()) {
                Err(ErrorKind::AddrInUse.into())
            } else {
                Ok(address.to_string())
            };
            std::future::ready(result)
        };
        let typed = typed.map(|typed| typed.parse().unwrap());
        let listener = bind_with(typed, bind).now_or_never().unwrap();
        listener.map_err(|(address, error)| format!("{address}: {error}"))
    }

    #[test]
    fn only_the_default_address_falls_back_to_ipv4() {
        assert_eq!(bound(None, &[]).unwrap(), "0.0.0.0:8080");
        assert_eq!(bound(Some("127.0.0.1:80"), &[]).unwrap(), "127.0.0.1:80");
        for typed in ["[::]:8080", "[::1]:80"] {
            let error = bound(Some(typed), &[]).unwrap_err();
            assert!(error.starts_with(&format!("{typed}: ")), "{error}");
        }
        let error = bound(None, &["0.0.0.0:8080"]).unwrap_err();
        assert!(error.starts_with("0.0.0.0:8080: "), "{error}");
    }

    #[test]
    fn default_address_in_use_is_an_error() {
        let bind = |address: SocketAddr| {
            std::future::ready(if address.is_ipv6() {
                Err(ErrorKind::AddrInUse.into())
            } else {
                Ok(())
            })
        };
        let (address, _) = bind_with(None, bind).now_or_never().unwrap().unwrap_err();
        assert_eq!(address, DEFAULT_ADDRESSES[0]);
    }

    #[tokio::test]
    async fn unspecified_ipv6_address_serves_ipv4_too() {
        let Ok(listener) = TcpListener::bind((DEFAULT_ADDRESSES[0].ip(), 0)).await else {
            return; // A machine without IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
    }
}
