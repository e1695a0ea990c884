//! What the metadata service of an instance is set to: its role, its faults, the tokens and keys that it gave out. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::AccessKey;
use super::settings::optional_duration;

/// The metadata service of the one instance that it plays.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub(super) role: Option<String>,
    pub(super) requires_token: bool,
    pub(super) fault: Option<MetadataFault>,
    pub(super) session: Option<Duration>,
    pub(super) tokens: Vec<(String, Timestamp)>,
    pub(super) key: Option<AccessKey>,
}

/// Changes the metadata service; absent fields are reset.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetadataChange {
    /// Name of the role of the instance. Absent: it has none.
    pub role: Option<String>,
    /// Whether it answers only with a token (hardened mode only).
    #[serde(default)]
    pub requires_token: bool,
    /// What it does instead of an answer.
    pub fault: Option<MetadataFault>,
    /// How long its keys live; 6 hours by default.
    #[serde(default, deserialize_with = "optional_duration")]
    pub session_duration: Option<Duration>,
}

/// What a broken metadata service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetadataFault {
    /// It takes the connection and never answers.
    Hang,
    /// It answers 200 and a page in HTML, as a captive proxy does.
    Html,
    /// It answers 500.
    Error,
    /// It knows no tokens: the PUT is answered with 404 (v1 only).
    NoTokens,
}

impl MetadataChange {
    /// Applies the change. Tokens and keys that were given out stay valid.
    pub(super) fn apply(self, metadata: &mut Metadata) {
        let Self {
            role,
            requires_token,
            fault,
            session_duration,
        } = self;
        *metadata = Metadata {
            role,
            requires_token,
            fault,
            session: session_duration,
            tokens: std::mem::take(&mut metadata.tokens),
            key: None,
        };
    }
}
