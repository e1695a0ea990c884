//! The pages say what is so: their YAML is accepted as it stands, and every name that they must know is in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use security_group_operator::api::NODE_CONDITION;
use security_group_operator::ecs::{Class, Retry};

use crate::book::{blocks, pages, read, repository};
use crate::support;
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Error, Result};
use crate::support::tempdir::TempDir;

#[tokio::test]
async fn yaml_of_the_pages_is_accepted_as_written() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    support::operator::install(plane, &repository().join("deploy")).await?;
    let mut known = BTreeSet::new();
    let mut number = 0;
    for block in examples() {
        for document in block.split("\n---\n") {
            let object: serde_json::Value = serde_saphyr::from_str(document)?;
            // A fragment, or a kind that this cluster does not know.
            if object["apiVersion"].is_null() || FOREIGN.iter().any(|kind| object["kind"] == *kind)
            {
                continue;
            }
            number += 1;
            let namespace = object["metadata"]["namespace"].as_str();
            let is_there = |name: &&str| ["default", "security-group-operator"].contains(name);
            if let Some(namespace) = namespace.filter(|name| !is_there(name))
                && known.insert(namespace.to_owned())
            {
                // Another test of this binary may have made it; without it the next command fails.
                drop(kubectl(plane, &["create", "namespace", namespace], "").await);
            }
            // As a user would, but that a field which is not there fails instead of warning.
            let strictly = [
                "apply",
                "--dry-run=server",
                "--validate=strict",
                "--filename=-",
            ];
            kubectl(plane, &strictly, document)
                .await
                .context(document)?;
        }
    }
    println!("{number} objects of the pages are accepted");
    assert!(number > 15, "{number}");
    Ok(())
}

/// Kinds of other projects, and of kustomize, which no API server knows.
const FOREIGN: [&str; 3] = ["Kustomization", "Application", "Cluster"];

/// The blocks of YAML of all pages, and the files of `examples/` that are for a cluster with our kinds.
fn examples() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for page in pages() {
        let blocks = blocks(&read(&page)).into_iter();
        all.extend(
            blocks
                .filter(|block| block.language == "yaml")
                .map(|block| block.text),
        );
    }
    let folders = [
        "examples/kind",
        "examples/simulator",
        "examples/gitops/argocd",
    ];
    for folder in folders {
        for entry in std::fs::read_dir(repository().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|kind| kind == "yaml") {
                all.push(std::fs::read_to_string(path).expect("a file"));
            }
        }
    }
    all
}

#[tokio::test]
async fn overlay_sets_the_image() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let overlay = blocks(&read("docs/user/install-kustomize.md"))
        .into_iter()
        .map(|block| block.text)
        .find(|block| block.contains("kind: Kustomization"))
        .context("the page has no overlay")?;
    let scratch = TempDir::new("overlay")?;
    copy(&repository().join("deploy"), &scratch.path().join("deploy"))?;
    let folder = scratch.path().join("overlay");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("kustomization.yaml"), overlay)?;
    let rendered = kubectl(plane, &["kustomize", &folder.display().to_string()], "").await?;
    assert!(
        rendered.contains("image: example.com/security-group-operator:0.1.0"),
        "{rendered}"
    );
    Ok(())
}

/// The kind is not known here: what it shares with the operator is compared.
#[test]
fn readiness_rule_names_the_condition_of_nodes() {
    let rule: serde_json::Value =
        serde_saphyr::from_str(&read("examples/node-readiness/rule.yaml")).expect("YAML");
    assert_eq!(rule["kind"], "NodeReadinessRule");
    assert_eq!(rule["spec"]["conditions"][0]["type"], NODE_CONDITION);
    assert!(read("docs/user/sets.md").contains(NODE_CONDITION));
}

#[test]
fn every_reason_is_explained() {
    let source = read("src/api/reason.rs");
    let reasons: Vec<&str> = source
        .lines()
        .filter_map(|line| {
            line.strip_prefix("pub const ")?
                .split_once('"')?
                .1
                .split('"')
                .next()
        })
        .collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    must_have(
        "docs/user/conditions.md",
        reasons.iter().map(|reason| format!("`{reason}`")),
    );
}

