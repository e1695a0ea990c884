//! YAML with the line of every value. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// One document of a file.
pub(super) struct Document {
    pub(super) file: String,
    pub(super) root: Node,
}

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Node(Spanned<Kind>);

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, u64, Node)>),
}

impl Node {
    pub(super) fn line(&self) -> u64 {
        self.0.referenced.line()
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0.value
    }

    /// The value of a field; `None` where there is none, or it is null: the API server drops it.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let (_, _, node) = self.entries().iter().find(|(key, _, _)| key == name)?;
        match node.kind() {
            Kind::Null => None,
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) | Kind::Map(_) => {
                Some(node)
            }
        }
    }

    /// The fields of a map, each with the line of its key; none for anything else.
    pub(super) fn entries(&self) -> &[(String, u64, Node)] {
        match self.kind() {
            Kind::Map(fields) => fields,
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub(super) fn items(&self) -> &[Node] {
        match self.kind() {
            Kind::List(items) => items,
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self.kind() {
            Kind::Text(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The value as JSON, without nulls.
    pub(super) fn json(&self) -> Value {
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Self::json).collect(),
            Kind::Map(fields) => {
                let fields = fields
                    .iter()
                    .map(|(key, _, node)| (key.clone(), node.json()));
                let fields: Map<String, Value> =
                    fields.filter(|(_, value)| !value.is_null()).collect();
                Value::Object(fields)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Kind, D::Error> {
        Kind::deserialize(inner)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Number::from_f64(value).map_or(Kind::Null, Kind::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(Node(item));
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            fields.push((key.value, line, Node(entries.next_value()?)));
        }
        Ok(Kind::Map(fields))
    }
}

/// A document that is no YAML.
pub(super) struct NoYaml {
    pub(super) line: u64,
    pub(super) message: String,
}

/// The documents of a file. One that is no YAML does not hide the others.
pub(super) fn split(file: &str, text: &str) -> Vec<Result<Document, NoYaml>> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut part = String::new();
    let mut take = |part: &str, start: usize| {
        let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if part.lines().all(is_empty) {
            return;
        }
        // So that the lines are those of the file.
        let placed = format!("{}{part}", "\n".repeat(start));
        match serde_saphyr::from_str::<Spanned<Kind>>(&placed) {
            Ok(root) => documents.push(Ok(Document {
                file: file.to_owned(),
                root: Node(root),
            })),
            Err(error) => {
                let line = error.location().map_or(0, |at| at.line());
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                documents.push(Err(NoYaml {
                    line,
                    message: format!("this is no YAML: {first}"),
                }));
            }
        }
    };
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            take(&part, start);
            part.clear();
            start = number + 1;
        } else {
            part.push_str(line);
            part.push('\n');
        }
    }
    take(&part, start);
    documents
}
