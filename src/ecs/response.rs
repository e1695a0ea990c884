//! Parses a response of the cloud into a value or a named error: pure. Any deviation from the documented format is a
//! `BadAnswer`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::action::Action;
use super::body::{self, Body, Rows, Text};
use super::class::Class;
use super::error::{ApiError, Error};
use super::error_table;
use super::id::RequestId;
use super::redact::Secrets;

/// A 2xx response with a JSON object that contains a request ID.
pub(super) struct ApiResponse {
    pub request_id: RequestId,
    action: Action,
    status: u16,
    body: Body,
    secrets: Secrets,
}

pub(super) fn parse(
    action: Action,
    response: &Response<Bytes>,
    secrets: Secrets,
) -> Result<ApiResponse, Error> {
    let status = response.status().as_u16();
    let bad = |what: &str| Error::BadAnswer {
        action,
        status,
        what: secrets.message(what),
    };
    if response.status().is_redirection() {
        return Err(bad("a redirect, which is not followed"));
    }
    let body = body::read(response.body()).map_err(bad)?;
    let request_id = body.request_id.as_str();
    let request_id = request_id
        .map(|text| secrets.word(text))
        .filter(|text| !text.is_empty())
        .map(RequestId::new);
    let code = code(&body.code, &secrets).map_err(|what| bad(&what))?;

    match (response.status().is_success(), code, request_id) {
        (true, None, Some(request_id)) => Ok(ApiResponse {
            request_id,
            action,
            status,
            body,
            secrets,
        }),
        (true, None, None) => Err(bad("it names no RequestId")),
        (true, Some(code), _) => Err(bad(&format!(
            "a success that carries the error code {code}"
        ))),
        (false, None, _) => Err(bad("an error without a code")),
        (false, Some(code), request_id) => {
            let message = secrets.message(body.message.as_str().unwrap_or_default());
            let class = error_table::classify(action, status, &code, &message).class;
            let retry_after = retry_after(response.headers(), class);
            let access_denied_detail = access_denied_detail(&body, &secrets);
            Err(ApiError {
                action,
                status,
                code,
                message,
                request_id,
                access_denied_detail,
                retry_after,
                limit: limit(response.headers(), class),
            }
            .into())
        }
    }
}

/// The missing permission, as `key=value` pairs. Without `EncodedDiagnosticMessage`, which only the vendor can decode.
fn access_denied_detail(body: &Body, secrets: &Secrets) -> Option<Box<str>> {
    let detail = body.access_denied_detail.iter();
    let pairs: Vec<String> = detail
        .filter(|(key, _)| *key != "EncodedDiagnosticMessage")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!pairs.is_empty()).then(|| secrets.message(&pairs.join(", ")).into())
}

/// The error code, if there is one. A code that needs sanitizing is rejected: a code can cause a finalizer to be removed.
fn code(said: &Text, secrets: &Secrets) -> Result<Option<String>, String> {
    match said {
        Text::Absent => Ok(None),
        Text::Is(text) => {
            let code = secrets.word(text);
            if code == *text {
                Ok(Some(code))
            } else {
                Err(format!("its error code is none: {code}"))
            }
        }
        Text::Other => Err("its error code is not a text".to_owned()),
    }
}

impl ApiResponse {
    /// What was read of the answer.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// A required text; `name` is its field.
    pub fn required<'a>(&self, text: &'a Text, name: &str) -> Result<&'a str, Error> {
        let text = text.as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| self.bad(&format!("{name} is missing or not a text")))
    }

    /// The rows of a list, which the field `name` names; `None` is one that cannot be read.
    pub fn rows<'a, Row>(
        &self,
        rows: &'a Rows<Row>,
        name: &str,
    ) -> Result<&'a [Option<Row>], Error> {
        match rows {
            Rows::Listed(rows) => Ok(rows),
            Rows::Absent => Err(self.bad(&format!("{name} is missing or not a list"))),
            Rows::TooMany => Err(self.bad("it has more rows than were asked for")),
        }
    }

    /// Whether a text of a row is one short word that can be shown unchanged: no secret, no control characters.
    pub fn is_word(&self, text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii_graphic()) && self.word(text) == *text
    }

    /// A text of the body, sanitized to one short line.
    pub fn word(&self, text: &str) -> String {
        self.secrets.word(text)
    }

    /// An error for one unreadable row of an otherwise good answer.
    pub fn bad_row(&self, what: &str) -> Error {
        Error::BadRow {
            action: self.action,
            what: what.to_owned(),
        }
    }

    /// An error for the answer as a whole.
    pub fn bad(&self, what: &str) -> Error {
        Error::BadAnswer {
            action: self.action,
            status: self.status,
            what: what.to_owned(),
        }
    }
}

/// The wait that the answer asks for. `x-acs-retry-after` (milliseconds) counts for every error. The rate-limit headers,
/// which name the rest of the window, count for a throttle only: the vendor's SDKs read them for throttles, and no source
/// documents them elsewhere (nor that a success carries them, so the limiter learns nothing from one).
fn retry_after(headers: &HeaderMap, class: Class) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = text("x-acs-retry-after").and_then(milliseconds);
    let rest = || {
        ["x-ratelimit-user-api", "x-ratelimit-user"]
            .into_iter()
            .filter_map(text)
            .filter_map(|value| {
                value
                    .split(',')
                    .find_map(|part| part.trim().strip_prefix("TimeLeft:"))
            })
            .filter_map(milliseconds)
            .max()
    };
    match class {
        Class::Throttled => asked.or_else(rest),
        Class::Done
        | Class::Transitional
        | Class::Transient
        | Class::Absent
        | Class::Blocked
        | Class::Invalid => asked,
    }
}

/// The limit in `x-ratelimit-user-api: Limit:600,Remain:0,TimeLeft:2000,Reset:1234`, with a throttle only.
fn limit(headers: &HeaderMap, class: Class) -> Option<u32> {
    if class != Class::Throttled {
        return None;
    }
    let text = headers.get("x-ratelimit-user-api")?.to_str().ok()?;
    text.split(',')
        .find_map(|part| part.trim().strip_prefix("Limit:"))?
        .trim()
        .parse()
        .ok()
}

/// Durations above one hour are implausible for one-minute windows and ignored.
fn milliseconds(text: &str) -> Option<Duration> {
    text.trim()
        .parse()
        .ok()
        .filter(|n| (1..=3_600_000).contains(n))
        .map(Duration::from_millis)
}
