//! Reports requests to the API server that failed: in the log once, and for the status if the API server refused a write. Writes
//! nothing else.

use tracing::{debug, warn};

use crate::condition::truncate;
use crate::kubernetes::{self, LogDeduper};

use super::act::{ActError, ApiRequest};
use super::status::{Refusal, Refused};

impl Refusal {
    /// The refusal behind an error; `None` if the error is none, or the status tells it in another way.
    ///
    /// An admission policy, a quota and a missing right are answered with 4xx. An admission webhook that is down is answered with
    /// 500, as are short troubles of the API server: those count when they come again (`is_failing`).
    #[must_use]
    pub fn of(error: &ActError, is_failing: bool) -> Option<Self> {
        let (what, source) = match error {
            ActError::Kubernetes { what, source } => (*what, source),
            ActError::RecordNotStored => {
                return Some(Self {
                    what: Refused::Record,
                    sentence: error.to_string(),
                });
            }
            ActError::ObjectGone | ActError::Changed | ActError::Stopping => return None,
        };
        let is_told = match source.code() {
            // Deleted, changed meanwhile, overloaded: it passes.
            Some(404 | 409 | 429) => false,
            Some(400..=499) => true,
            Some(500) => is_failing,
            Some(_) | None => false,
        };
        let (what, is_shown) = match what {
            ApiRequest::Claim => (Refused::Claim, true),
            ApiRequest::Finalizer => (Refused::Finalizer, true),
            ApiRequest::Successor { same_namespace } => (Refused::Successor, same_namespace),
            ApiRequest::Status | ApiRequest::Read => return None,
        };
        is_told.then(|| Self {
            what,
            sentence: if is_shown {
                sentence(source)
            } else {
                // Users of this namespace need not know of another one's objects and policies.
                format!(
                    "HTTP {}, in another namespace",
                    source.code().unwrap_or_default()
                )
            },
        })
    }
}

/// Longest sentence of the API server in a status or in the log, in bytes.
const SENTENCE_LIMIT: usize = 256;

/// What the API server answered, as one line that is fit to be shown: without what the URL of a webhook may hold.
fn sentence(error: &kubernetes::Error) -> String {
    let text = error.to_string();
    let words = text
        .split(|letter: char| letter.is_whitespace() || letter.is_control())
        .filter(|word| !word.is_empty())
        .map(without_secrets);
    let line = words.collect::<Vec<_>>().join(" ");
    truncate(line.trim_end_matches('.'), SENTENCE_LIMIT)
}

