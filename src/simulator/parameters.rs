//! The decoded parameters of one call: pure. Parses each in the vendor's documented form, and knows which of them the call has
//! asked for.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::error::{self, ErrorResponse};

/// Names and values from query and form, in their order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    /// For each pair, whether the call has asked for it.
    read: Vec<Cell<bool>>,
}

impl Parameters {
    /// Wraps decoded pairs.
    #[must_use]
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        let read = vec![Cell::new(false); pairs.len()];
        Self { pairs, read }
    }

    /// All pairs.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The names that nothing has read so far, each once, with N for numbers (`Filter.N.Key`). Without those that the gateway
    /// reads, and those that the vendor ignores too.
    #[must_use]
    pub fn unread(&self) -> BTreeSet<String> {
        let numbers_as_n = |name: &str| {
            let parts = name.split('.').map(|part| match part.parse::<u32>() {
                Ok(_) => "N",
                Err(_) => part,
            });
            parts.collect::<Vec<_>>().join(".")
        };
        let pairs = self.pairs.iter().zip(&self.read);
        pairs
            .filter(|((name, value), read)| {
                !read.get() && !value.is_empty() && !COMMON.contains(&name.as_str())
            })
            .map(|((name, _), _)| numbers_as_n(name))
            .collect()
    }

    /// One value; an empty text counts as absent.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        self.read.get(at)?.set(true);
        self.peek(name)
    }

    /// [`Self::text`] for those who do not act on the value: it stays unread.
    #[must_use]
    pub fn peek(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The instance or interface that the call names. It stays unread.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.peek("InstanceId")
            .or_else(|| self.peek("NetworkInterfaceId"))
    }

    /// A non-negative number.
    ///
    /// # Errors
    /// `InvalidParameter`.
    pub fn number(&self, name: &str) -> Result<Option<usize>, ErrorResponse> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| error::invalid_parameter(name)))
            .transpose()
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// `InvalidParameter`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ErrorResponse> {
        self.text(name)
            .map(|text| {
                text.to_ascii_lowercase()
                    .parse()
                    .map_err(|_| error::invalid_parameter(name))
            })
            .transpose()
    }

    /// A JSON array of up to 100 texts, such as `InstanceIds`.
    ///
    /// # Errors
    /// `InvalidParameter`.
    pub fn json_list(&self, name: &str) -> Result<Option<Vec<String>>, ErrorResponse> {
        self.text(name)
            .map(|text| {
                serde_json::from_str::<Vec<String>>(text)
                    .ok()
                    .filter(|list| list.len() <= 100)
                    .ok_or_else(|| error::invalid_parameter(name))
            })
            .transpose()
    }

    /// `Name.1`, `Name.2`, …
    ///
    /// # Errors
    /// `InvalidParameter` beyond `most`.
    pub fn repeated(&self, name: &str, most: usize) -> Result<Vec<String>, ErrorResponse> {
        let mut found: Vec<(usize, &str)> = self
            .pairs
            .iter()
            .zip(&self.read)
            .filter_map(|((key, value), read)| {
                let number = key.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
                read.set(true);
                Some((number, value.as_str()))
            })
            .filter(|(_, value)| !value.is_empty())
            .collect();
        found.sort_unstable();
        if found.len() > most {
            return Err(error::invalid_parameter(name));
        }
        Ok(found
            .into_iter()
            .map(|(_, value)| value.to_owned())
            .collect())
    }

    /// `Tag.N.Key` and `Tag.N.Value`, with N from 1 to 20.
    ///
    /// # Errors
    /// `InvalidTagCount`, and `InvalidTag.Mismatch` for a value without a key.
    pub fn tags(&self) -> Result<Vec<(&str, Option<&str>)>, ErrorResponse> {
        let numbers: BTreeSet<usize> = self
            .pairs
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("Tag.")?.split_once('.')?.0.parse().ok())
            .collect();
        if numbers.iter().any(|number| !(1..=20).contains(number)) {
            return Err(error::TAG_COUNT.into());
        }
        numbers
            .into_iter()
            .map(|number| {
                let key = self
                    .text(&format!("Tag.{number}.Key"))
                    .ok_or(error::TAG_MISMATCH)?;
                Ok((key, self.text(&format!("Tag.{number}.Value"))))
            })
            .collect()
    }
}

/// The gateway's parameters, which version 3 has as headers instead; `RegionId`, which the vendor's tools add to every call; and
/// the names of owners from before RAM.
const COMMON: &[&str] = &[
    "AccessKeyId",
    "Action",
    "Format",
    "RegionId",
    "SecurityToken",
    "Signature",
    "SignatureMethod",
    "SignatureNonce",
    "SignatureType",
    "SignatureVersion",
    "Timestamp",
    "Version",
    "OwnerAccount",
    "OwnerId",
    "ResourceOwnerAccount",
    "ResourceOwnerId",
];

/// Whether a text is the prefix followed by letters or digits.
#[must_use]
pub fn well_formed(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}
