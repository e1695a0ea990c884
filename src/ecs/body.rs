//! The JSON of an answer as types: what the operator reads of it. Everything else is skipped, so an answer of 16 MiB takes little
//! more memory than its bytes. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::action::MAX_IDS_PER_CALL;
use super::row::{InstanceRow, NetworkInterfaceRow, SecurityGroupRow};

/// What the operator reads of an answer.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// ID of the call.
    pub request_id: Text,
    /// The error code.
    pub code: Text,
    /// The sentence of an error.
    pub message: Text,
    /// The missing permission: its fields that are texts.
    pub access_denied_detail: BTreeMap<String, String>,
    /// Where the next page begins.
    pub next_token: Text,
    /// UID of the cloud account.
    pub account_id: Text,
    /// ARN of the caller.
    pub arn: Text,
    /// The rows of `DescribeInstances`.
    pub instances: Rows<InstanceRow>,
    /// The rows of `DescribeNetworkInterfaces`.
    pub network_interfaces: Rows<NetworkInterfaceRow>,
    /// The rows of `DescribeSecurityGroups`.
    pub security_groups: Rows<SecurityGroupRow>,
}

/// A field that should be a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Text {
    /// There is none, or it is null.
    #[default]
    Absent,
    /// A text.
    Is(String),
    /// Something else.
    Other,
}

impl Text {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Is(text) => Some(text),
            Self::Absent | Self::Other => None,
        }
    }
}

/// The rows of a Describe action.
#[derive(Debug, Default)]
pub(super) enum Rows<Row> {
    /// There is no list of rows.
    #[default]
    Absent,
    /// More than a call asks for ([`MAX_IDS_PER_CALL`]).
    TooMany,
    /// The rows; `None` is one with a missing field or a wrong type.
    Listed(Vec<Option<Row>>),
}

/// Reads the bytes of an answer. A field of a wrong type spoils nothing but itself, and a bad row none of the others.
///
/// # Errors
/// What the bytes are instead.
pub(super) fn read(bytes: &[u8]) -> Result<Body, &'static str> {
    let start = bytes.trim_ascii_start();
    // Looks at each byte once, if every type is right.
    let strict: Result<Object<Typed<'_>>, _> = serde_json::from_slice(start);
    if let Ok(Object(fields)) = strict {
        return Ok(fields.read(InstanceList::rows, NetworkInterfaceList::rows));
    }
    let lenient: Result<Object<Untyped<'_>>, _> = serde_json::from_slice(start);
    match lenient {
        Ok(Object(fields)) => Ok(fields.read(
            |raw| one_by_one(raw, |list: InstanceList<_>| list.rows),
            |raw| one_by_one(raw, |list: NetworkInterfaceList<_>| list.rows),
        )),
        Err(_) if start.is_empty() => Err("it is empty"),
        Err(_) if start.starts_with(b"<") => Err("HTML or XML instead of JSON"),
        Err(error) if error.is_data() && start.starts_with(b"{") => {
            Err("JSON that names a field twice")
        }
        // Wrong at its first byte: the rest may be no JSON either.
        Err(error) if error.is_data() => match serde_json::from_slice::<IgnoredAny>(start) {
            Ok(_) => Err("JSON, but not an object"),
            Err(error) => Err(syntax(&error)),
        },
        Err(error) => Err(syntax(&error)),
    }
}

fn syntax(error: &serde_json::Error) -> &'static str {
    if error.is_eof() {
        "JSON that ends in the middle"
    } else {
        "it is not JSON"
    }
}

/// The fields with rows of the right types.
type Typed<'a> = Fields<
    'a,
    Object<InstanceList<Object<InstanceRow>>>,
    Object<NetworkInterfaceList<Object<NetworkInterfaceRow>>>,
>;
/// The fields with whatever stands in the place of the rows.
type Untyped<'a> = Fields<'a, &'a RawValue, &'a RawValue>;

/// The fields of an answer. Lower-case names too: the vendor's newer SDKs accept them, so some gateways must send them.
#[derive(Deserialize)]
#[serde(
    rename_all = "PascalCase",
    bound(deserialize = "I: Deserialize<'de>, N: Deserialize<'de>")
)]
struct Fields<'a, I, N> {
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    request_id_in_small: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow, rename = "code")]
    code_in_small: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "message")]
    message_in_small: Option<&'a RawValue>,
    #[serde(borrow)]
    access_denied_detail: Option<&'a RawValue>,
    #[serde(borrow)]
    next_token: Option<&'a RawValue>,
    #[serde(borrow)]
    account_id: Option<&'a RawValue>,
    #[serde(borrow)]
    arn: Option<&'a RawValue>,
    instances: Option<I>,
    network_interface_sets: Option<N>,
    #[serde(borrow)]
    security_groups: Option<&'a RawValue>,
}

