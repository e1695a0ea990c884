//! The wire protocol of the simulated cloud: parses requests and verifies signatures. Pure; `now` is an argument, and the
//! caller stores the used nonces.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use k8s_openapi::jiff::Timestamp;

use crate::ecs::sign;

use super::account::{AccessKey, AccessKeys, Caller};
use super::body::Format;
use super::error::{self, ErrorResponse, missing_parameter};
use super::parameters::Parameters;

/// A parsed request, not verified yet.
#[derive(Debug)]
pub struct Wire {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    parameters: Parameters,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Wire {
    /// Parses query, form and headers. Never fails: later checks report missing values.
    #[must_use]
    pub fn read(request: &Request<Bytes>) -> Self {
        let pairs = |text: &[u8]| -> Vec<(String, String)> {
            url::form_urlencoded::parse(text).into_owned().collect()
        };
        let query = pairs(request.uri().query().unwrap_or_default().as_bytes());
        let headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let form = headers.iter().any(|(name, value)| {
            name == "content-type" && value.starts_with("application/x-www-form-urlencoded")
        });
        let mut parameters = query.clone();
        if form && request.method() == Method::POST {
            parameters.extend(pairs(request.body()));
        }
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query,
            parameters: Parameters::new(parameters),
            headers,
            body: request.body().clone(),
        }
    }

