//! Alibaba Cloud request signatures, both versions: pure functions, no clock, no I/O.
//!
//! Version 1.0 is HMAC-SHA1 over the sorted parameters of query and form; version 3 is ACS3-HMAC-SHA256 over a canonical
//! request with headers. The client signs with version 1.0, the simulator verifies both.

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// RFC 3986: keeps letters, digits and `-_.~`, encodes every other byte as `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// `a=1&b=2`, sorted by raw key, keys and values percent-encoded.
///
/// The buffer is allocated once and never moved, so that the caller can wipe all of it: it may hold an STS token.
#[must_use]
pub fn canonical_query<K: AsRef<str>, V: AsRef<str>>(parameters: &[(K, V)]) -> String {
    let mut sorted: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(key, value)| (key.as_ref(), value.as_ref()))
        .collect();
    sorted.sort_unstable();
    let at_most = |(key, value): &(&str, &str)| 3 * (key.len() + value.len()) + "&=".len();
    let mut query = String::with_capacity(sorted.iter().map(at_most).sum());
    for (key, value) in sorted {
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(key, UNRESERVED));
        query.push('=');
        query.extend(utf8_percent_encode(value, UNRESERVED));
    }
    query
}

/// Version 1.0: the string to sign, from all parameters of query and form except `Signature`. The buffer is never moved
/// either.
#[must_use]
pub fn string_to_sign_v1<K: AsRef<str>, V: AsRef<str>>(
    method: &str,
    parameters: &[(K, V)],
) -> String {
    const ROOT: &str = "&%2F&";
    let query = Zeroizing::new(canonical_query(parameters));
    let mut text = String::with_capacity(method.len() + ROOT.len() + 3 * query.len());
    text.extend([method, ROOT]);
    text.extend(utf8_percent_encode(&query, UNRESERVED));
    text
}

