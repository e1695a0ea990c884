//! Regions and IDs, parsed once: pure. Every user text that becomes part of a host name or a query string is parsed here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::condition::truncate;

use super::action::Action;

/// Longest rejected text in an error, in bytes.
const TEXT_LIMIT: usize = 80;

/// A text is not a valid ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: expected {expected}")]
pub struct ParseIdError {
    /// The start of the rejected text.
    pub text: String,
    /// The expected kind of ID, with its article.
    pub kind: &'static str,
    /// The expected shape.
    pub expected: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The ID as ECS spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(ParseIdError {
                        text: truncate(text, TEXT_LIMIT),
                        kind: $kind,
                        expected: $expected,
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A region, for example `cn-hangzhou`. The only user text that becomes part of a host name.
    Region, "a region", "lower-case words joined by dashes, such as cn-hangzhou", is_region
}
id! {
    /// An ECS instance, for example `i-bp1…`.
    InstanceId, "an instance ID", "i- and letters or digits", |text| is_id(text, "i-")
}
id! {
    /// An elastic network interface, for example `eni-bp1…`.
    NetworkInterfaceId, "a network interface ID", "eni- and letters or digits", |text| is_id(text, "eni-")
}
id! {
    /// A security group, for example `sg-bp1…`.
    SecurityGroupId, "a security group ID", "sg- and letters or digits", |text| is_id(text, "sg-")
}

/// UID of a cloud account, for example `1234567890123456`, as the cloud spells it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AccountUid(Arc<str>);

impl AccountUid {
    /// The UID that a claim names: 1 to 20 digits. `None` for anything else: a message repeats it, and users can write claims.
    #[must_use]
    pub fn of_claim(text: &str) -> Option<Self> {
        let is_uid =
            (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_uid.then(|| text.into())
    }

    /// The UID as the cloud spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AccountUid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for AccountUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cloud's ID of a call; the vendor's support asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The ID as the cloud wrote it, at most 128 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_region(text: &str) -> bool {
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default();
    text.len() <= 40
        && first.len() == 2
        && first.bytes().all(|byte| byte.is_ascii_lowercase())
        && text.contains('-')
        && words.all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.len() <= 64
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// The target of a membership: an instance (its primary interface) or one secondary interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The `InstanceId` form of Join and Leave.
    Instance(InstanceId),
    /// The `NetworkInterfaceId` form of Join and Leave.
    NetworkInterface(NetworkInterfaceId),
}

impl Target {
    /// The action that reads the target.
    #[must_use]
    pub const fn describe_action(&self) -> Action {
        match self {
            Self::Instance(_) => Action::DescribeInstances,
            Self::NetworkInterface(_) => Action::DescribeNetworkInterfaces,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
            Self::NetworkInterface(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_names_a_uid_of_digits_or_none() {
        for text in ["1", "1234567890123456", "12345678901234567890"] {
            assert_eq!(AccountUid::of_claim(text), Some(text.into()), "{text}");
        }
        let escape = "1\u{1b}[2J";
        let right_to_left = "1\u{202e}2";
        for text in [
            "",
            "123456789012345678901",
            "1\n2",
            " 1",
            "-1",
            "a",
            "\u{0661}",
            escape,
            right_to_left,
        ] {
            assert_eq!(AccountUid::of_claim(text), None, "{text:?}");
        }
    }

    #[test]
    fn long_rejected_text_is_truncated() {
        let error = "節".repeat(100).parse::<Region>().unwrap_err();
        assert!(
            error.text.len() <= 80 && error.text.ends_with("節…"),
            "{error}"
        );
    }

    #[test]
    fn injection_in_regions_and_ids_is_rejected() {
        for text in [
            "",
            "cn",
            "cn-",
            "-cn",
            "cn-hangzhou.evil.com",
            "cn-hangzhou/",
            "a@b",
            "cn-hang zhou",
            "cn-%0d%0a",
            "cn-hangzhou&Action=DeleteInstance",
            "CN-hangzhou",
            "cn--x",
            "cn-節点",
            "cn-hangzhou\n",
        ] {
            assert!(text.parse::<Region>().is_err(), "{text:?}");
        }
        let long = format!("cn-{}", "a".repeat(65_536));
        assert!(long.parse::<Region>().is_err());
        for text in [
            "",
            "i-",
            "sg-1",
            "i-1&Action=DeleteInstance",
            "i-1\"]",
            "i-\u{202e}1",
            "i-1\n",
            " i-1",
        ] {
            assert!(text.parse::<InstanceId>().is_err(), "{text:?}");
        }
        assert!(
            format!("i-{}", "a".repeat(65_536))
                .parse::<InstanceId>()
                .is_err()
        );
    }

    #[test]
    fn vendor_region_names_parse() {
        for text in [
            "cn-hangzhou",
            "cn-north-2-gov-1",
            "cn-zhangjiakou-na62-a01",
            "ap-southeast-1",
            "me-central-1",
        ] {
            assert_eq!(
                text.parse::<Region>().map(String::from).as_deref(),
                Ok(text)
            );
        }
    }
}