/// A word, or a URL in it without user information and query.
fn without_secrets(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let (rest, end) = match rest.find(['?', '"']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let end = end
        .find('"')
        .and_then(|at| end.get(at..))
        .unwrap_or_default();
    format!("{scheme}://{host}{path}{end}")
}

/// Logs why a pass failed: at WARN once per cause, otherwise at DEBUG. `retry_seconds` is the time until the next try, if it is
/// known.
pub(super) fn log_failure(
    error: &ActError,
    namespace: &str,
    name: &str,
    retry_seconds: Option<u64>,
    logged: &LogDeduper,
) {
    let (what, code, text) = match error {
        ActError::Kubernetes { what, source } => {
            let what = what.to_string();
            let text = format!("{what}: {}", sentence(source));
            (what, source.code(), text)
        }
        ActError::RecordNotStored
        | ActError::ObjectGone
        | ActError::Changed
        | ActError::Stopping => (error.to_string(), None, error.to_string()),
    };
    let cause = match code {
        // A missing right or too many requests: one cause for all objects.
        Some(403 | 429) => format!("{what} {code:?}"),
        Some(400..=499) => format!("{what} {code:?} {namespace}/{name}"),
        Some(_) | None => format!("{what} {code:?}"),
    };
    if logged.is_first(&cause) {
        warn!(namespace, name, code, retry_seconds, "{text}");
    } else {
        debug!(namespace, name, code, retry_seconds, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, text: &str) -> kubernetes::Error {
        kube::Error::Api(Box::new(
            kube::core::Status::failure(text, "").with_code(code),
        ))
        .into()
    }

    fn failed(what: ApiRequest, code: u16, text: &str) -> ActError {
        let source = answered(code, text);
        ActError::Kubernetes { what, source }
    }

    #[test]
    fn only_refused_writes_are_told() {
        let of = |code, is_failing| Refusal::of(&failed(ApiRequest::Claim, code, "no"), is_failing);
        for code in [400, 401, 403, 405, 413, 422] {
            let refusal = Some(Refusal {
                what: Refused::Claim,
                sentence: "no".to_owned(),
            });
            assert_eq!(of(code, false), refusal, "{code}");
        }
        for code in [404, 409, 429, 503, 504] {
            assert_eq!(of(code, true), None, "{code}");
        }
        assert_eq!(of(500, false), None, "it may pass");
        assert!(of(500, true).is_some(), "a webhook is down");
        for what in [ApiRequest::Status, ApiRequest::Read] {
            assert_eq!(Refusal::of(&failed(what, 403, "no"), true), None);
        }
        for error in [ActError::Changed, ActError::ObjectGone, ActError::Stopping] {
            assert_eq!(Refusal::of(&error, true), None);
        }
    }

    #[test]
    fn sentence_about_another_namespace_is_not_shown() {
        let told = |same_namespace| {
            let what = ApiRequest::Successor { same_namespace };
            Refusal::of(&failed(what, 403, "theirs/secret-plan is forbidden"), false)
                .unwrap()
                .sentence
        };
        assert_eq!(told(true), "theirs/secret-plan is forbidden");
        assert_eq!(told(false), "HTTP 403, in another namespace");
    }

    #[test]
    fn sentence_is_one_short_line_without_what_a_url_may_hold() {
        for (text, shown) in [
            ("denied:\n\n  needs\ta label.", "denied: needs a label"),
            ("a\u{1b}[31mb\u{0}c", "a [31mb c"),
            (
                r#"calling webhook "w": Post "https://user:pw@w.team.svc:443/check?token=abc&timeout=10s": EOF"#,
                r#"calling webhook "w": Post "https://w.team.svc:443/check": EOF"#,
            ),
            ("see https://example.com?a=b", "see https://example.com"),
        ] {
            assert_eq!(sentence(&answered(500, text)), shown);
        }
        let long = sentence(&answered(422, &"節".repeat(2_000)));
        assert!(long.len() <= SENTENCE_LIMIT && long.ends_with('…'));
    }

    #[test]
    fn failed_pass_is_logged_once_per_cause() {
        // Objects a, b, a, a fail for this cause.
        for (source, warned) in [
            (Some(403), ["a"].as_slice()),
            (Some(429), &["a"]),
            (Some(500), &["a"]),
            (None, &["a"]),
            // The object's own.
            (Some(422), &["a", "b"]),
        ] {
            let (log, _guard) = crate::telemetry::TestLog::start();
            let logged = LogDeduper::default();
            for (name, wait) in [("a", 1), ("b", 1), ("a", 2), ("a", 4)] {
                let error = ActError::Kubernetes {
                    what: ApiRequest::Status,
                    source: source.map_or(
                        kubernetes::Error::Timeout {
                            after: kubernetes::DEADLINE,
                        },
                        |code| answered(code, "no"),
                    ),
                };
                log_failure(&error, "team", name, Some(wait), &logged);
            }
            let mut lines = log.lines();
            assert_eq!(lines.len(), 4);
            lines.retain(|line| line["level"] == "WARN");
            let names: Vec<_> = lines
                .iter()
                .map(|line| line["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, warned, "{source:?}");
            let line = &lines[0];
            let message = line["message"].as_str().unwrap();
            assert!(
                message.starts_with("the status could not be written: "),
                "{line}"
            );
            assert_eq!(line["code"].as_u64(), source.map(u64::from));
            assert_eq!(
                (&line["namespace"], &line["retry_seconds"]),
                (&"team".into(), &1.into())
            );
        }
    }
}
