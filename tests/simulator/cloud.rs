//! The simulated cloud for tests: as a process with its two ports, and signed requests for both ways in.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use k8s_openapi::jiff::Timestamp;
use security_group_operator::ecs::sign;
use security_group_operator::simulator::DEFAULT_ACCESS_KEY;

/// `ecs-simulator`, running on free ports until it is dropped.
pub struct RawSimulator {
    child: Child,
    /// `127.0.0.1:port` of the API.
    pub wire: String,
    /// `127.0.0.1:port` of the back door.
    pub admin: String,
}

impl RawSimulator {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ecs-simulator"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || {
            lines
                .next()
                .unwrap()
                .unwrap()
                .split_once("http://")
                .unwrap()
                .1
                .to_owned()
        };
        let (wire, admin) = (address(), address());
        Self { child, wire, admin }
    }

    /// Sends a signed call and reads what comes until the connection ends, or for about three seconds.
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> std::io::Result<Reply> {
        let request = signed(DEFAULT_ACCESS_KEY, action, parameters, Timestamp::now());
        exchange(
            &self.wire,
            "GET",
            request.uri().path_and_query().unwrap().as_str(),
            "",
        )
    }

    pub fn admin(&self, method: &str, path: &str, body: &str) -> Reply {
        exchange(&self.admin, method, path, body).unwrap()
    }

    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin("GET", "/state", "").body).unwrap()
    }

    pub fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin("GET", "/stats", "").body).unwrap()
    }
}

impl Drop for RawSimulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    /// Whether as much came as was announced.
    pub complete: bool,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub fn exchange(address: &str, method: &str, target: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let ended = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => break Err(error),
        }
        if Instant::now() > deadline {
            break Ok(());
        }
    };
    if bytes.is_empty() {
        ended?;
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    Ok(Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        complete: announced.is_none_or(|length| bytes.len() - head.len() - 4 == length),
        body: body.to_owned(),
    })
}

/// A GET signed with version 1.0, with a fresh nonce.
pub fn signed(
    (id, secret): (&str, &str),
    action: &str,
    parameters: &[(&str, &str)],
    now: Timestamp,
) -> Request<Bytes> {
    let nonce = format!("nonce-{}", NONCE.fetch_add(1, Ordering::Relaxed));
    let timestamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pairs = common(id, action, &nonce, &timestamp);
    pairs.extend(
        parameters
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string())),
    );
    sign_v1("GET", secret, pairs)
}

static NONCE: AtomicU64 = AtomicU64::new(0);

pub fn common(id: &str, action: &str, nonce: &str, timestamp: &str) -> Vec<(String, String)> {
    let version = if action == "GetCallerIdentity" {
        "2015-04-01"
    } else {
        "2014-05-26"
    };
    [
        ("AccessKeyId", id),
        ("Action", action),
        ("Format", "JSON"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", nonce),
        ("SignatureVersion", "1.0"),
        ("Timestamp", timestamp),
        ("Version", version),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

pub fn sign_v1(method: &str, secret: &str, mut pairs: Vec<(String, String)>) -> Request<Bytes> {
    let signature = sign::signature_v1(secret, &sign::string_to_sign_v1(method, &pairs));
    pairs.push(("Signature".to_owned(), signature));
    let query = sign::canonical_query(&pairs);
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("/?{query}"))
        .header("host", "ecs.test")
        .body(Bytes::new())
        .unwrap()
}
