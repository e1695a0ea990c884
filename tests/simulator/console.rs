//! The page of the admin port: it is served, it can be read, it needs no other host, and its click changes the cloud.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Value, json};

use crate::support::install_crypto;
use crate::support::simulator::SimulatorProcess;
use crate::support::tempdir::TempDir;

/// One instance in `sg-base`, beside two groups that it is not in.
async fn start() -> SimulatorProcess {
    let binary = Path::new(env!("CARGO_BIN_EXE_ecs-simulator"));
    let arguments = ["--instances=1", "--security-groups=2"];
    SimulatorProcess::start(binary, &arguments).await.unwrap()
}

async fn send(simulator: &SimulatorProcess, method: &str, path: &str) -> reqwest::Response {
    install_crypto();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method.parse().unwrap(), simulator.admin_url(path));
    request.send().await.unwrap()
}

async fn page(simulator: &SimulatorProcess) -> String {
    send(simulator, "GET", "/").await.text().await.unwrap()
}

#[tokio::test]
async fn page_is_served_as_html_and_a_browser_may_ask_no_other_host() {
    let simulator = start().await;
    let answer = send(&simulator, "GET", "/").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    let policy: Vec<&str> = policy.split("; ").collect();
    assert!(policy.contains(&"default-src 'none'"), "{policy:?}");
    assert!(policy.contains(&"connect-src 'self'"), "{policy:?}");
    let text = answer.text().await.unwrap();
    assert!(text.starts_with("<!DOCTYPE html>"), "{text}");
    // No scheme, and no address that takes the scheme of the page.
    assert_eq!(text.find("//"), None, "the page names another host");
    assert!(!text.contains("@import") && !text.contains("url("));
    for (element, attribute, value) in links(&text) {
        assert_eq!(value, "data:,", "{element} {attribute}");
    }
}

#[tokio::test]
async fn page_is_well_formed_and_its_script_can_be_read() {
    let page = page(&start().await).await;
    let names: BTreeSet<String> = elements(&page)
        .iter()
        .map(|element| element.name().as_ref().to_owned())
        .collect();
    for name in ["html", "head", "body", "script", "style"] {
        assert!(names.contains(name), "{name} of {names:?}");
    }
    let folder = TempDir::new("console").unwrap();
    let file = folder.path().join("console.js");
    let script = between(&page, "<script>", "</script>");
    std::fs::write(&file, script).unwrap();
    let mut node = Command::new("node");
    node.arg("--check").arg(&file).stdin(Stdio::null());
    match node.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "node is needed: {error}");
            eprintln!("SKIPPED: the page's script was not read: node is needed: {error}");
        }
    }
    // What the script looks up in the page is there.
    let ids: BTreeSet<&str> = page.split("id=\"").skip(1).map(quoted).collect();
    for id in page.split("byId(\"").skip(1).map(quoted) {
        assert!(ids.contains(id), "the page has no element {id}");
    }
}

