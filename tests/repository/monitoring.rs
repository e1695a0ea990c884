//! The example for kube-state-metrics reads fields that exist.

use std::path::PathBuf;

use security_group_operator::api;
use serde_json::Value;

#[test]
fn example_for_kube_state_metrics_reads_fields_that_exist() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("examples/monitoring/kube-state-metrics.yaml"));
    let example: Value = serde_saphyr::from_str(&text.unwrap()).unwrap();
    let resources = example["spec"]["resources"].as_array().unwrap();
    let (mut read, mut counts) = (0, Vec::new());
    for (_, crd) in api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = &crd["spec"]["names"]["kind"];
        let resource = resources
            .iter()
            .find(|one| one["groupVersionKind"]["kind"] == *kind)
            .unwrap_or_else(|| panic!("the example lacks {kind}"));
        let of = &resource["groupVersionKind"];
        let version = &crd["spec"]["versions"][0];
        assert_eq!(of["group"], api::GROUP, "{kind}");
        assert_eq!(of["version"], version["name"], "{kind}");
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        // The schema of a CRD does not name the fields of all objects.
        schema["properties"]["metadata"]["properties"] =
            serde_json::json!({"name": {}, "namespace": {}});
        let mut read_from = |schema: &Value, labels: &Value| {
            for (label, path) in labels.as_object().into_iter().flatten() {
                assert!(at(schema, path).is_some(), "{kind}: {label} reads {path}");
                read += 1;
            }
        };
        read_from(&schema, &resource["labelsFromPath"]);
        for metric in resource["metrics"].as_array().unwrap() {
            let each = &metric["each"];
            let (gauge, info) = (&each["gauge"], &each["info"]);
            if gauge.is_object() {
                let field = at(&schema, &gauge["path"]);
                let field = field.unwrap_or_else(|| panic!("{gauge}"));
                if field["type"] == "integer" {
                    counts.push(format!("{kind} {}", gauge["path"][1]).replace('"', ""));
                    continue;
                }
                let item = &field["items"];
                read_from(item, &gauge["labelsFromPath"]);
                assert!(at(item, &gauge["valueFrom"]).is_some(), "{gauge}");
            } else {
                read_from(&schema, &info["labelsFromPath"]);
            }
        }
    }
    assert!(read > 15, "{read} paths");
    for field in [
        "targets",
        "readyTargets",
        "stalledTargets",
        "skippedNodes",
        "objects",
    ] {
        let count = format!("SecurityGroupMembershipSet {field}");
        assert!(counts.contains(&count), "no {count} in {counts:?}");
    }
}

/// The schema of the field at this path.
fn at<'a>(schema: &'a Value, path: &Value) -> Option<&'a Value> {
    let path = path.as_array()?;
    path.iter().try_fold(schema, |schema, name| {
        schema.get("properties")?.get(name.as_str()?)
    })
}
