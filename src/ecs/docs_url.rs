//! Links to the page of the error codes in `docs/`. Pure.

use url::Url;

use super::class::Class;
use super::error::Error;

/// Where the book of `docs/` is served, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocsUrl(String);

impl DocsUrl {
    /// Parses the value of `--docs-url`.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{error}; write https://HOST/PATH"))?;
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if text.len() > LIMIT || !is_plain {
            return Err(format!(
                "must be http:// or https://, without user, query and fragment, of at most {LIMIT} bytes"
            ));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The end of a message about an error of this class: the address of the code's heading. Empty for an error that ends by itself and
    /// for a code that the page does not have.
    #[must_use]
    pub fn end_for(&self, error: &Error, class: Class) -> String {
        let code = error.code().and(error.classify().code);
        match (code, class) {
            (Some(code), Class::Absent | Class::Blocked | Class::Invalid) => {
                self.end_for_code(code)
            }
            (
                _,
                Class::Absent
                | Class::Blocked
                | Class::Invalid
                | Class::Done
                | Class::Transitional
                | Class::Transient
                | Class::Throttled,
            ) => String::new(),
        }
    }

    /// The same for a code of the table.
    #[must_use]
    pub fn end_for_code(&self, code: &str) -> String {
        format!("; see {}/reference/errors.html#{}", self.0, anchor(code))
    }

    /// The same for a reason of the operator.
    #[must_use]
    pub fn end_for_reason(&self, reason: &str) -> String {
        format!("; see {}/reference/reasons.html#{}", self.0, anchor(reason))
    }
}

/// Longest address in bytes. With the rest of a message it stays readable.
const LIMIT: usize = 200;

/// The anchor of a heading that is this code or reason, as mdBook and GitHub make it.
#[must_use]
pub fn anchor(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::{Action, ApiError};

    #[test]
    fn only_plain_addresses_are_accepted() {
        let parsed = DocsUrl::parse("https://docs.example.com/sgo/").unwrap();
        assert_eq!(parsed, DocsUrl("https://docs.example.com/sgo".to_owned()));
        for wrong in [
            "",
            "docs.example.com",
            "ftp://docs.example.com",
            "https://user@docs.example.com",
            "https://docs.example.com/?a=b",
            "https://docs.example.com/#a",
            &format!("https://docs.example.com/{}", "a".repeat(LIMIT)),
        ] {
            assert!(DocsUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn message_ends_with_a_link_where_a_human_must_act() {
        let docs = DocsUrl::parse("https://docs.example.com").unwrap();
        let end = |code| {
            let error = Error::Api(ApiError::foreseen(Action::JoinSecurityGroup, code));
            docs.end_for(&error, error.class())
        };
        for (code, anchor) in [
            ("InvalidInstanceId.Mismatch", "invalidinstanceidmismatch"),
            ("InvalidEniId.NotFound", "invalideniidnotfound"),
            ("Forbidden.RAM", "forbiddenram"),
            ("MissingParameter.RegionId", "missingparameter"),
        ] {
            let expected = format!("; see https://docs.example.com/reference/errors.html#{anchor}");
            assert_eq!(end(code), expected);
        }
        for code in ["Throttling.User", "InternalError", "Never.Heard.Of"] {
            assert_eq!(end(code), "", "{code}");
        }
    }
}
