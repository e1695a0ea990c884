//! Alibaba Cloud request signatures, both versions: pure functions, no clock, no I/O.
//!
//! Version 1.0 is HMAC-SHA1 over the sorted parameters of query and form; version 3 is ACS3-HMAC-SHA256 over a canonical
//! request with headers. The client signs with version 1.0, the simulator verifies both.

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// RFC 3986: letters, digits and `-_.~` stay, every other byte becomes `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// `a=1&b=2`, sorted by raw key, both sides percent-encoded.
#[must_use]
pub fn canonical_query<K: AsRef<str>, V: AsRef<str>>(parameters: &[(K, V)]) -> String {
    let mut sorted: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(key, value)| (key.as_ref(), value.as_ref()))
        .collect();
    sorted.sort_unstable();
    let pairs: Vec<String> = sorted
        .into_iter()
        .map(|(key, value)| format!("{}={}", percent_encode(key), percent_encode(value)))
        .collect();
    pairs.join("&")
}

/// Version 1.0: what is signed, from all parameters of query and form except `Signature`.
#[must_use]
pub fn string_to_sign_v1<K: AsRef<str>, V: AsRef<str>>(
    method: &str,
    parameters: &[(K, V)],
) -> String {
    format!(
        "{method}&%2F&{}",
        percent_encode(&canonical_query(parameters))
    )
}

/// Version 1.0: base64 of HMAC-SHA1 under `secret&`. The trailing `&` is part of the key.
#[must_use]
pub fn signature_v1(secret: &str, string_to_sign: &str) -> String {
    let key = format!("{secret}&");
    let mut mac =
        Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

/// Version 3: the canonical request. `headers` are the signed ones, lower-case and sorted by name.
#[must_use]
pub fn canonical_request_v3(
    method: &str,
    path: &str,
    canonical_query: &str,
    headers: &[(&str, &str)],
    hashed_payload: &str,
) -> String {
    let canonical_headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let signed_headers: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    format!(
        "{method}\n{path}\n{canonical_query}\n{canonical_headers}\n{}\n{hashed_payload}",
        signed_headers.join(";")
    )
}

/// Version 3: what is signed, from the canonical request.
#[must_use]
pub fn string_to_sign_v3(canonical_request: &str) -> String {
    format!(
        "ACS3-HMAC-SHA256\n{}",
        sha256_hex(canonical_request.as_bytes())
    )
}

/// Version 3: hex of HMAC-SHA256 under the bare secret.
#[must_use]
pub fn signature_v3(secret: &str, string_to_sign: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Lower-case hex of SHA-256, as version 3 hashes payload and request.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_first_vector() {
        let parameters = [
            ("AccessKeyId", "testid"),
            ("Action", "DescribeRegions"),
            ("Format", "XML"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("SignatureVersion", "1.0"),
            ("Timestamp", "2016-02-23T12:46:24Z"),
            ("Version", "2014-05-26"),
        ];
        let sign = |method| signature_v1("testsecret", &string_to_sign_v1(method, &parameters));
        assert_eq!(sign("GET"), "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
        assert_eq!(sign("POST"), "MxbnVAM4w6sft9xjVpe/GCKueuk=");
    }
}