#[test]
fn every_flag_is_listed_with_its_variable() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_security-group-operator"))
        .arg("--help")
        .output()?;
    let help = String::from_utf8(output.stdout)?;
    let words = help
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'));
    let names: BTreeSet<&str> = words
        .filter(|word| {
            word.starts_with("--")
                || word.starts_with("SECURITY_GROUP_OPERATOR_")
                || *word == "RUST_LOG"
        })
        .collect();
    assert!(names.len() > 12, "{names:?}");
    must_have(
        "docs/reference/flags.md",
        names.iter().map(|name| format!("`{name}`")),
    );
    Ok(())
}

#[test]
fn every_error_class_is_listed_with_its_times() {
    // As in `status.lastError.class`.
    let classes = [
        ("Transitional", Class::Transitional),
        ("Transient", Class::Transient),
        ("Throttled", Class::Throttled),
        ("Absent", Class::Absent),
        ("Blocked", Class::Blocked),
        ("Invalid", Class::Invalid),
    ];
    let page = read("docs/user/conditions.md");
    for (name, class) in classes {
        let times = times(class.retry());
        let is_row = |line: &str| {
            line.starts_with(&format!("| `{name}` |")) && line.ends_with(&format!("{times} |"))
        };
        assert!(
            page.lines().any(is_row),
            "the page lacks a row of the class {name} that ends with `{times}`"
        );
    }
}

#[test]
fn every_make_target_is_in_the_help() {
    let makefile = read("Makefile");
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "))
        .unwrap();
    for target in phony.split(' ') {
        let starts = format!("{target}:");
        assert!(
            makefile
                .lines()
                .any(|line| line.starts_with(&starts) && line.contains(" ## ")),
            "{target} is not in `make help`"
        );
    }
    for promised in [
        "make demo",
        "make test",
        "make up",
        "make down",
        "make help",
    ] {
        let target = promised.strip_prefix("make ").unwrap();
        assert!(phony.split(' ').any(|name| name == target), "{promised}");
        assert!(read("README.md").contains(promised), "{promised}");
    }
}

#[test]
fn missing_tools_are_reported_before_the_build() -> Result<()> {
    let make = Command::new("sh")
        .args(["-c", "command -v make"])
        .output()?;
    let make = String::from_utf8(make.stdout)?;
    let bin = TempDir::new("bin")?;
    let demo = |named: &str| -> Result<()> {
        let output = Command::new(make.trim())
            .arg("demo")
            .current_dir(repository())
            .env_remove("CC")
            .env("PATH", bin.path())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{said}");
        Ok(())
    };
    demo("cargo is not on the PATH: install Rust")?;
    std::fs::copy("/bin/sh", bin.path().join("cargo"))?;
    demo("cc is not on the PATH: install a C compiler")
}

/// Each row of "Limits of ownership" names tests, by file and function.
#[test]
fn every_limit_of_ownership_names_a_test() {
    each_row_names_a_test("Limits of ownership", 15);
}

/// Each row of "What can go wrong with a set" names tests, by file and function.
#[test]
fn everything_that_can_go_wrong_with_a_set_names_a_test() {
    each_row_names_a_test("What can go wrong with a set", 20);
}

/// Each row of "The last review" names tests, by file and function.
#[test]
fn every_fault_of_the_last_review_names_a_test() {
    each_row_names_a_test("The last review", 10);
}

/// Each finding has one row. It names tests, by file and function, or says that there is none.
#[test]
fn every_finding_has_a_row_with_its_tests() {
    let rows = rows_of_proof("Findings");
    let mut numbers: Vec<String> = Vec::new();
    for row in &rows {
        let tests = check_tests_of(row);
        assert_eq!(tests == 0, row.contains("| no test: "), "{row}");
        let named = row.trim_start_matches("| ").split(" | ").next().unwrap();
        numbers.extend(named.split(", ").map(str::to_owned));
    }
    for (letter, last) in [("F", 12), ("C", 30), ("Q", 9), ("T", 21)] {
        for number in 1..=last {
            let number = format!("{letter}{number}");
            let rows = numbers.iter().filter(|named| **named == number);
            assert_eq!(rows.count(), 1, "{number}");
        }
    }
    assert!(numbers.iter().any(|number| number == "U2"));
    assert!(numbers.iter().any(|number| number == "U3"));
}

