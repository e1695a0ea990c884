//! Field ownership: field sets, server-side apply and the effect of updates on them, as far as our kinds need it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

/// One step into an object: `f:name` a field, `k:key` an item of a list of maps, `v:value` an item of a set.
pub type Path = Arc<[String]>;

/// A writer: field manager, `Apply` or `Update`, and the subresource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub apply: bool,
    pub subresource: &'static str,
}

/// The fields that each manager owns.
pub type Owners = BTreeMap<Manager, BTreeSet<Path>>;

/// Fields that another manager owns and that an apply without force would change.
#[derive(Debug)]
pub struct Conflict(pub Vec<(Path, String)>);

/// Every leaf of an object by its path. An item of a list of maps is a leaf of its own (null), so that it can be owned.
pub fn leaves(object: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    walk(object, &mut Vec::new(), &mut found);
    found
}

fn walk(value: &Value, path: &mut Vec<String>, found: &mut BTreeMap<Path, Value>) {
    match (value, kind_of(path)) {
        (Value::Object(fields), _) if !fields.is_empty() => {
            // A manager that creates a map by an update owns the map itself, too.
            if is_map(path) {
                path.push(MAP_ITSELF.to_owned());
                found.insert(path.as_slice().into(), Value::Null);
                path.pop();
            }
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                walk(value, path, found);
                path.pop();
            }
        }
        (Value::Array(items), List::Set) => {
            for item in items {
                path.push(format!("v:{item}"));
                found.insert(path.as_slice().into(), item.clone());
                path.pop();
            }
        }
        (Value::Array(items), List::MapBy(key)) => {
            for item in items {
                path.push(format!("k:{}", item[key]));
                found.insert(path.as_slice().into(), Value::Null);
                walk(item, path, found);
                path.pop();
            }
        }
        (_, List::Atomic | List::Set | List::MapBy(_)) if path.is_empty() => {}
        (_, List::Atomic | List::Set | List::MapBy(_)) => {
            found.insert(path.as_slice().into(), value.clone());
        }
    }
}

const MAP_ITSELF: &str = ".";

fn is_map(path: &[String]) -> bool {
    path.len() == 2
        && path[0] == "f:metadata"
        && (path[1] == "f:annotations" || path[1] == "f:labels")
}

