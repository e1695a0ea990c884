//! `kubectl sgm lint`: what is wrong in files, without a cluster. Reads files.
//!
//! ```text
//! documents ─▶ schema ─▶ rules ─▶ across        each finds all its mistakes
//! YAML         shape     CEL      objects together
//! ```

mod across;
mod documents;
mod mistake;
mod rules;
mod schema;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::GROUP;

use self::documents::{Document, NoYaml, Node};
use self::mistake::{Mistake, Object};
use super::failure::{Failure, exit};
use super::output::{Report, counted, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm lint web.yaml
  kubectl sgm lint manifests/            # every .yaml, .yml and .json below it
  helm template . | kubectl sgm lint -   # exit code 3 if there is a mistake";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files and folders; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let mut texts = Vec::new();
    for file in &arguments.files {
        texts.extend(read(file)?);
    }
    Ok(report(&texts))
}

/// The names and texts of a file, of the files of a folder, or of standard input.
pub(super) fn read(file: &Path) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("{}: {error}", file.display()));
    if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin()).map_err(wrong)?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    if !file.is_dir() {
        let text = std::fs::read_to_string(file).map_err(wrong)?;
        return Ok(vec![(file.display().to_string(), text)]);
    }
    let entries = std::fs::read_dir(file).map_err(wrong)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(wrong)?.path());
    }
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_manifest = extension.is_some_and(|of| ["yaml", "yml", "json"].contains(&of));
        if path.is_dir() || is_manifest {
            texts.extend(read(&path)?);
        }
    }
    Ok(texts)
}

/// The mistakes of these files.
fn report(texts: &[(String, String)]) -> Report {
    let mut mistakes = Vec::new();
    let mut objects = Vec::new();
    let mut foreign = 0;
    for (file, text) in texts {
        foreign += collect(file, text, &mut objects, &mut mistakes);
    }
    for object in &objects {
        schema::check(object, &mut mistakes);
    }
    across::check(&objects, &mut mistakes);
    mistakes.sort();
    mistakes.dedup();
    let others = if foreign == 0 {
        String::new()
    } else {
        format!(
            "; {} of other kinds not looked at",
            counted(foreign, "object")
        )
    };
    note(&format!(
        "{} in {}, {}{others}",
        counted(objects.len(), "object"),
        counted(texts.len(), "file"),
        counted(mistakes.len(), "mistake")
    ));
    let line = |of: &Mistake| {
        let field = if of.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", of.field)
        };
        format!("{}:{}: {field}{}\n", of.file, of.line, of.message)
    };
    let value = |of: &Mistake| json!({"file": of.file, "line": of.line, "field": of.field, "message": of.message});
    Report {
        text: Some(mistakes.iter().map(line).collect()),
        names: mistakes
            .iter()
            .map(|of| format!("{}:{}", of.file, of.line))
            .collect(),
        value: json!({"objects": objects.len(), "mistakes": mistakes.iter().map(value).collect::<Vec<_>>()}),
        code: if mistakes.is_empty() { 0 } else { exit::NO },
        ..Report::default()
    }
}

/// Adds the objects and mistakes of a file; returns how many objects are of other kinds.
fn collect(
    file: &str,
    text: &str,
    objects: &mut Vec<Object>,
    mistakes: &mut Vec<Mistake>,
) -> usize {
    let mut foreign = 0;
    for document in documents::split(file, text) {
        match document {
            Ok(document) => foreign += sort(document, objects, mistakes),
            Err(NoYaml { line, message }) => mistakes.push(Mistake {
                file: file.to_owned(),
                line,
                field: String::new(),
                message,
            }),
        }
    }
    foreign
}

/// The kinds that a user writes.
const KINDS: [&str; 4] = [
    "SecurityGroupMembership",
    "SecurityGroupMembershipSet",
    "CloudAccount",
    "ClusterCloudAccount",
];

/// Takes the items of a list as documents.
fn sort_items(
    file: &str,
    items: &Node,
    objects: &mut Vec<Object>,
    mistakes: &mut Vec<Mistake>,
) -> usize {
    let mut foreign = 0;
    for item in items.items() {
        let document = Document {
            file: file.to_owned(),
            root: item.clone(),
        };
        foreign += sort(document, objects, mistakes);
    }
    foreign
}

/// Whether a document without apiVersion or kind seems to be one of our objects. The values of a chart and the like are none.
fn is_ours(root: &Node) -> bool {
    let text = |name: &str| root.field(name).and_then(Node::text);
    match (text("apiVersion"), text("kind")) {
        (None, None) => root.field("spec").is_some(),
        (version, kind) => {
            version.is_some_and(|version| version.starts_with(GROUP))
                || kind.is_some_and(|kind| KINDS.contains(&kind))
        }
    }
}