/// There are more than `least` rows under the title, and each names tests.
fn each_row_names_a_test(title: &str, least: usize) {
    let rows = rows_of_proof(title);
    assert!(rows.len() > least, "{rows:?}");
    for row in rows {
        assert!(check_tests_of(&row) > 0, "{row}");
    }
}

/// The rows of the table in a section of docs/proof.md.
fn rows_of_proof(title: &str) -> Vec<String> {
    let proof = read("docs/proof.md");
    let section = proof
        .split(&format!("\n## {title}\n"))
        .nth(1)
        .unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.skip(1).map(str::to_owned).collect()
}

/// Checks that the tests that a row names exist: `folder/file::function` in tests/, or `src/file::function`. Returns their number.
fn check_tests_of(row: &str) -> usize {
    let words = row.split('`').skip(1).step_by(2);
    let tests = words.filter_map(|word| word.split_once("::"));
    let check = |(file, test): (&str, &str)| {
        let file = match file.strip_prefix("src/") {
            Some(_) => format!("{file}.rs"),
            None => format!("tests/{file}.rs"),
        };
        let source = read(&file);
        assert!(source.contains(&format!("fn {test}(")), "{file}: {test}");
    };
    tests.map(check).count()
}

/// Sources, descriptions and pages name the actor and the action.
#[test]
fn no_line_has_a_phrase_that_hides_the_actor() {
    let mut files = vec![
        repository().join("README.md"),
        repository().join("CONTRIBUTING.md"),
    ];
    for folder in ["src", "docs", "crds"] {
        collect_files(&repository().join(folder), &mut files);
    }
    files.retain(|file| {
        let is_page = file.starts_with(repository().join("docs"));
        !is_page || file.extension().is_some_and(|kind| kind == "md")
    });
    assert!(files.len() > 70, "{files:?}");
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(phrase) = PHRASES.iter().find(|phrase| has_phrase(line, phrase)) {
                found.push(format!("{}:{number}: {phrase}", file.display()));
            }
        }
    }
    assert_eq!(found, [""; 0]);
    for (line, expected) in [
        ("Nobody waits.", true),
        ("what it is told", true),
        ("the heirloom is heir", true),
        ("the heirloom", false),
        ("this told", false),
        ("it goes_away", false),
    ] {
        let is_found = PHRASES.iter().any(|phrase| has_phrase(line, phrase));
        assert_eq!(is_found, expected, "{line}");
    }
}

const PHRASES: &[&str] = &[
    "whoever",
    "nobody",
    "heir",
    "is said",
    "is told",
    "is looked at",
    "goes away",
    "in the way",
    "by the hundred",
    "what is said",
    "what is told",
    "what is left",
    "what was said",
    "what was told",
    "what was left",
];

/// Whether the line has the phrase as whole words, in any case.
fn has_phrase(line: &str, phrase: &str) -> bool {
    let line = line.to_lowercase();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(phrase).any(|(start, found)| {
        let (before, after) = (&line[..start], &line[start + found.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            collect_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn must_have(page: &str, names: impl Iterator<Item = String>) {
    let text = read(page);
    let missing: Vec<String> = names.filter(|name| !text.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{page} lacks {missing:?}");
}

fn times(retry: Retry) -> String {
    let short = |duration: std::time::Duration| match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    };
    if retry.first == retry.cap {
        short(retry.cap)
    } else {
        let (first, cap) = (short(retry.first), short(retry.cap));
        format!("{first} (backs off to {cap})")
    }
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str], input: &str) -> Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let mut child = tokio::process::Command::from(plane.kubectl())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("kubectl has no stdin")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(Error::new(String::from_utf8_lossy(&output.stderr)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
