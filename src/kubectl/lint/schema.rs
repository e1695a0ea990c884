//! The shape of an object, by the schema of its kind as the API server has it. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Value;

use crate::api::crds;

use super::documents::{Kind, Node};
use super::mistake::{Mistake, Object};
use super::rules;

/// Checks an object by the schema of its kind, and its metadata.
pub(super) fn check(object: &Object, mistakes: &mut Vec<Mistake>) {
    metadata(object, mistakes);
    for (name, line, _) in object.root.entries() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()) {
            mistakes.push(object.mistake(*line, name, "there is no such field"));
        }
    }
    let Some(spec) = object.root.field("spec") else {
        mistakes.push(object.mistake(object.root.line(), "spec", "must be set"));
        return;
    };
    let Some(schema) = schema_of(object.kind) else {
        return;
    };
    let mut check = Check { object, mistakes };
    check.node("spec", spec, &schema);
}

/// The schema of the spec of a kind.
fn schema_of(kind: &str) -> Option<JSONSchemaProps> {
    let (_, crd) = crds()
        .into_iter()
        .find(|(_, crd)| crd.spec.names.kind == kind)?;
    let version = crd.spec.versions.into_iter().next()?;
    let schema = version.schema?.open_api_v3_schema?;
    schema.properties?.remove("spec")
}

fn metadata(object: &Object, mistakes: &mut Vec<Mistake>) {
    let node = object.root.field("metadata");
    let line = node.map_or(object.root.line(), Node::line);
    let name = node.and_then(|node| node.field("name"));
    let generated = node.and_then(|node| node.field("generateName"));
    match (name, name.and_then(Node::text)) {
        (None, _) if generated.is_some() => {}
        (None, _) => mistakes.push(object.mistake(line, "metadata.name", "must be set")),
        (Some(name), Some(text)) if is_name(text) => {
            let _ = (name, text);
        }
        (Some(name), _) => mistakes.push(object.mistake(
            name.line(),
            "metadata.name",
            "must be a name of lower-case letters, digits, dashes and dots, of at most 253 letters",
        )),
    }
    if object.kind == "ClusterCloudAccount"
        && let Some(namespace) = node.and_then(|node| node.field("namespace"))
    {
        let message = "must not be set: a ClusterCloudAccount is in no namespace";
        mistakes.push(object.mistake(namespace.line(), "metadata.namespace", message));
    }
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

struct Check<'a> {
    object: &'a Object,
    mistakes: &'a mut Vec<Mistake>,
}