#[tokio::test]
async fn every_url_of_the_page_exists_on_the_admin_port() {
    let simulator = start().await;
    let page = page(&simulator).await;
    let requests = requests(&page);
    let listed = requests.as_object().unwrap().values();
    let listed: BTreeSet<&str> = listed.filter_map(Value::as_str).collect();
    let used = page.split(['"', '\'', '`']);
    let used: BTreeSet<&str> = used.filter(|text| text.starts_with('/')).collect();
    assert_eq!(used, listed, "the script takes its URLs from the list");
    for name in ["state", "stats", "journal", "faults"] {
        let path = requests[name].as_str().unwrap();
        let answer = send(&simulator, "GET", path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert!(body.is_object() || body.is_array(), "{path}: {body}");
    }
    let wrong = send(&simulator, "POST", "/no-such-path").await;
    assert_eq!(wrong.status(), 404);
    let path = requests["change"].as_str().unwrap();
    let answer = send(&simulator, "POST", path).await;
    assert_eq!(answer.status(), 400, "{path} without a body");
    assert_eq!(listed.len(), 5, "{listed:?}: each was asked");
}

#[tokio::test]
async fn click_changes_the_cloud_and_the_journal_calls_it_by_hand() {
    let simulator = start().await;
    let requests = requests(&page(&simulator).await);
    let path = requests["change"].as_str().unwrap();
    for (click, expected) in [
        ("join", json!(["sg-base", "sg-sim0001"])),
        ("leave", json!(["sg-base"])),
    ] {
        let body = requests[click]
            .to_string()
            .replace("TARGET", "i-sim000000")
            .replace("GROUP", "sg-sim0001");
        let body = serde_json::from_str(&body).unwrap();
        simulator.post(path, &body).await.unwrap();
        let state = simulator.state().await.unwrap();
        let groups = &state["instances"]["i-sim000000"]["securityGroupIds"];
        assert_eq!(groups, &expected, "{click}");
    }
    let journal = simulator.journal().await.unwrap();
    let entries = journal.as_array().unwrap().iter();
    let entries: Vec<Value> = entries
        .map(|entry| {
            json!([
                entry["action"],
                entry["target"],
                entry["securityGroupId"],
                entry["by"]
            ])
        })
        .collect();
    let expected = |action| json!([action, "i-sim000000", "sg-sim0001", "admin"]);
    assert_eq!(
        entries,
        [
            expected("JoinSecurityGroup"),
            expected("LeaveSecurityGroup")
        ]
    );
}

#[tokio::test]
async fn faults_that_are_left_are_told_with_their_conditions() {
    let simulator = start().await;
    let left = async || -> Value {
        let answer = send(&simulator, "GET", "/faults").await;
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    assert_eq!(left().await, json!([]));
    let faults = json!([
        {"action": "JoinSecurityGroup", "target": "i-sim000000", "count": 2, "fault": "reset"},
        {"securityGroupId": "sg-base", "skip": 1, "fault": {"throttle": {}}},
    ]);
    simulator.faults(&faults).await.unwrap();
    let nothing = json!({
        "action": null, "region": null, "target": null, "securityGroupId": null, "tag": null,
        "accessKey": null, "skip": 0, "count": null, "probability": null,
    });
    let told = |more: Value| {
        let mut all = nothing.clone();
        let more = more.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        all
    };
    let expected = json!([
        told(
            json!({"action": "JoinSecurityGroup", "target": "i-sim000000", "count": 2, "fault": "reset"})
        ),
        told(json!({"securityGroupId": "sg-base", "skip": 1, "fault": "throttle"})),
    ]);
    assert_eq!(left().await, expected);
    simulator.faults(&json!([])).await.unwrap();
    assert_eq!(left().await, json!([]));
}

/// The page's own function is asked, with what the admin port says of each fault.
#[tokio::test]
async fn page_marks_the_cells_whose_next_call_a_fault_may_hit() {
    let simulator = start().await;
    let page = page(&simulator).await;
    let function = between(&page, "const mayHit =", ".every(Boolean);");
    let cases = [
        (json!({"fault": "reset"}), true),
        (
            json!({"action": "JoinSecurityGroup", "fault": {"throttle": {}}}),
            true,
        ),
        (
            json!({"action": "LeaveSecurityGroup", "target": "i-1", "securityGroupId": "sg-1", "fault": "silence"}),
            true,
        ),
        (json!({"target": "i-2", "fault": "reset"}), false),
        (json!({"securityGroupId": "sg-2", "fault": "reset"}), false),
        (
            json!({"action": "DescribeInstances", "fault": "reset"}),
            false,
        ),
        (json!({"tag": "team", "fault": "reset"}), false),
    ];
    for (fault, expected) in cases {
        simulator.faults(&json!([fault])).await.unwrap();
        let left = send(&simulator, "GET", "/faults").await;
        let left = left.text().await.unwrap();
        let script = format!(
            "const mayHit ={function}.every(Boolean);
            console.log({left}.some(fault => mayHit(fault, 'i-1', 'sg-1')))"
        );
        let mut node = Command::new("node");
        let output = match node.args(["--eval", &script]).stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "node is needed: {error}");
                eprintln!("SKIPPED: the page's script was not run: node is needed: {error}");
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), expected.to_string(), "{fault}");
    }
}

#[tokio::test]
async fn state_shows_the_locks_of_locked_instances_only() {
    let simulator = start().await;
    let locks = async || {
        let state = simulator.state().await.unwrap();
        state["instances"]["i-sim000000"].get("locks").cloned()
    };
    assert_eq!(locks().await, None);
    let lock = json!({"lock": {"id": "i-sim000000"}});
    simulator.change(&lock).await.unwrap();
    assert_eq!(locks().await, Some(json!(["security"])));
}

/// What the page says that it sends.
fn requests(page: &str) -> Value {
    let start = "<script type=\"application/json\" id=\"requests\">";
    serde_json::from_str(between(page, start, "</script>")).unwrap()
}

fn between<'page>(page: &'page str, start: &str, end: &str) -> &'page str {
    let (_, rest) = page.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

fn quoted(rest: &str) -> &str {
    rest.split('"').next().unwrap_or_default()
}

/// Every element, in order. The parser stops at an end that does not fit its start.
fn elements(page: &str) -> Vec<BytesStart<'static>> {
    let mut reader = Reader::from_str(page);
    let mut open = 0;
    let mut found = Vec::new();
    loop {
        let event = reader.read_event();
        match event.unwrap_or_else(|error| panic!("byte {}: {error}", reader.error_position())) {
            Event::Start(element) => {
                open += 1;
                found.push(element.into_owned());
            }
            Event::Empty(element) => found.push(element.into_owned()),
            Event::End(_) => open -= 1,
            Event::Eof => break,
            Event::GeneralRef(name) => panic!("an ampersand: {name:?}"),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
    }
    assert_eq!(open, 0, "an element does not end");
    found
}

/// Every attribute that makes a browser load something: element, attribute, value.
fn links(page: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for element in elements(page) {
        for attribute in element.attributes() {
            let attribute = attribute.unwrap();
            let name = attribute.key.as_ref().to_owned();
            if ["href", "src", "srcset", "action", "data"].contains(&&*name) {
                found.push((
                    element.name().as_ref().to_owned(),
                    name,
                    attribute.value.into_owned(),
                ));
            }
        }
    }
    assert!(!found.is_empty(), "the page has an icon");
    found
}