/// Version 1.0: base64 of HMAC-SHA1 under `secret&`. The trailing `&` is part of the key.
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn signature_v1(secret: &str, string_to_sign: &str) -> String {
    let mut key = Zeroizing::new(String::with_capacity(secret.len() + 1));
    key.push_str(secret);
    key.push('&');
    let mut mac =
        Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

/// Version 3: the canonical request. `headers` are the signed headers, lower-case and sorted by name.
#[must_use]
pub fn canonical_request_v3(
    method: &str,
    path: &str,
    canonical_query: &str,
    headers: &[(&str, &str)],
    hashed_payload: &str,
) -> String {
    let mut canonical_headers = String::new();
    for (name, value) in headers {
        canonical_headers.extend([*name, ":", value.trim(), "\n"]);
    }
    let signed_headers: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    format!(
        "{method}\n{path}\n{canonical_query}\n{canonical_headers}\n{}\n{hashed_payload}",
        signed_headers.join(";")
    )
}

/// Version 3: the string to sign, from the canonical request.
#[must_use]
pub fn string_to_sign_v3(canonical_request: &str) -> String {
    format!(
        "ACS3-HMAC-SHA256\n{}",
        sha256_hex(canonical_request.as_bytes())
    )
}

/// Version 3: hex of HMAC-SHA256 under the bare secret.
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn signature_v3(secret: &str, string_to_sign: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// Lower-case hex of SHA-256; version 3 uses it for payload and canonical request.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `a=1 b=2`; values without blanks.
    fn parameters(text: &str) -> Vec<(&str, &str)> {
        text.split(' ')
            .filter_map(|pair| pair.split_once('='))
            .collect()
    }

    fn sign_v1(method: &str, secret: &str, parameters: &[(&str, &str)]) -> String {
        signature_v1(secret, &string_to_sign_v1(method, parameters))
    }

    const DESCRIBE_REGIONS: &str = "AccessKeyId=testid Action=DescribeRegions Format=XML SignatureMethod=HMAC-SHA1 \
        SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf SignatureVersion=1.0 Timestamp=2016-02-23T12:46:24Z \
        Version=2014-05-26";

    #[test]
    fn v1_matches_the_2016_documentation() {
        let parameters = parameters(DESCRIBE_REGIONS);
        assert_eq!(
            string_to_sign_v1("GET", &parameters),
            "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeRegions%26Format%3DXML%26SignatureMethod%3DHMAC-SHA1\
             %26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureVersion%3D1.0\
             %26Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3D2014-05-26"
        );
        assert_eq!(
            sign_v1("GET", "testsecret", &parameters),
            "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
        );
        assert_eq!(
            sign_v1("POST", "testsecret", &parameters),
            "MxbnVAM4w6sft9xjVpe/GCKueuk="
        );
    }

    #[test]
    fn v1_matches_the_2023_documentation() {
        let parameters = parameters(
            "AccessKeyId=testid Action=DescribeDedicatedHosts Format=JSON RegionId=cn-beijing SignatureMethod=HMAC-SHA1 \
             SignatureNonce=edb2b34af0af9a6d14deaf7c1a5315eb SignatureVersion=1.0 Timestamp=2023-03-13T08:34:30Z \
             Version=2014-05-26",
        );
        assert_eq!(
            sign_v1("GET", "testsecret", &parameters),
            "9NaGiOspFP5UPcwX8Iwt2YJXXuk="
        );
        assert_eq!(
            sign_v1("POST", "testsecret", &parameters),
            "ZvQ9xGiFnquSJRvj+WE6kdSpTwU="
        );
    }

    #[test]
    fn v1_matches_the_go_sdk_with_empty_values_and_token() {
        let mut parameters = parameters(
            "AccessKeyId=accessKeyId Action= Format=JSON RegionId=regionId SignatureMethod=HMAC-SHA1 \
             SignatureNonce=MOCK_UUID SignatureType= SignatureVersion=1.0 Version=",
        );
        parameters.push(("Timestamp", "mock date"));
        assert_eq!(
            sign_v1("GET", "accessKeySecret", &parameters),
            "7loPmFjvDnzOVnQeQNj85S6nFGY="
        );
        parameters.push(("SecurityToken", "accessKeyStsToken"));
        assert_eq!(
            sign_v1("GET", "accessKeySecret", &parameters),
            "5Nxdcler+ihqWqv0Hr2On4PsBf4="
        );
    }

    #[test]
    fn v1_matches_openapi_util_without_a_method() {
        assert_eq!(
            sign_v1("", "accessKeySecret", &[("test", "ok")]),
            "jHx/oHoHNrbVfhncHEvPdHXZwHU="
        );
    }

    /// No published vector: the inputs that encoders treat differently, computed with another implementation.
    #[test]
    fn v1_encodes_utf8_json_blanks_and_base64() {
        let mut parameters = parameters(
            "AccessKeyId=testid Action=DescribeInstances Format=JSON InstanceIds=[\"i-bp1abc\",\"i-bp1*d~f\"] \
             RegionId=cn-hangzhou SecurityToken=CAIS+/tok=en SignatureMethod=HMAC-SHA1 SignatureNonce=nonce-0001 \
             SignatureVersion=1.0 Tag.1.Value=节点 Timestamp=2026-01-02T03:04:05Z Version=2014-05-26",
        );
        parameters.push(("Tag.1.Key", "k 8s"));
        assert_eq!(
            sign_v1("GET", "testsecret", &parameters),
            "os6goEQ0LkaTilFrtoupeLO4gOo="
        );
        assert_eq!(
            sign_v1("POST", "testsecret", &parameters),
            "QsYlzF0v9DY6/IMd4syS9kviCug="
        );
    }

    #[test]
    fn parameter_order_does_not_change_the_signature() {
        let mut parameters = parameters(DESCRIBE_REGIONS);
        parameters.reverse();
        assert_eq!(
            sign_v1("GET", "testsecret", &parameters),
            "OLeaidS1JvxuMvnyHOwuJ+uX5qY="
        );
    }

    #[test]
    fn only_unreserved_bytes_are_not_encoded() {
        let kept = "ABCXYZabcxyz0189-_.~";
        assert_eq!(percent_encode(kept), kept);
        assert_eq!(
            percent_encode(" +*/=&%:\u{0}节"),
            "%20%2B%2A%2F%3D%26%25%3A%00%E8%8A%82"
        );
    }

    fn sign_v3(secret: &str, canonical_request: &str) -> String {
        signature_v3(secret, &string_to_sign_v3(canonical_request))
    }

    #[test]
    fn v3_matches_the_documentation() {
        let query = canonical_query(&[
            ("RegionId", "cn-shanghai"),
            (
                "ImageId",
                "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
            ),
        ]);
        let payload = sha256_hex(b"");
        let headers = [
            ("host", "ecs.cn-shanghai.aliyuncs.com"),
            ("x-acs-action", "RunInstances"),
            ("x-acs-content-sha256", payload.as_str()),
            ("x-acs-date", "2023-10-26T10:22:32Z"),
            ("x-acs-signature-nonce", "3156853299f313e23d1673dc12e1703d"),
            ("x-acs-version", "2014-05-26"),
        ];
        let request = canonical_request_v3("POST", "/", &query, &headers, &payload);
        assert!(request.contains(
            "\n\nhost;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version\n"
        ));
        assert_eq!(
            sha256_hex(request.as_bytes()),
            "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
        );
        assert_eq!(
            sign_v3("YourAccessKeySecret", &request),
            "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
        );
    }

    #[test]
    fn v3_matches_openapi_util_with_a_repeated_header() {
        let query = canonical_query(&[("test", "ok"), ("empty", "")]);
        let payload = "55e12e91650d2fec56ec74e1d3e4ddbfce2ef3a65890c2a19ecf88a307e76a23";
        let request =
            canonical_request_v3("", "/", &query, &[("x-acs-test", "http,https")], payload);
        assert_eq!(
            sign_v3("secret", &request),
            "4ab59fffe3c5738ff8a2729f90cc04fe18b02a4b15b2102cbaf92f9ff3df2ea3"
        );
    }

    /// No published vector: temporary credentials, computed with another implementation.
    #[test]
    fn v3_signs_temporary_credentials() {
        let query = canonical_query(&[
            ("SecurityGroupId", "sg-bp1abc"),
            ("RegionId", "cn-beijing"),
            ("InstanceId", "i-bp1abc"),
        ]);
        let payload = sha256_hex(b"");
        let headers = [
            ("host", "ecs.cn-beijing.aliyuncs.com"),
            ("x-acs-accesskey-id", "STS.testid"),
            ("x-acs-action", "JoinSecurityGroup"),
            ("x-acs-content-sha256", payload.as_str()),
            ("x-acs-date", "2026-01-02T03:04:05Z"),
            ("x-acs-security-token", "CAIS+/tok=en"),
            ("x-acs-signature-nonce", "nonce-0001"),
            ("x-acs-version", "2014-05-26"),
        ];
        let request = canonical_request_v3("POST", "/", &query, &headers, &payload);
        assert_eq!(
            sign_v3("testsecret", &request),
            "a0769ccee5cee427f2134018e53cb5e91529c84c17b8c522faac669f80d01736"
        );
    }
}
