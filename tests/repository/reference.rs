//! `docs/reference/` is made from the code: fields, reasons, error codes, flags, values of the chart. `make manifests` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use security_group_operator::ecs::docs_url::anchor;
use security_group_operator::ecs::error_table;
use security_group_operator::ecs::{Action, ApiError, Class, Classification};
use security_group_operator::{api, args};

#[test]
fn committed_reference_matches_the_code() {
    let mut pages: Vec<(String, String)> = vec![
        ("errors".to_owned(), errors()),
        ("reasons".to_owned(), reasons()),
        ("flags".to_owned(), flags()),
        ("helm-values".to_owned(), helm_values()),
    ];
    pages.extend(fields());
    for (name, wanted) in pages {
        let path = repository().join(format!("docs/reference/{name}.md"));
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == wanted,
            "{} is not what the code says; run `make manifests`",
            path.display()
        );
    }
}

/// A link in a message leads to a heading.
#[test]
fn every_code_and_reason_has_a_heading() {
    let headings = |page: &str| -> BTreeSet<String> {
        let lines = page.lines().filter_map(|line| line.strip_prefix("## "));
        lines.map(anchor).collect()
    };
    let codes = headings(&errors());
    assert!(codes.len() > 90, "{}", codes.len());
    for (code, _) in error_table::codes() {
        assert!(codes.contains(&anchor(code)), "{code}");
    }
    assert!(headings(&reasons()).contains(&anchor(api::reason::TARGET_NOT_FOUND)));
}

fn header(title: &str, source: &str) -> String {
    format!("# {title}\n\nGenerated from {source} by `make manifests`; do not edit.\n")
}

// --- Error codes.

fn errors() -> String {
    let mut page = header("Error codes", "src/ecs/error_table.rs");
    page.push_str(
        "\nEvery code of Alibaba Cloud that this version knows, with its class for each call and what to do. `status.lastError.code` has the\ncode, the reason of `Ready` the same without dots. A code that is not here is unknown: the class is `Transient`, and after 30 minutes\nof it, with an HTTP status of 4xx, the object is Stalled. An answer with an HTTP status of 5xx is `Transient` or `Throttled`, whatever its code.\n[Error classes](../user/conditions.md#error-classes) says when the operator tries again.\n",
    );
    // Codes that differ in their dots only have one anchor, and so one heading.
    let mut headings: BTreeMap<String, Vec<(&str, bool)>> = BTreeMap::new();
    for (code, is_family) in error_table::codes() {
        headings
            .entry(anchor(code))
            .or_default()
            .push((code, is_family));
    }
    for codes in headings.values() {
        let (first, _) = codes.first().expect("a code");
        let _ = write!(page, "\n## `{first}`\n\n");
        for (code, is_family) in codes {
            if codes.len() > 1 {
                let _ = writeln!(page, "`{code}`:\n");
            }
            if *is_family {
                page.push_str("Every code that begins so.\n\n");
            }
            page.push_str(&meanings(code));
        }
    }
    page
}