impl<I, N> Fields<'_, I, N> {
    fn read(
        self,
        instances: impl FnOnce(I) -> Rows<InstanceRow>,
        network_interfaces: impl FnOnce(N) -> Rows<NetworkInterfaceRow>,
    ) -> Body {
        let codes = [self.code, self.code_in_small].map(text);
        let is_said = |code: &Text| *code != Text::Absent && code.as_str() != Some("");
        Body {
            request_id: text(self.request_id.or(self.request_id_in_small)),
            code: codes.into_iter().find(is_said).unwrap_or_default(),
            message: text(self.message.or(self.message_in_small)),
            access_denied_detail: texts(self.access_denied_detail),
            next_token: text(self.next_token),
            account_id: text(self.account_id),
            arn: text(self.arn),
            instances: self.instances.map_or(Rows::Absent, instances),
            network_interfaces: self
                .network_interface_sets
                .map_or(Rows::Absent, network_interfaces),
            security_groups: self.security_groups.map_or(Rows::Absent, |raw| {
                one_by_one(raw, |list: SecurityGroupList<_>| list.rows)
            }),
        }
    }
}

/// Longest text that is read, in bytes of JSON. None that the vendor documents comes near.
const LONGEST_TEXT: usize = 64 * 1024;

fn text(raw: Option<&RawValue>) -> Text {
    match raw.map(RawValue::get) {
        None => Text::Absent,
        Some(raw) if raw.len() > LONGEST_TEXT => Text::Other,
        Some(raw) => serde_json::from_str(raw).map_or(Text::Other, Text::Is),
    }
}

/// The fields of an object that are texts.
fn texts(raw: Option<&RawValue>) -> BTreeMap<String, String> {
    let raw = raw
        .map(RawValue::get)
        .filter(|raw| raw.len() <= LONGEST_TEXT);
    let fields: BTreeMap<String, Value> = raw
        .and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default();
    let texts = fields.into_iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    });
    texts.collect()
}

/// The object in which `DescribeInstances` nests its rows.
#[derive(Deserialize)]
struct InstanceList<Row> {
    #[serde(rename = "Instance")]
    rows: List<Row>,
}

/// The object in which `DescribeNetworkInterfaces` nests its rows.
#[derive(Deserialize)]
struct NetworkInterfaceList<Row> {
    #[serde(rename = "NetworkInterfaceSet")]
    rows: List<Row>,
}

/// The object in which `DescribeSecurityGroups` nests its rows.
#[derive(Deserialize)]
struct SecurityGroupList<Row> {
    #[serde(rename = "SecurityGroup")]
    rows: List<Row>,
}

impl<Row> InstanceList<Object<Row>> {
    fn rows(list: Object<Self>) -> Rows<Row> {
        list.0.rows.read(|Object(row)| Some(row))
    }
}

impl<Row> NetworkInterfaceList<Object<Row>> {
    fn rows(list: Object<Self>) -> Rows<Row> {
        list.0.rows.read(|Object(row)| Some(row))
    }
}

/// Reads each row alone.
fn one_by_one<'a, L: Deserialize<'a>, Row: Deserialize<'a>>(
    raw: &'a RawValue,
    rows: impl FnOnce(L) -> List<&'a RawValue>,
) -> Rows<Row> {
    let list: Result<Object<L>, _> = serde_json::from_str(raw.get());
    list.map_or(Rows::Absent, |Object(list)| {
        rows(list).read(|row| {
            let row: Result<Object<Row>, _> = serde_json::from_str(row.get());
            row.ok().map(|Object(row)| row)
        })
    })
}

/// A list of at most [`MAX_IDS_PER_CALL`] rows. The rest of a longer one is skipped.
enum List<Row> {
    Rows(Vec<Row>),
    TooLong,
}

impl<Row> List<Row> {
    fn read<To>(self, read: impl FnMut(Row) -> Option<To>) -> Rows<To> {
        match self {
            Self::Rows(rows) => Rows::Listed(rows.into_iter().map(read).collect()),
            Self::TooLong => Rows::TooMany,
        }
    }
}

impl<'de, Row: Deserialize<'de>> Deserialize<'de> for List<Row> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<Row>(PhantomData<Row>);

impl<'de, Row: Deserialize<'de>> Visitor<'de> for ListVisitor<Row> {
    type Value = List<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while rows.len() < MAX_IDS_PER_CALL {
            match list.next_element()? {
                Some(row) => rows.push(row),
                None => return Ok(List::Rows(rows)),
            }
        }
        let mut is_longer = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_longer = true;
        }
        Ok(if is_longer {
            List::TooLong
        } else {
            List::Rows(rows)
        })
    }
}

/// A value that is written as an object. serde takes a list for a struct, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(ObjectVisitor(PhantomData))
            .map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