/// Takes a document as an object, as the objects of a list, or as foreign; returns how many are foreign.
fn sort(document: Document, objects: &mut Vec<Object>, mistakes: &mut Vec<Mistake>) -> usize {
    let Document { file, root } = document;
    let mut wrong = |line: u64, field: &str, message: String| {
        mistakes.push(Mistake {
            file: file.clone(),
            line,
            field: field.to_owned(),
            message,
        });
    };
    let text = |name: &str| root.field(name).and_then(Node::text);
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        if !is_ours(&root) {
            return 1;
        }
        wrong(root.line(), "", "must have apiVersion and kind".to_owned());
        return 0;
    };
    if let Some(items) = root.field("items").filter(|_| kind == "List") {
        return sort_items(&file, items, objects, mistakes);
    }
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    let known = KINDS.into_iter().find(|known| *known == kind);
    if group != GROUP {
        if known.is_some() {
            let line = root.field("apiVersion").map_or(0, Node::line);
            wrong(
                line,
                "apiVersion",
                format!("must be {GROUP}/v1alpha1 for {kind}"),
            );
            return 0;
        }
        return 1;
    }
    if version != format!("{GROUP}/v1alpha1") {
        let line = root.field("apiVersion").map_or(0, Node::line);
        wrong(line, "apiVersion", format!("must be {GROUP}/v1alpha1"));
    }
    let Some(kind) = known else {
        let line = root.field("kind").map_or(0, Node::line);
        let kinds = KINDS.join(", ");
        wrong(
            line,
            "kind",
            format!("there is no {kind} in {GROUP}; must be one of {kinds}"),
        );
        return 0;
    };
    objects.push(Object { file, kind, root });
    0
}

/// The objects of files, for a verb that sends them to the API server.
pub(super) struct Objects {
    /// The memberships, in their order.
    pub(super) memberships: Vec<Value>,
    /// The sets, in their order.
    pub(super) sets: Vec<Value>,
    /// The accounts of both kinds.
    pub(super) accounts: Vec<Value>,
    /// How many are of other kinds.
    pub(super) foreign: usize,
}

