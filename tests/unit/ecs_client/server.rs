//! A server on a real socket that answers with whatever bytes a test wants, and keeps what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use security_group_operator::ecs::{
    Client, Credential, Endpoints, Http, Region, SecurityGroupId, Target, Transport, TransportError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens after a request was read.
#[derive(Clone)]
pub enum Reply {
    /// These bytes, then the connection closes.
    Raw(Vec<u8>),
    /// These bytes, then nothing more, for ever.
    Stall(Vec<u8>),
    /// These bytes, then one blank every 20 ms.
    Drip(Vec<u8>),
    /// These bytes, then blanks as fast as they go.
    Endless(Vec<u8>),
}

impl Reply {
    pub fn new(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut raw = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        raw.extend_from_slice(body);
        Self::Raw(raw)
    }

    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "content-type: application/json\r\n", body)
    }
}

/// A request as it came: head, and the form in its body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub form: Vec<(String, String)>,
}

impl Seen {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.form
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

pub struct Server {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, reply) = (seen.clone(), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, kept.clone(), reply.clone()));
            }
        });
        Self { address, seen }
    }

    /// The replies in turn; the last one again and again.
    pub async fn in_turn(replies: Vec<Reply>) -> Self {
        let turn = Mutex::new(replies.into_iter().peekable());
        Self::start(move |_| {
            let mut turn = turn.lock().unwrap();
            let reply = turn.peek().cloned().unwrap();
            let _ = turn.next();
            if turn.peek().is_none() {
                *turn = vec![reply.clone()].into_iter().peekable();
            }
            reply
        })
        .await
    }

    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn client(&self) -> Client {
        client(&self.address, Http::new().unwrap())
    }

    /// A client that loses its patience after 100 ms instead of after 66 s.
    pub fn hasty_client(&self) -> Client {
        client(&self.address, Hasty(Http::new().unwrap()))
    }
}

pub fn client(address: &str, transport: impl Transport) -> Client {
    let endpoints = Endpoints::parse(Some(address), Some(address), true).unwrap();
    Client::new(
        Arc::new(transport),
        Credential::new("testid", SECRET, Some(TOKEN.into())).unwrap(),
        endpoints,
    )
}

pub const SECRET: &str = "canary-secret/+";
pub const TOKEN: &str = "canary-token+/=";

struct Hasty(Http);

impl Transport for Hasty {
    fn send(
        &self,
        request: http::Request<Bytes>,
        _: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        self.0.send(request, Duration::from_millis(100))
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    reply: Arc<impl Fn(&Seen) -> Reply>,
) -> Option<()> {
    let request = read(&mut stream).await?;
    let reply = reply(&request);
    seen.lock().unwrap().push(request);
    match reply {
        Reply::Raw(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()?;
        }
        Reply::Stall(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        Reply::Drip(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            loop {
                stream.write_all(b" ").await.ok()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Reply::Endless(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            loop {
                stream.write_all(&[b' '; 4096]).await.ok()?;
            }
        }
    }
    Some(())
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .map_or(0, |n| n.parse().unwrap());
        if body.len() >= length {
            let form = url::form_urlencoded::parse(body.as_bytes())
                .into_owned()
                .collect();
            return Some(Seen { head, form });
        }
    }
}

pub fn region() -> Region {
    "cn-hangzhou".parse().unwrap()
}

pub fn instance() -> Target {
    Target::Instance("i-1".parse().unwrap())
}

pub fn network_interface() -> Target {
    Target::NetworkInterface("eni-1".parse().unwrap())
}

pub fn group() -> SecurityGroupId {
    "sg-1".parse().unwrap()
}
