//! An access key, parsed once: never printed, zeroized on drop. Reads nothing.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

/// An access key and, if it is temporary, its STS token. Cheap enough to clone. Every copy is zeroized on drop, and so are
/// the texts made from it to sign a call (not the copies in the buffers of HTTP and TLS).
#[derive(Clone)]
pub struct Credential {
    access_key_id: String,
    access_key_secret: SecretString,
    security_token: Option<SecretString>,
}

impl Credential {
    /// Parses the three values of a Secret. A line break at the end is taken off: `echo … | base64` puts one there, and the cloud
    /// would answer it with a signature error that does not name the cause.
    ///
    /// # Errors
    /// A value that no access key can have.
    pub fn new(
        access_key_id: impl Into<String>,
        access_key_secret: impl Into<SecretString>,
        security_token: Option<SecretString>,
    ) -> Result<Self, CredentialError> {
        let access_key_id = access_key_id.into();
        let access_key_id = without_line_break(&access_key_id).to_owned();
        let access_key_secret = trimmed(access_key_secret.into());
        let security_token = security_token.map(trimmed);
        check(CredentialValue::AccessKeyId, &access_key_id)?;
        check(
            CredentialValue::AccessKeySecret,
            access_key_secret.expose_secret(),
        )?;
        if let Some(token) = &security_token {
            check(CredentialValue::SecurityToken, token.expose_secret())?;
        }
        Ok(Self {
            access_key_id,
            access_key_secret,
            security_token,
        })
    }

    /// The access key ID. Not secret, but keep it out of metrics.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Tells this key from another one, and does not tell the key.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let values = [self.access_key_id(), self.access_key_secret()];
        for value in values.into_iter().chain(self.security_token()) {
            // No value has a line break.
            digest.update(value);
            digest.update("\n");
        }
        hex::encode(digest.finalize())
    }

    pub(super) fn access_key_secret(&self) -> &str {
        self.access_key_secret.expose_secret()
    }

    pub(super) fn security_token(&self) -> Option<&str> {
        self.security_token
            .as_ref()
            .map(ExposeSecret::expose_secret)
    }
}

/// Shows only the start of the access key ID: users do swap ID and secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.access_key_id.chars().take(4).collect();
        f.debug_struct("Credential")
            .field("access_key_id", &format_args!("{start}…"))
            .field("access_key_secret", &format_args!("[redacted]"))
            .field(
                "security_token",
                &self
                    .security_token
                    .as_ref()
                    .map(|_| format_args!("[redacted]")),
            )
            .finish()
    }
}

/// The rejected value; displayed as its key in the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialValue {
    /// `accessKeyID`
    AccessKeyId,
    /// `accessKeySecret`
    AccessKeySecret,
    /// `securityToken`
    SecurityToken,
}

impl fmt::Display for CredentialValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessKeyId => "accessKeyID",
            Self::AccessKeySecret => "accessKeySecret",
            Self::SecurityToken => "securityToken",
        })
    }
}

/// Why a value cannot be part of an access key, and the fix. Never contains the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The value is empty.
    #[error("{0} is empty: store the value, or leave the key out if it is an optional one")]
    Empty(CredentialValue),
    /// Blanks, quotes from a pasted line, control characters, non-ASCII letters.
    #[error(
        "{0} holds a blank, a control character or a letter outside ASCII: store exactly the characters that the console showed"
    )]
    ForeignCharacter(CredentialValue),
    /// Too long for any key.
    #[error("{value} is longer than {limit} bytes: store one value under each key")]
    TooLong {
        /// The rejected value.
        value: CredentialValue,
        /// Limit in bytes.
        limit: usize,
    },
}

fn without_line_break(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

fn trimmed(secret: SecretString) -> SecretString {
    let text = secret.expose_secret();
    let kept = without_line_break(text);
    if kept.len() == text.len() {
        return secret;
    }
    kept.into()
}

fn check(value: CredentialValue, text: &str) -> Result<(), CredentialError> {
    let limit = match value {
        CredentialValue::AccessKeyId | CredentialValue::AccessKeySecret => 256,
        // The vendor documents no limit for tokens; a Secret holds at most 1 MiB.
        CredentialValue::SecurityToken => 64 * 1024,
    };
    if text.is_empty() {
        Err(CredentialError::Empty(value))
    } else if text.len() > limit {
        Err(CredentialError::TooLong { value, limit })
    } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(CredentialError::ForeignCharacter(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "canary-secret";
    const TOKEN: &str = "canary-token";

    #[test]
    fn debug_of_a_credential_shows_no_secret() {
        let credential = Credential::new("LTAI-canary-id", SECRET, Some(TOKEN.into())).unwrap();
        for text in [
            format!("{credential:?}"),
            format!("{credential:#?}"),
            format!("{:?}", Some(&credential)),
        ] {
            assert!(!text.contains("canary"), "{text}");
            assert!(
                text.contains("LTAI…") && text.contains("[redacted]"),
                "{text}"
            );
        }
    }

    #[test]
    fn line_break_at_the_end_is_taken_off() {
        let token = Some("token\n".into());
        let credential = Credential::new("LTAI\n", "secret\r\n", token).unwrap();
        assert_eq!(credential.access_key_id(), "LTAI");
        assert_eq!(credential.access_key_secret(), "secret");
        assert_eq!(credential.security_token(), Some("token"));
        let error = Credential::new("LTAI", "sec\nret", None).unwrap_err();
        assert!(error.to_string().contains("accessKeySecret holds a blank"));
        assert!(Credential::new("LTAI", "\n", None).is_err());
    }

    #[test]
    fn invalid_credential_names_field_and_fix_not_the_value() {
        let new = |id: &str, secret: &str, token: Option<&str>| {
            Credential::new(id, secret, token.map(SecretString::from)).unwrap_err()
        };
        let long = "x".repeat(300);
        for (error, value, fix) in [
            (new("", SECRET, None), "accessKeyID", "store the value"),
            (new("LTAI", "", None), "accessKeySecret", "store the value"),
            (
                new("LTAI", SECRET, Some("")),
                "securityToken",
                "leave the key out",
            ),
            (
                new("LTAI", "canary canary", None),
                "accessKeySecret",
                "exactly the characters",
            ),
            (
                new("LTAI", " canary", None),
                "accessKeySecret",
                "exactly the characters",
            ),
            (
                new("LTAI", "canary\u{0}", None),
                "accessKeySecret",
                "exactly the characters",
            ),
            (
                new("LTAI", "canary密", None),
                "accessKeySecret",
                "exactly the characters",
            ),
            (
                new("LTAI", &long, None),
                "accessKeySecret",
                "one value under each key",
            ),
        ] {
            let text = error.to_string();
            assert!(text.starts_with(value) && text.contains(fix), "{text}");
            assert!(!format!("{text} {error:?}").contains("canary"), "{text}");
        }
    }
}
