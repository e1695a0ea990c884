//! When a credential goes, nothing of it stays in the process's memory, whatever was signed with it.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use security_group_operator::ecs::{
    Client, Credential, Endpoints, Error, Transport, TransportError,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::hostile;

#[test]
fn dropped_credential_leaves_nothing_in_memory() {
    // Of two lengths: what is freed may be used again for something else, but not for both.
    for length in [64, 192] {
        let (secret, token) = (Masked::random(length), Masked::random(length));
        call(&secret, &token);
        overwrite_the_stack();
        assert!(
            !secret.is_in_memory(),
            "a secret of {length} is still there"
        );
        assert!(!token.is_in_memory(), "a token of {length} is still there");
    }
}

/// Every action once, against a cloud that refuses all but the last one, and says nothing to that: what reads an answer
/// would use the memory again that signing left.
#[inline(never)]
fn call(secret: &Masked, token: &Masked) {
    let credential = Credential::new("LTAI", secret.plain(), Some(token.plain().into())).unwrap();
    let client = Client::new(Arc::new(Cloud), credential.clone(), Endpoints::default());
    let errors = futures::executor::block_on(hostile::errors(&client));
    let reasons: Vec<_> = errors.iter().map(Error::reason).collect();
    assert_eq!(reasons[..4], ["SignatureDoesNotMatch"; 4]);
    assert_eq!(reasons[4..], ["NoAnswer"]);
    assert!(secret.is_in_memory() && token.is_in_memory());
}

struct Cloud;

impl Transport for Cloud {
    fn send(
        &self,
        request: http::Request<Bytes>,
        after: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let action = b"Action=GetCallerIdentity";
        if request
            .body()
            .windows(action.len())
            .any(|part| part == action)
        {
            return async move { Err(TransportError::Timeout { after }) }.boxed();
        }
        let body = r#"{"RequestId":"R","Code":"SignatureDoesNotMatch","Message":"m"}"#;
        let mut response = http::Response::new(Bytes::from_static(body.as_bytes()));
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        async move { Ok(response) }.boxed()
    }
}

/// A secret, kept so that looking for it does not find the one that looks.
struct Masked(Vec<u8>);

const MASK: u8 = 0xa5;
/// Its last letters: an allocator writes over the first bytes of what is freed.
const LOOKED_FOR: usize = 24;

impl Masked {
    /// Letters that nothing escapes.
    fn random(length: usize) -> Self {
        let uuids = std::iter::repeat_with(Uuid::new_v4).flat_map(Uuid::into_bytes);
        Self(
            uuids
                .map(|byte| (b'a' + byte % 16) ^ MASK)
                .take(length)
                .collect(),
        )
    }

    fn plain(&self) -> String {
        let mut plain = String::with_capacity(self.0.len());
        plain.extend(self.0.iter().map(|byte| char::from(byte ^ MASK)));
        plain
    }

    fn is_in_memory(&self) -> bool {
        let needle = &self.0[self.0.len() - LOOKED_FOR..];
        let memory = File::open("/proc/self/mem").unwrap();
        let mut part = Zeroizing::new(vec![0; 1024 * 1024]);
        for (start, end) in writable() {
            let mut at = start;
            while at + (needle.len() as u64) < end {
                let length = part.len().min(usize::try_from(end - at).unwrap());
                // A part that went meanwhile holds nothing.
                let Ok(read) = memory.read_at(&mut part[..length], at) else {
                    break;
                };
                if part[..read].windows(needle.len()).any(|window| {
                    window[0] ^ MASK == needle[0]
                        && window
                            .iter()
                            .zip(needle)
                            .all(|(byte, masked)| byte ^ MASK == *masked)
                }) {
                    return true;
                }
                if read < length {
                    break;
                }
                at += (length - needle.len()) as u64 + 1;
            }
        }
        false
    }
}

/// The parts of memory that the process may write to.
fn writable() -> Vec<(u64, u64)> {
    let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| rest.starts_with("rw"))
        .filter_map(|(range, _)| range.split_once('-'))
        .map(|(start, end)| (address(start), address(end)))
        .collect()
}

/// What a call left on the stack, the next ones write over.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what it is about")]
fn overwrite_the_stack() {
    black_box(&mut [0_u8; 512 * 1024]);
}