    /// All parameters of query and form.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// XML by default; JSON by `Format`, or by `accept` if `Format` is absent.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.parameters.text("Format") {
            Some(format) if format.eq_ignore_ascii_case("JSON") => Format::Json,
            None if self
                .header("accept")
                .is_some_and(|accept| accept.contains("application/json")) =>
            {
                Format::Json
            }
            Some(_) | None => Format::Xml,
        }
    }

    /// The requested host, which error bodies repeat.
    #[must_use]
    pub fn host(&self) -> &str {
        self.header("host").unwrap_or("ecs.aliyuncs.com")
    }

    /// The action, if the request names one.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        self.named("x-acs-action", "Action")
    }

    /// The API version, if the request names one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.named("x-acs-version", "Version")
    }

    /// Version 1.0 does not sign headers, so it takes no action or version from them.
    fn named(&self, header: &str, parameter: &str) -> Option<&str> {
        let version_1 =
            self.header("authorization").is_none() && self.parameters.text("Signature").is_some();
        self.header(header)
            .filter(|_| !version_1)
            .or_else(|| self.parameters.text(parameter))
    }

    /// Only GET and POST are supported.
    ///
    /// # Errors
    /// `UnsupportedHTTPMethod`.
    pub fn check_method(&self) -> Result<(), ErrorResponse> {
        if self.method == Method::GET || self.method == Method::POST {
            return Ok(());
        }
        Err(error::UNSUPPORTED_HTTP_METHOD.into())
    }

    /// Verifies signature, time, nonce and security token. Returns the caller.
    ///
    /// # Errors
    /// Every code of the gateway for keys and signatures.
    pub fn authenticate(
        &self,
        keys: &AccessKeys,
        nonces: &mut Nonces,
        now: Timestamp,
    ) -> Result<Caller, ErrorResponse> {
        match self.header("authorization") {
            Some(authorization) => self.verify_v3(authorization, keys, nonces, now),
            None => self.verify_v1(keys, nonces, now),
        }
    }

    /// Version 1.0: HMAC-SHA1 over query and form.
    fn verify_v1(
        &self,
        keys: &AccessKeys,
        nonces: &mut Nonces,
        now: Timestamp,
    ) -> Result<Caller, ErrorResponse> {
        let needed = |name: &str| {
            self.parameters
                .text(name)
                .ok_or_else(|| missing_parameter(name))
        };
        let id = needed("AccessKeyId")?;
        let signature = needed("Signature")?;
        let method = needed("SignatureMethod")?;
        let version = needed("SignatureVersion")?;
        let nonce = needed("SignatureNonce")?;
        let timestamp = needed("Timestamp")?;
        if method != "HMAC-SHA1" {
            return Err(error::INVALID_SIGNATURE_METHOD.into());
        }
        if version != "1.0" {
            return Err(error::INCOMPLETE_SIGNATURE.into());
        }
        let key = keys.usable(id)?;
        check_time(timestamp, now)?;
        let signed: Vec<(&str, &str)> = self
            .parameters
            .pairs()
            .iter()
            .filter(|(name, _)| name != "Signature")
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let string_to_sign = sign::string_to_sign_v1(self.method.as_str(), &signed);
        if sign::signature_v1(&key.secret, &string_to_sign) != signature {
            return Err(error::SIGNATURE_MISMATCH.says(format!(
                "Specified signature is not matched with our calculation. server string to sign is:{string_to_sign}"
            )));
        }
        nonces.take(key, nonce, now)?;
        keys.caller(key, self.parameters.text("SecurityToken"), now)
    }

    /// Version 3: ACS3-HMAC-SHA256 over headers, query and body.
    fn verify_v3(
        &self,
        authorization: &str,
        keys: &AccessKeys,
        nonces: &mut Nonces,
        now: Timestamp,
    ) -> Result<Caller, ErrorResponse> {
        let Some(fields) = authorization.strip_prefix("ACS3-HMAC-SHA256") else {
            return Err(error::INVALID_SIGNATURE_METHOD.into());
        };
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
                .ok_or(error::INCOMPLETE_SIGNATURE)
        };
        let (id, names, signature) = (
            field("Credential")?,
            field("SignedHeaders")?,
            field("Signature")?,
        );
        let needed = |name: &str| self.header(name).ok_or_else(|| missing_parameter(name));
        let timestamp = needed("x-acs-date")?;
        let nonce = needed("x-acs-signature-nonce")?;
        let hash = needed("x-acs-content-sha256")?;
        needed("x-acs-action")?;
        needed("x-acs-version")?;
        let key = keys.usable(id)?;
        check_time(timestamp, now)?;

        let headers = self.signed_headers(names)?;
        let true_hash = sign::sha256_hex(&self.body);
        let query = sign::canonical_query(&self.query);
        let request = sign::canonical_request_v3(
            self.method.as_str(),
            &self.path,
            &query,
            &headers,
            &true_hash,
        );
        let string_to_sign = sign::string_to_sign_v3(&request);
        if hash != true_hash || sign::signature_v3(&key.secret, &string_to_sign) != signature {
            return Err(error::SIGNATURE_MISMATCH.says(format!(
                "Specified signature does not match our calculation. server StringToSign is [{string_to_sign}]"
            )));
        }
        nonces.take(key, nonce, now)?;
        keys.caller(key, self.header("x-acs-security-token"), now)
    }

    /// The headers that a signature of version 3 covers: all that it must, and those that it names.
    fn signed_headers<'a>(
        &'a self,
        names: &'a str,
    ) -> Result<Vec<(&'a str, &'a str)>, ErrorResponse> {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        for name in names.split(';') {
            headers.push((name, self.header(name).ok_or(error::INCOMPLETE_SIGNATURE)?));
        }
        let complete = self
            .headers
            .iter()
            .filter(|(name, _)| {
                name == "host" || name.starts_with("x-acs-") && !UNSIGNED.contains(&name.as_str())
            })
            .all(|(name, _)| headers.iter().any(|(signed, _)| signed == name));
        if !complete {
            return Err(error::INCOMPLETE_SIGNATURE.into());
        }
        Ok(headers)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// Headers that the vendor's tools add after signing.
const UNSIGNED: &[&str] = &["x-acs-retry-attempts", "x-acs-retry-delay"];

fn check_time(text: &str, now: Timestamp) -> Result<(), ErrorResponse> {
    // The parser accepts more forms than the one that the vendor uses.
    let time: Timestamp = text
        .parse()
        .ok()
        .filter(|time: &Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() == text)
        .ok_or(error::TIMESTAMP_FORMAT)?;
    let apart = now.duration_since(time).unsigned_abs();
    if apart > SKEW {
        return Err(error::TIMESTAMP_EXPIRED.into());
    }
    Ok(())
}

/// Tolerated clock difference (15 minutes).
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Used nonces, kept as long as a request with them could still be valid. Two generations, so that expiry needs no search.
#[derive(Clone, Debug)]
pub struct Nonces {
    turned: Timestamp,
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Default for Nonces {
    fn default() -> Self {
        Self {
            turned: Timestamp::UNIX_EPOCH,
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }
}

impl Nonces {
    fn take(&mut self, key: &AccessKey, nonce: &str, now: Timestamp) -> Result<(), ErrorResponse> {
        if now.duration_since(self.turned).unsigned_abs() >= 2 * SKEW {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
        }
        let mut hasher = DefaultHasher::new();
        (&key.id, nonce).hash(&mut hasher);
        let nonce = hasher.finish();
        if self.old.contains(&nonce) || !self.young.insert(nonce) {
            return Err(error::NONCE_USED.into());
        }
        Ok(())
    }
}