impl Check<'_> {
    fn wrong(&mut self, line: u64, path: &str, message: impl Into<String>) {
        let mistake = self.object.mistake(line, path, message);
        self.mistakes.push(mistake);
    }

    /// Checks a value and all that is in it; its rules only if its shape is right, as the API server does it.
    fn node(&mut self, path: &str, node: &Node, schema: &JSONSchemaProps) {
        let before = self.mistakes.len();
        let is_of_type = match (schema.type_.as_deref(), node.kind()) {
            (_, Kind::Null) => return,
            (Some("object"), Kind::Map(_)) => {
                self.map(path, node, schema);
                true
            }
            (Some("array"), Kind::List(items)) => {
                self.list(path, node, items, schema);
                true
            }
            (Some("string"), Kind::Text(text)) => {
                self.text(path, node, text, schema);
                true
            }
            (Some("boolean"), Kind::Bool(_)) => true,
            (Some("integer"), Kind::Number(number)) if number.is_i64() => {
                self.number(path, node, number.as_f64().unwrap_or_default(), schema);
                true
            }
            (Some(_), _) => false,
            (None, _) => return,
        };
        if !is_of_type {
            let wanted = match schema.type_.as_deref() {
                Some("object") => "must be a map of fields",
                Some("array") => "must be a list",
                Some("boolean") => "must be true or false",
                Some("integer") => "must be a whole number",
                _ => "must be a text; write it in quotes if it looks like a number",
            };
            self.wrong(node.line(), path, wanted);
            return;
        }
        self.choice(path, node, schema);
        let has_right_shape = self.mistakes.len() == before;
        for broken in rules::broken(node, schema, has_right_shape) {
            let (at, field) = match broken.field {
                Some(name) => {
                    let line = node.field(&name).map_or(node.line(), Node::line);
                    let is_there = node.field(&name).is_some();
                    let field = if is_there {
                        format!("{path}.{name}")
                    } else {
                        path.to_owned()
                    };
                    (line, field)
                }
                None => (node.line(), path.to_owned()),
            };
            self.wrong(at, &field, broken.message);
        }
    }

    fn choice(&mut self, path: &str, node: &Node, schema: &JSONSchemaProps) {
        let Some(values) = &schema.enum_ else {
            return;
        };
        let value = node.json();
        if !values.iter().any(|JSON(allowed)| *allowed == value) {
            let names: Vec<&str> = values.iter().filter_map(|JSON(of)| of.as_str()).collect();
            let message = format!("must be one of {}", names.join(", "));
            self.wrong(node.line(), path, message);
        }
    }

    fn map(&mut self, path: &str, node: &Node, schema: &JSONSchemaProps) {
        let known = schema.properties.as_ref();
        for (name, line, value) in node.entries() {
            let inner = format!("{path}.{name}");
            match (
                known.and_then(|known| known.get(name)),
                &schema.additional_properties,
            ) {
                (Some(field), _) => self.node(&inner, value, field),
                (None, Some(JSONSchemaPropsOrBool::Schema(values))) => {
                    self.node(&inner, value, values);
                }
                (None, _) => {
                    let near = known.into_iter().flatten().map(|(name, _)| name.as_str());
                    let message = match near_miss(name, near) {
                        Some(near) => format!("there is no such field; did you mean {near}?"),
                        None => "there is no such field".to_owned(),
                    };
                    self.wrong(*line, &inner, message);
                }
            }
        }
        for name in schema.required.iter().flatten() {
            if node.field(name).is_none() {
                self.wrong(node.line(), &format!("{path}.{name}"), "must be set");
            }
        }
        let bounds = (schema.min_properties, schema.max_properties);
        self.count(path, node, node.entries().len(), bounds);
    }

    fn list(&mut self, path: &str, node: &Node, items: &[Node], schema: &JSONSchemaProps) {
        self.count(
            path,
            node,
            items.len(),
            (schema.min_items, schema.max_items),
        );
        let keys = schema
            .x_kubernetes_list_map_keys
            .as_deref()
            .unwrap_or_default();
        let is_set = schema.x_kubernetes_list_type.as_deref() == Some("set");
        let mut seen: Vec<Value> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let inner = format!("{path}[{at}]");
            if let Some(JSONSchemaPropsOrArray::Schema(of_item)) = &schema.items {
                self.node(&inner, item, of_item);
            }
            let key = match (is_set, keys) {
                (true, _) => item.json(),
                (false, []) => continue,
                (false, keys) => keys
                    .iter()
                    .map(|key| item.field(key).map_or(Value::Null, Node::json))
                    .collect(),
            };
            if seen.contains(&key) {
                self.wrong(item.line(), &inner, "is there twice");
            }
            seen.push(key);
        }
    }

    fn count(
        &mut self,
        path: &str,
        node: &Node,
        found: usize,
        (least, most): (Option<i64>, Option<i64>),
    ) {
        let found = i64::try_from(found).unwrap_or(i64::MAX);
        if let Some(least) = least.filter(|least| found < *least) {
            self.wrong(node.line(), path, format!("must have at least {least}"));
        }
        if let Some(most) = most.filter(|most| found > *most) {
            self.wrong(node.line(), path, format!("must have at most {most}"));
        }
    }

    fn text(&mut self, path: &str, node: &Node, text: &str, schema: &JSONSchemaProps) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(most) = schema.max_length.filter(|most| length > *most) {
            self.wrong(
                node.line(),
                path,
                format!("must have at most {most} letters"),
            );
        }
        if let Some(least) = schema.min_length.filter(|least| length < *least) {
            self.wrong(
                node.line(),
                path,
                format!("must have at least {least} letters"),
            );
        }
        let pattern = schema.pattern.as_deref();
        let compiled = pattern.and_then(|pattern| Regex::new(pattern).ok());
        if compiled.is_some_and(|compiled| !compiled.is_match(text)) {
            let pattern = pattern.unwrap_or_default();
            self.wrong(node.line(), path, format!("must match {pattern}"));
        }
    }

    fn number(&mut self, path: &str, node: &Node, number: f64, schema: &JSONSchemaProps) {
        if let Some(least) = schema.minimum.filter(|least| number < *least) {
            self.wrong(node.line(), path, format!("must be at least {least}"));
        }
        if let Some(most) = schema.maximum.filter(|most| number > *most) {
            self.wrong(node.line(), path, format!("must be at most {most}"));
        }
    }
}

/// A known name that differs only in case, dashes, underscores, or in a letter or two.
fn near_miss<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    let wanted = plain(name);
    known
        .map(|known| (distance(&wanted, &plain(known)), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or exchanged.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.bytes().enumerate() {
        let mut next = vec![at + 1];
        for (column, of_other) in other.bytes().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let exchanged = get(&row, column) + usize::from(byte != of_other);
            let moved = get(&row, column + 1).min(get(&next, column)) + 1;
            next.push(exchanged.min(moved));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