/// The objects of these files.
///
/// # Errors
/// A file is no YAML, or names no kind of ours where it should.
pub(super) fn objects(texts: &[(String, String)]) -> Result<Objects, Failure> {
    let mut mistakes = Vec::new();
    let mut found = Vec::new();
    let mut foreign = 0;
    for (file, text) in texts {
        foreign += collect(file, text, &mut found, &mut mistakes);
    }
    if let Some(Mistake {
        file,
        line,
        field: _,
        message,
    }) = mistakes.first()
    {
        return Err(Failure::new(format!(
            "{file}:{line}: {message}; kubectl sgm lint tells all mistakes"
        )));
    }
    let of = |kinds: &[&str]| -> Vec<Value> {
        let of = found.iter().filter(|object| kinds.contains(&object.kind));
        of.map(|object| object.root.json()).collect()
    };
    Ok(Objects {
        memberships: of(&["SecurityGroupMembership"]),
        sets: of(&["SecurityGroupMembershipSet"]),
        accounts: of(&["CloudAccount", "ClusterCloudAccount"]),
        foreign,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(text: &str) -> Vec<String> {
        let report = report(&[("web.yaml".to_owned(), text.to_owned())]);
        let lines = report.text.unwrap();
        lines.lines().map(str::to_owned).collect()
    }

    const FIVE: &str = "\
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata:
  name: Web_1
spec:
  region: cn-hangzhou-b
  instanceId: i-web
  securityGroupID: SG-web
  deletionPolicy: Leave
  suspend: yes please
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata: {name: two}
spec:
  region: cn-hangzhou
  instanceID: i-web
  networkInterfaceID: eni-web
  securityGroupID: [sg-web]
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata:
  name: three
 spec: {}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign}
---
apiVersion: security-group-operator.io/v1
kind: SecurityGroupMember
metadata: {name: four}
";

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let found = lint(FIVE);
        let starts = [
            "web.yaml:4: metadata.name: must be a name of lower-case letters",
            "web.yaml:6: spec.region: must be a region",
            "web.yaml:6: spec: must set exactly one of instanceID and networkInterfaceID",
            "web.yaml:7: spec.instanceId: there is no such field; did you mean instanceID?",
            "web.yaml:8: spec.securityGroupID: must be the ID of a security group in lower case",
            "web.yaml:9: spec.deletionPolicy: must be one of RemoveIfJoined, Remove, Retain",
            "web.yaml:10: spec.suspend: must be true or false",
            "web.yaml:17: spec.instanceID: must set exactly one of instanceID and networkInterfaceID",
            "web.yaml:19: spec.securityGroupID: must be a text",
            "web.yaml:25: ",
            "web.yaml:31: apiVersion: must be security-group-operator.io/v1alpha1",
            "web.yaml:32: kind: there is no SecurityGroupMember in security-group-operator.io",
        ];
        for start in starts {
            assert!(
                found.iter().any(|line| line.starts_with(start)),
                "{start} is not in {found:#?}"
            );
        }
        assert_eq!(found.len(), starts.len(), "{found:#?}");
    }

    #[test]
    fn rules_of_accounts_and_grants_are_the_schemas_own() {
        let account = |spec: &str| {
            lint(&format!(
                "apiVersion: security-group-operator.io/v1alpha1\nkind: ClusterCloudAccount\nmetadata: {{name: a}}\nspec:\n{spec}"
            ))
        };
        let good = "  credentials: {secretRef: {name: a}}\n  endpoints: {ecs: 'https://ecs.{region}.example.com', sts: 'http://127.0.0.1:8080'}\n  grants:\n  - name: a\n    namespaces: {selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}\n    securityGroups: {ids: ['*']}\n";
        assert_eq!(account(good), [""; 0]);
        for (from, to, line, said) in [
            (
                "{secretRef: {name: a}}",
                "{}",
                5,
                "must be set, unless oidc",
            ),
            (
                "{secretRef: {name: a}}",
                "{secretRef: {name: a}, environment: {}}",
                5,
                "must not be set when secretRef",
            ),
            (
                "http://127.0.0.1:8080",
                "http://sts.example.com",
                6,
                "must be https://, or set allowInsecure",
            ),
            (
                "https://ecs.{region}",
                "ftp://ecs.{region}",
                6,
                "must be https:// or http://",
            ),
            (
                "values: [b]",
                "values: []",
                9,
                "must not be empty for In and NotIn",
            ),
            ("ids: ['*']", "ids: ['*', '*']", 10, "is there twice"),
            ("ids: ['*']", "ids: []", 10, "must have at least 1"),
        ] {
            let found = account(&good.replace(from, to));
            let told =
                |of: &String| of.starts_with(&format!("web.yaml:{line}: ")) && of.contains(said);
            assert!(found.iter().any(told), "{said}: {found:#?}");
        }
    }

    #[test]
    fn objects_of_a_file_are_compared_with_each_other() {
        let found = lint(
            "
apiVersion: security-group-operator.io/v1alpha1
kind: ClusterCloudAccount
metadata: {name: default}
spec:
  credentials: {secretRef: {name: a}}
  grants: [{name: a, namespaces: {names: [team-a]}, securityGroups: {ids: [sg-web]}}]
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata: {name: web, namespace: team-a}
spec: {region: cn-hangzhou, instanceID: i-web, securityGroupID: sg-web}
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata: {name: web, namespace: team-a}
spec: {region: cn-hangzhou, instanceID: i-web, securityGroupID: sg-db}
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembershipSet
metadata: {name: web, namespace: team-b}
spec: {region: cn-hangzhou, instanceIDs: [i-web], securityGroupID: sg-web}
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata: {name: own, namespace: team-b}
spec: {region: cn-hangzhou, instanceID: i-web, securityGroupID: sg-web, accountRef: {kind: CloudAccount, name: default}}
---
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembershipSet
metadata: {name: own, namespace: team-b}
spec: {region: cn-hangzhou, instanceIDs: [i-web], securityGroupID: sg-web, accountRef: {kind: CloudAccount, name: default}}
",
        );
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].starts_with(
            "web.yaml:16: metadata.name: there is another SecurityGroupMembership team-a/web"
        ));
        assert!(
            found[1].starts_with(
                "web.yaml:17: spec.securityGroupID: no grant of ClusterCloudAccount default"
            ),
            "{found:#?}"
        );
        let set = "web.yaml:22: spec.securityGroupID: no grant of ClusterCloudAccount default lets namespace team-b";
        assert!(found[2].starts_with(set), "{found:#?}");
    }

    #[test]
    fn what_the_examples_say_is_right() {
        let texts = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
        let texts: Vec<_> = texts
            .into_iter()
            // Those of one object in several states are for the tests of Argo CD.
            .filter(|(file, text)| text.contains(GROUP) && !file.contains("testdata"))
            .collect();
        assert!(texts.len() > 3);
        let report = report(&texts);
        let refused = report.text.unwrap();
        let wrong: Vec<&str> = refused
            .lines()
            .filter(|line| !line.contains("refused"))
            .collect();
        assert_eq!(wrong, [""; 0]);
    }
}