enum List {
    Atomic,
    Set,
    MapBy(&'static str),
}

fn kind_of(path: &[String]) -> List {
    let [part, field] = path else {
        return List::Atomic;
    };
    match (part.as_str(), field.as_str()) {
        ("f:metadata", "f:finalizers") => List::Set,
        ("f:metadata", "f:ownerReferences") => List::MapBy("uid"),
        ("f:status", "f:conditions") => List::MapBy("type"),
        _ => List::Atomic,
    }
}

/// Applies `config` for `manager` to `live`: sets its fields, and removes those that only this manager owned and that
/// `config` does not contain.
pub fn apply(
    live: &mut Value,
    owners: &mut Owners,
    config: &Value,
    manager: &Manager,
    force: bool,
) -> Result<(), Conflict> {
    let said = leaves(config);
    let mut conflicts = Vec::new();
    for (path, value) in &said {
        if holds(live, path, value) {
            continue;
        }
        for (other, paths) in owners.iter() {
            if other != manager && paths.contains(path) {
                conflicts.push((path.clone(), other.name.clone()));
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(Conflict(conflicts));
    }
    for (path, _) in conflicts {
        for (other, paths) in owners.iter_mut() {
            if other != manager {
                paths.remove(&path);
            }
        }
    }
    let mut said = said;
    said.retain(|path, _| path.last().is_none_or(|step| step != MAP_ITSELF));
    let before = owners.remove(manager).unwrap_or_default();
    let mut given_up: Vec<Path> = before
        .into_iter()
        .filter(|path| !said.contains_key(path))
        .filter(|path| !owners.values().any(|paths| paths.contains(path)))
        .collect();
    // Items before their fields, so that an item is removed as a whole.
    given_up.sort_by_key(|path| path.len());
    for path in &given_up {
        remove(live, path);
    }
    let before = live.clone();
    for (path, value) in &said {
        set(live, path, value);
    }
    order(live, &before, config);
    owners.insert(manager.clone(), said.into_keys().collect());
    // An apply is remembered even if it owns no field.
    owners.retain(|owner, paths| owner.apply || !paths.is_empty());
    Ok(())
}

/// The lists whose items are identified by value or by a key.
const LISTS: [&str; 3] = [
    "/metadata/finalizers",
    "/metadata/ownerReferences",
    "/status/conditions",
];

/// Sorts the items of these lists as an apply merges existing items with the applied ones.
fn order(live: &mut Value, before: &Value, config: &Value) {
    for list in LISTS {
        let keys = |object: &Value| -> Vec<Value> {
            let items = object.pointer(list).and_then(Value::as_array);
            items.into_iter().flatten().map(key).collect()
        };
        let merged = merged_order(&keys(before), &keys(config));
        if let Some(items) = live.pointer_mut(list).and_then(Value::as_array_mut) {
            items.sort_by_key(|item| merged.iter().position(|at| *at == key(item)));
        }
    }
}

fn key(item: &Value) -> Value {
    let key = ["type", "uid"].iter().find_map(|name| item.get(name));
    key.unwrap_or(item).clone()
}

/// As in structured-merge-diff (`visitListItems`): items of `right` keep their order; items only in `left` stay before the
/// items that followed them.
fn merged_order(left: &[Value], right: &[Value]) -> Vec<Value> {
    let mut shared = right.iter().filter(|item| left.contains(item));
    let mut next_shared = shared.next();
    let mut merged: Vec<Value> = Vec::new();
    let (mut from_left, mut from_right) = (0, 0);
    while from_left < left.len() || from_right < right.len() {
        if let (Some(l), Some(r)) = (left.get(from_left), right.get(from_right)) {
            if l == r {
                merged.push(l.clone());
                (from_left, from_right) = (from_left + 1, from_right + 1);
                next_shared = shared.next();
                continue;
            }
            if right.contains(l) && next_shared.is_some_and(|next| next != l) {
                from_left += 1;
                continue;
            }
        }
        if let Some(l) = left.get(from_left) {
            if !right.contains(l) {
                merged.push(l.clone());
                from_left += 1;
                continue;
            }
            if merged.contains(l) {
                from_left += 1;
            }
        }
        if let Some(r) = right.get(from_right) {
            merged.push(r.clone());
            from_right += 1;
            if next_shared == Some(r) {
                next_shared = shared.next();
            }
        }
    }
    merged
}

/// The effect of a write other than an apply on the owners: the writer becomes the only owner of a changed field.
pub fn update(before: &Value, after: &Value, owners: &mut Owners, manager: &Manager) {
    let (before, after) = (leaves(before), leaves(after));
    let mut changed = BTreeSet::new();
    for (path, value) in &after {
        if before.get(path) != Some(value) {
            changed.insert(path.clone());
        }
    }
    let gone: BTreeSet<&Path> = before
        .keys()
        .filter(|path| !after.contains_key(*path))
        .collect();
    for (other, paths) in owners.iter_mut() {
        paths.retain(|path| !gone.contains(path) && (other == manager || !changed.contains(path)));
    }
    if !changed.is_empty() {
        owners.entry(manager.clone()).or_default().extend(changed);
    }
    owners.retain(|owner, paths| owner.apply || !paths.is_empty());
}

/// Whether the leaf at `path` exists and has this value.
fn holds(object: &Value, path: &[String], value: &Value) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return object == value;
    };
    if step == MAP_ITSELF {
        return object.is_object();
    }
    match step.split_at(2) {
        ("f:", name) => object
            .get(name)
            .is_some_and(|child| holds(child, rest, value)),
        ("v:", _) => object.as_array().is_some_and(|items| items.contains(value)),
        (_, key) => object.as_array().is_some_and(|items| {
            position(items, key).is_some_and(|at| rest.is_empty() || holds(&items[at], rest, value))
        }),
    }
}

fn set(object: &mut Value, path: &[String], value: &Value) {
    let Some((step, rest)) = path.split_first() else {
        if !value.is_null() || object.is_null() {
            *object = value.clone();
        }
        return;
    };
    match step.split_at(2) {
        ("f:", name) => {
            if !object.is_object() {
                *object = Value::Object(Map::new());
            }
            set(&mut object[name], rest, value);
        }
        ("v:", _) => {
            let items = items(object);
            if !items.contains(value) {
                items.push(value.clone());
            }
        }
        (_, key) => {
            let items = items(object);
            let at = position(items, key).unwrap_or_else(|| {
                items.push(Value::Object(Map::new()));
                items.len() - 1
            });
            if rest.is_empty() {
                // Only conditions are created this way here.
                items[at]["type"] = serde_json::from_str(key).unwrap();
            } else {
                set(&mut items[at], rest, value);
            }
        }
    }
}

fn remove(object: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else {
        return;
    };
    match step.split_at(2) {
        ("f:", name) => {
            let Some(fields) = object.as_object_mut() else {
                return;
            };
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(child) = fields.get_mut(name) {
                remove(child, rest);
                if is_empty(child) {
                    fields.remove(name);
                }
            }
        }
        ("v:", text) => {
            if let Some(items) = object.as_array_mut() {
                let gone: Value = serde_json::from_str(text).unwrap_or_default();
                items.retain(|item| *item != gone);
            }
        }
        (_, key) => {
            let Some(items) = object.as_array_mut() else {
                return;
            };
            if let Some(at) = position(items, key) {
                if rest.is_empty() {
                    items.remove(at);
                } else {
                    remove(&mut items[at], rest);
                }
            }
        }
    }
}

fn items(object: &mut Value) -> &mut Vec<Value> {
    if !object.is_array() {
        *object = Value::Array(Vec::new());
    }
    object.as_array_mut().unwrap()
}

fn position(items: &[Value], key: &str) -> Option<usize> {
    let key: Value = serde_json::from_str(key).unwrap_or_default();
    items.iter().position(|item| self::key(item) == key)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
