//! Applies the CRDs' schemas to an object: sets defaults, drops unknown fields, names them. Pure. Rules and patterns are not
//! enforced; tests of those use a real API server.

use serde_json::Value;

/// Sets the defaults and drops unknown fields.
pub fn shape(object: &mut Value, schema: &Value) {
    let Some(fields) = object.as_object_mut() else {
        if let (Some(items), Some(of)) = (object.as_array_mut(), schema.get("items")) {
            for item in items {
                shape(item, of);
            }
        }
        return;
    };
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    fields.retain(|name, _| properties.contains_key(name));
    for (name, schema) in properties {
        if !fields.contains_key(name)
            && let Some(default) = schema.get("default")
        {
            fields.insert(name.clone(), default.clone());
        }
        if let Some(child) = fields.get_mut(name) {
            shape(child, schema);
        }
    }
}

/// Whether every required field is present.
pub fn is_whole(object: &Value, schema: &Value) -> bool {
    if let (Some(items), Some(of)) = (object.as_array(), schema.get("items")) {
        return items.iter().all(|item| is_whole(item, of));
    }
    let Some(fields) = object.as_object() else {
        return true;
    };
    let required = schema["required"].as_array().into_iter().flatten();
    required
        .filter_map(Value::as_str)
        .all(|name| fields.contains_key(name))
        && fields
            .iter()
            .all(|(name, child)| is_whole(child, &schema["properties"][name]))
}

/// The paths of the fields that the schema does not declare, as the API server writes them.
pub fn undeclared(object: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    if let (Some(items), Some(of)) = (object.as_array(), schema.get("items")) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        for (number, item) in items.iter().enumerate() {
            let named =
                |key: &Value| format!("{}={}", key.as_str().unwrap(), item[key.as_str().unwrap()]);
            let at = keys.map(|keys| keys.iter().map(named).collect::<Vec<_>>().join(","));
            let at = at.unwrap_or_else(|| number.to_string());
            undeclared(item, of, &format!("{path}[{at}]"), found);
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let (Some(fields), Some(properties)) = (object.as_object(), properties) else {
        return;
    };
    for (name, child) in fields {
        let path = format!("{path}.{name}");
        match properties.get(name) {
            Some(schema) => undeclared(child, schema, &path, found),
            None => found.push(path),
        }
    }
}
