//! Paging of the Describe calls: by token and by number, with the vendor's limits. Pure.
//!
//! A token names the ID after which the next page starts, so rows that appear or disappear between two pages neither hide
//! others nor appear twice.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::cloud::Id;
use super::error::{self, ErrorResponse};
use super::parameters::Parameters;

/// The page of the matching rows to return.
pub enum Page {
    /// `counted`: the answer has the number of all matches, for the call asks for no page. The vendor calls the number meaningless
    /// under `MaxResults` or `NextToken`.
    Token {
        after: Option<String>,
        size: usize,
        counted: bool,
    },
    Numbered {
        number: usize,
        size: usize,
    },
}

pub struct Found<'a, T> {
    pub rows: Vec<&'a T>,
    total: usize,
    /// The token of the next page.
    pub next: Option<String>,
    number: usize,
    size: usize,
}

impl Page {
    pub fn parse(
        parameters: &Parameters,
        max_results: usize,
        max_size: usize,
    ) -> Result<Self, ErrorResponse> {
        let token = parameters.text("NextToken");
        let asked = parameters.number("MaxResults")?;
        if token.is_none()
            && asked.is_none()
            && (parameters.text("PageNumber").is_some() || parameters.text("PageSize").is_some())
        {
            return Self::parse_numbered(parameters, max_size);
        }
        Ok(Self::Token {
            counted: token.is_none() && asked.is_none(),
            after: token.map(after).transpose()?,
            size: asked.unwrap_or(10).clamp(10, max_results),
        })
    }

    /// The page after `NextToken`, of a size that the call does not choose.
    pub fn after_token(parameters: &Parameters, size: usize) -> Result<Self, ErrorResponse> {
        Ok(Self::Token {
            counted: false,
            after: parameters.text("NextToken").map(after).transpose()?,
            size,
        })
    }

    pub fn parse_numbered(parameters: &Parameters, max_size: usize) -> Result<Self, ErrorResponse> {
        let number = parameters.number("PageNumber")?.unwrap_or(1);
        let size = parameters.number("PageSize")?.unwrap_or(10);
        if number == 0 {
            return Err(error::invalid_parameter("PageNumber"));
        }
        if size == 0 || size > max_size {
            return Err(error::invalid_parameter("PageSize"));
        }
        Ok(Self::Numbered { number, size })
    }

    pub fn take<'a, T>(
        &self,
        all: &'a BTreeMap<Id, T>,
        candidates: Option<Vec<Id>>,
        wanted: impl Fn(&&'a T) -> bool,
    ) -> Found<'a, T> {
        let after = if let Self::Token { after, .. } = self {
            after.as_deref()
        } else {
            None
        };
        if let Some(mut ids) = candidates {
            ids.sort_unstable();
            ids.dedup();
            let rows = ids
                .iter()
                .filter(|id| after.is_none_or(|after| ***id > *after))
                .filter_map(|id| all.get_key_value(id))
                .filter(|(_, row)| wanted(row));
            self.cut(rows)
        } else {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = all.range::<str, _>((start, Bound::Unbounded));
            self.cut(rows.filter(|(_, row)| wanted(row)))
        }
    }

    fn cut<'a, T>(&self, mut matching: impl Iterator<Item = (&'a Id, &'a T)>) -> Found<'a, T> {
        match *self {
            Self::Token { size, counted, .. } => {
                let page: Vec<(&Id, &T)> = matching.by_ref().take(size).collect();
                let more = matching.next().is_some();
                let next = page
                    .last()
                    .filter(|_| more)
                    .map(|(id, _)| URL_SAFE_NO_PAD.encode(format!("{TOKEN}{id}")));
                let rows: Vec<&T> = page.into_iter().map(|(_, row)| row).collect();
                let left = if counted {
                    usize::from(more) + matching.count()
                } else {
                    0
                };
                Found {
                    total: rows.len() + left,
                    rows,
                    next,
                    number: 1,
                    size,
                }
            }
            Self::Numbered { number, size } => {
                let all: Vec<&T> = matching.map(|(_, row)| row).collect();
                let total = all.len();
                let rows = all
                    .into_iter()
                    .skip((number - 1).saturating_mul(size))
                    .take(size)
                    .collect();
                Found {
                    rows,
                    total,
                    next: None,
                    number,
                    size,
                }
            }
        }
    }
}

/// The ID that a token names.
fn after(token: &str) -> Result<String, ErrorResponse> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix(TOKEN).map(str::to_owned))
        .ok_or_else(|| error::invalid_parameter("NextToken"))
}

const TOKEN: &str = "after:";

impl<T> Found<'_, T> {
    pub fn envelope(&self, list: &str, item: &str, rows: Vec<Value>) -> Value {
        let mut fields = Map::new();
        // Not with `json!`, which would copy the rows.
        let rows = Map::from_iter([(item.to_owned(), Value::Array(rows))]);
        fields.insert(list.to_owned(), Value::Object(rows));
        let next = self.next.as_deref().unwrap_or_default();
        for (name, value) in [
            ("TotalCount", json!(self.total)),
            ("PageNumber", json!(self.number)),
            ("PageSize", json!(self.size)),
            ("NextToken", json!(next)),
        ] {
            fields.insert(name.to_owned(), value);
        }
        Value::Object(fields)
    }
}