/// What a code means, one line for the calls that agree.
fn meanings(code: &str) -> String {
    let actions = [
        Action::JoinSecurityGroup,
        Action::LeaveSecurityGroup,
        Action::DescribeInstances,
        Action::DescribeNetworkInterfaces,
        Action::GetCallerIdentity,
        Action::AssumeRole,
        Action::AssumeRoleWithOidc,
    ];
    let mut groups: Vec<(Classification, Vec<Action>)> = Vec::new();
    for action in actions {
        let meaning = ApiError::foreseen(action, code).classify();
        match groups.iter_mut().find(|(known, _)| *known == meaning) {
            Some((_, of)) => of.push(action),
            None => groups.push((meaning, vec![action])),
        }
    }
    let is_same = groups.len() == 1;
    let line = |(meaning, of): &(Classification, Vec<Action>)| {
        let calls = if is_same {
            "every call".to_owned()
        } else {
            of.iter()
                .map(|action| format!("`{action}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let class = class_text(meaning.class);
        format!(
            "- {calls}: {class}. {}.\n",
            sentence(meaning.hint).replace('<', "&lt;")
        )
    };
    groups.iter().map(line).collect()
}

fn class_text(class: Class) -> String {
    match class {
        Class::Done => "no error, nothing is left to do".to_owned(),
        Class::Transitional
        | Class::Transient
        | Class::Throttled
        | Class::Absent
        | Class::Blocked
        | Class::Invalid => format!("class `{class:?}`, {}", class.retry()),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

// --- Reasons.

fn reasons() -> String {
    let mut page = header("Conditions and reasons", "src/api/reason.rs");
    page.push_str(
        "\nEvery name of a condition, of a reason and of an event, once. [Conditions and reasons](../user/conditions.md) says what to do. Where the\ncloud refuses, the reason is the cloud's code without its dots: [Error codes](errors.md).\n",
    );
    let mut comment = Vec::new();
    let source = read("src/api/reason.rs");
    let mut named = BTreeMap::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            comment.push(text);
        } else if let Some(constant) = line.strip_prefix("pub const ") {
            let name = constant.split('"').nth(1).expect("a name");
            named.insert(name.to_owned(), comment.join(" "));
            comment.clear();
        }
    }
    assert!(named.len() > 40, "{named:?}");
    for (name, text) in named {
        let _ = write!(page, "\n## `{name}`\n\n{text}\n");
    }
    page
}

// --- Flags.

fn flags() -> String {
    let mut page = header("Flags", "src/args.rs");
    page.push_str(
        "\nEach flag can be given by its environment variable as well; the flag counts if both are there. The chart sets what its\n[values](helm-values.md) name.\n",
    );
    let command = args::command();
    for argument in command.get_arguments() {
        let Some(long) = argument
            .get_long()
            .filter(|long| !["help", "version"].contains(long))
        else {
            continue;
        };
        let _ = write!(page, "\n## `--{long}`\n\n");
        let help = argument.get_long_help().or(argument.get_help());
        let _ = writeln!(page, "{}\n", one_line(&help.expect("help").to_string()));
        let variable = argument.get_env().expect("a variable").to_string_lossy();
        let _ = writeln!(page, "- Environment variable: `{variable}`");
        let defaults: Vec<_> = argument.get_default_values().iter().collect();
        if let [default] = defaults.as_slice() {
            let _ = writeln!(page, "- Default: `{}`", default.to_string_lossy());
        }
        let values: Vec<_> = argument
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !values.is_empty() {
            let _ = writeln!(page, "- Values: {}", values.join(", "));
        }
    }
    page.push_str("\n## Subcommands\n\n`--help` and `--version` print help and version. Without a subcommand it runs the operator.\n\n");
    for command in command.get_subcommands() {
        let about = command.get_about().expect("help").to_string();
        let _ = writeln!(
            page,
            "- `{}`: {}.",
            command.get_name(),
            about.trim_end_matches('.')
        );
    }
    page
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let text = text.trim_end_matches('.');
    format!("{text}.")
}

// --- Values of the chart.

fn helm_values() -> String {
    let mut page = header("Helm values", "deploy/chart/values.yaml");
    page.push_str(
        "\nThe chart refuses a value that is not here. `deploy/chart/values.schema.json` has the form of each.\n\n| value | default | meaning |\n|---|---|---|\n",
    );
    let values = read("deploy/chart/values.yaml");
    let mut comment: Vec<&str> = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut rows = 0;
    for line in values.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else {
            let (key, default) = text.split_once(':').expect("a key");
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key));
            let names: Vec<&str> = path.iter().map(|(_, name)| *name).collect();
            let default = match default.trim() {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let meaning = comment.join(" ").replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {default} | {meaning} |", names.join("."));
            comment.clear();
            rows += 1;
        }
    }
    assert!(rows > 60, "{rows}");
    page
}

// --- Fields.

fn fields() -> Vec<(String, String)> {
    let page = |(plural, crd): (&str, _)| {
        let crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition = crd;
        let kind = crd.spec.names.kind;
        let mut page = header(&kind, &format!("crds/{}_{plural}.yaml", api::GROUP));
        let version = crd.spec.versions.into_iter().next().expect("a version");
        let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
        let schema = schema.expect("a schema");
        let _ = write!(
            page,
            "\n`apiVersion: {}/{}`, scope {}. {}\n",
            api::GROUP,
            version.name,
            crd.spec.scope,
            schema.description.as_deref().unwrap_or_default()
        );
        for part in ["spec", "status"] {
            let schema = schema.properties.as_ref().and_then(|parts| parts.get(part));
            let _ = write!(
                page,
                "\n## {part}\n\n| field | type | meaning |\n|---|---|---|\n"
            );
            let mut rows = Vec::new();
            collect("", schema.expect("spec and status"), &mut rows);
            for row in &rows {
                page.push_str(row);
            }
            assert!(!rows.is_empty());
        }
        (kind.to_lowercase(), page)
    };
    api::crds().into_iter().map(page).collect()
}

/// A row for every field below a part of the schema, outer ones first.
fn collect(path: &str, schema: &JSONSchemaProps, rows: &mut Vec<String>) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}{name}");
        rows.push(row(&path, required.contains(name), field));
        descend(&path, field, rows);
    }
}

fn descend(path: &str, field: &JSONSchemaProps, rows: &mut Vec<String>) {
    collect(&format!("{path}."), field, rows);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &field.items {
        collect(&format!("{path}[]."), items, rows);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &field.additional_properties {
        collect(&format!("{path}.KEY."), values, rows);
    }
}

fn row(path: &str, required: bool, field: &JSONSchemaProps) -> String {
    let mut notes = vec![field.description.clone().unwrap_or_default()];
    if let Some(default) = &field.default {
        notes.push(format!("Default: `{}`.", default.0));
    }
    let element = match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => field,
    };
    let values = element.enum_.iter().flatten();
    let values: Vec<String> = values.map(|value| format!("`{}`", value.0)).collect();
    if !values.is_empty() {
        notes.push(format!("One of {}.", values.join(", ").replace('"', "")));
    }
    let bounds = [
        ("At least", field.minimum.map(|least| least.to_string()), ""),
        ("At most", field.maximum.map(|most| most.to_string()), ""),
        (
            "At most",
            field.max_length.map(|most| most.to_string()),
            " characters",
        ),
        (
            "At most",
            field.max_items.map(|most| most.to_string()),
            " items",
        ),
    ];
    for (words, bound, unit) in bounds {
        notes.extend(bound.map(|bound| format!("{words} {bound}{unit}.")));
    }
    let own = field.x_kubernetes_validations.iter().flatten();
    let inner = element.x_kubernetes_validations.iter().flatten();
    let rules: BTreeSet<String> = own
        .chain(inner)
        .filter_map(|rule| rule.message.clone())
        .collect();
    notes.extend(rules.iter().map(|rule| format!("Rule: {rule}.")));
    let kind = field.type_.as_deref().unwrap_or("any");
    let kind = match (&field.items, &field.additional_properties) {
        (Some(_), _) => format!("list of {}", element.type_.as_deref().unwrap_or("any")),
        (None, Some(_)) => "map".to_owned(),
        (None, None) => kind.to_owned(),
    };
    let kind = if required {
        format!("{kind}, required")
    } else {
        kind
    };
    let notes = notes.join(" ").replace('|', "\\|");
    format!("| `{path}` | {kind} | {} |\n", notes.trim())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect("a file of this repository")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
