//! The CEL rules of a schema, evaluated as they are installed. Pure.

use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Program, Value as CelValue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::documents::Node;

/// A rule that a value breaks.
pub(super) struct Broken {
    /// The field that the rule is about, where it names one.
    pub(super) field: Option<String>,
    /// What the API server would say.
    pub(super) message: String,
}

/// The rules of this schema, those of its parts not among them, that the value breaks. Rules on a change (`oldSelf`) need the stored
/// object. A rule that cannot be evaluated is a mistake where the shape of the value is right: it is passed over otherwise.
pub(super) fn broken(node: &Node, schema: &JSONSchemaProps, has_right_shape: bool) -> Vec<Broken> {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    let rules = rules.filter(|rule| !rule.rule.contains("oldSelf"));
    let mut value = node.json();
    add_defaults(&mut value, schema);
    rules
        .filter_map(|rule| {
            let message = match holds(&rule.rule, &value) {
                Ok(true) => return None,
                Ok(false) => rule.message.clone().unwrap_or_else(|| rule.rule.clone()),
                Err(_) if !has_right_shape => return None,
                Err(why) => format!("the rule {} could not be evaluated: {why}", rule.rule),
            };
            let field = rule.field_path.as_deref();
            Some(Broken {
                field: field.map(|path| path.trim_start_matches('.').to_owned()),
                message,
            })
        })
        .collect()
}

fn holds(rule: &str, value: &Value) -> Result<bool, String> {
    let program = Program::compile(rule).map_err(|error| error.to_string())?;
    let mut context = Context::default();
    // `replace` with a number of times, which Kubernetes adds to CEL.
    context
        .add_function("replace", replace)
        .map_err(|error| error.to_string())?;
    context
        .add_variable(
            "self",
            cel::to_value(value).map_err(|error| error.to_string())?,
        )
        .map_err(|error| error.to_string())?;
    match program.execute(&context) {
        Ok(CelValue::Bool(holds)) => Ok(holds),
        Ok(other) => Err(format!("it gives {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn replace(
    This(this): This<Arc<String>>,
    from: Arc<String>,
    to: Arc<String>,
    times: i64,
) -> Arc<String> {
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    Arc::new(this.replacen(from.as_str(), &to, times))
}

/// Adds the defaults of the schema, as the API server does before it looks at the rules.
fn add_defaults(value: &mut Value, schema: &JSONSchemaProps) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema.properties.iter().flatten() {
                if let Some(JSON(default)) = &property.default {
                    fields
                        .entry(name.clone())
                        .or_insert_with(|| default.clone());
                }
                if let Some(inner) = fields.get_mut(name) {
                    add_defaults(inner, property);
                }
            }
            if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
                for inner in fields.values_mut() {
                    add_defaults(inner, values);
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(of_item)) = &schema.items {
                for item in items {
                    add_defaults(item, of_item);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
