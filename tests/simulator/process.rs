//! The simulated cloud as a process: its ports, faults as they feel on a socket, the back door, and what it says when it cannot start.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud;
use crate::cloud::RawSimulator;

const JOIN: [(&str, &str); 2] = [
    ("InstanceId", "i-sim000000"),
    ("SecurityGroupId", "sg-sim0000"),
];

fn groups(simulator: &RawSimulator) -> Value {
    simulator.state()["instances"]["i-sim000000"]["securityGroupIds"].clone()
}

fn fault(simulator: &RawSimulator, fault: &str) {
    let reply = simulator.admin("POST", "/faults", fault);
    assert_eq!(reply.status, 204, "{}", reply.body);
}

#[test]
fn both_ports_serve_health_state_and_statistics() {
    let simulator = RawSimulator::start(&[
        "--instances=1",
        "--security-groups=1",
        "--network-interfaces=1",
    ]);
    for port in [&simulator.wire, &simulator.admin] {
        assert_eq!(
            cloud::exchange(port, "GET", "/healthz", "").unwrap().status,
            200
        );
    }
    assert_eq!(
        simulator.call("JoinSecurityGroup", &JOIN).unwrap().status,
        200
    );
    assert_eq!(
        simulator.call("JoinSecurityGroup", &JOIN).unwrap().status,
        403
    );
    let state = simulator.state();
    assert_eq!(
        state["instances"],
        json!({"i-sim000000": {"status": "Running", "securityGroupIds": ["sg-base", "sg-sim0000"]}})
    );
    assert_eq!(
        state["networkInterfaces"],
        json!({"eni-sim000000": {"status": "InUse", "securityGroupIds": ["sg-base"]}})
    );
    assert_eq!(state["securityGroups"]["sg-base"]["members"], 2);
    assert_eq!(
        simulator.stats()["calls"],
        json!({"JoinSecurityGroup": {"OK": 1, "InvalidInstanceId.AlreadyExists": 1}})
    );
    let journal = simulator.admin("GET", "/journal", "").body;
    let journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(journal.as_array().unwrap().len(), 1, "{journal}");
    assert!(journal[0]["at"].is_string(), "{journal}");
    assert_eq!(journal[0]["action"], "JoinSecurityGroup");
    assert_eq!(journal[0]["target"], "i-sim000000");
    assert_eq!(journal[0]["securityGroupId"], "sg-sim0000");
    let (key, _) = security_group_operator::simulator::DEFAULT_ACCESS_KEY;
    assert_eq!(journal[0]["by"], key);
    let leave = r#"{"leave": {"target": "i-sim000000", "securityGroupId": "sg-sim0000"}}"#;
    for _ in 0..2 {
        assert_eq!(simulator.admin("POST", "/change", leave).status, 204);
    }
    let journal = simulator.admin("GET", "/journal", "").body;
    let journal: Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(journal.as_array().unwrap().len(), 2, "{journal}");
    assert_eq!(journal[1]["action"], "LeaveSecurityGroup");
    assert_eq!(journal[1]["by"], "admin");
    assert_eq!(simulator.admin("POST", "/stats/reset", "").status, 204);
    assert_eq!(simulator.stats()["calls"], json!({}));
    assert_eq!(simulator.admin("GET", "/journal", "").body, "[]");
}

#[test]
fn reset_fault_may_keep_its_effect() {
    let simulator = RawSimulator::start(&["--instances=1", "--security-groups=1"]);
    fault(
        &simulator,
        r#"{"action": "JoinSecurityGroup", "count": 1, "fault": "reset"}"#,
    );
    let broken = simulator.call("JoinSecurityGroup", &JOIN).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    assert_eq!(groups(&simulator), json!(["sg-base"]), "no effect");
    fault(
        &simulator,
        r#"{"action": "JoinSecurityGroup", "count": 1, "fault": "reset", "effect": true}"#,
    );
    assert_eq!(
        simulator
            .call("JoinSecurityGroup", &JOIN)
            .unwrap_err()
            .kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(groups(&simulator), json!(["sg-base", "sg-sim0000"]));
    assert_eq!(
        simulator.stats()["calls"]["JoinSecurityGroup"],
        json!({"ConnectionReset": 2})
    );
    assert_eq!(simulator.stats()["effects"]["JoinSecurityGroup"], 1);
}

#[test]
fn silence_and_timeout_faults_may_keep_their_effect() {
    let simulator = RawSimulator::start(&["--instances=1", "--security-groups=1"]);
    fault(
        &simulator,
        r#"{"count": 1, "fault": "silence", "effect": true}"#,
    );
    let silent = simulator.call("JoinSecurityGroup", &JOIN).unwrap_err();
    assert!(
        matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{silent}"
    );
    assert_eq!(groups(&simulator), json!(["sg-base", "sg-sim0000"]));
    fault(
        &simulator,
        r#"{"count": 1, "fault": {"error": {"code": "RequestTimeout"}}, "effect": true}"#,
    );
    let reply = simulator.call("LeaveSecurityGroup", &JOIN).unwrap();
    assert_eq!(
        (reply.status, &reply.json()["Code"]),
        (504, &json!("RequestTimeout"))
    );
    assert_eq!(groups(&simulator), json!(["sg-base"]));
}

#[test]
fn every_kind_of_malformed_body_can_be_served() {
    let simulator = RawSimulator::start(&["--instances=1", "--security-groups=1"]);
    let broken = |body: &str| {
        fault(
            &simulator,
            &format!(r#"{{"count": 1, "fault": {{"malformed": "{body}"}}}}"#),
        );
        simulator.call("DescribeInstances", &[("RegionId", "cn-hangzhou")])
    };
    let html = broken("html").unwrap();
    assert!(html.status == 200 && html.body.starts_with("<html>"));
    assert_eq!(broken("badGateway").unwrap().status, 502);
    assert_eq!(broken("empty").unwrap().body, "");
    assert!(broken("wrongTypes").unwrap().json()["Instances"].is_array());
    assert!(broken("garbage").unwrap().body.contains('\u{fffd}'));
    let huge = broken("huge").unwrap();
    assert!(huge.complete && huge.body.len() == 64 << 20);
    let truncated = broken("truncated").unwrap();
    assert!(!truncated.complete && truncated.body.starts_with('{'));
    let drip = broken("drip").unwrap();
    assert!(!drip.complete && drip.body.len() < 6, "a byte a second");
}

#[test]
fn fault_latency_adds_to_the_latency_of_each_call() {
    let simulator = RawSimulator::start(&["--instances=1", "--latency=100ms"]);
    let timed = || {
        let start = Instant::now();
        assert_eq!(
            simulator
                .call("DescribeInstances", &[("RegionId", "cn-hangzhou")])
                .unwrap()
                .status,
            200
        );
        start.elapsed()
    };
    let plain = timed();
    assert!(
        plain >= Duration::from_millis(100) && plain < Duration::from_millis(400),
        "{plain:?}"
    );
    fault(&simulator, r#"{"fault": {"latency": "400ms"}}"#);
    assert!(timed() >= Duration::from_millis(500));
    assert_eq!(simulator.admin("DELETE", "/faults", "").status, 204);
    assert!(timed() < Duration::from_millis(400));
}

#[test]
fn limits_from_the_command_line_hold() {
    let simulator = RawSimulator::start(&["--instances=1", "--limit=DescribeSecurityGroups=3"]);
    let codes: Vec<u16> = (0..10)
        .map(|_| {
            simulator
                .call("DescribeSecurityGroups", &[("RegionId", "cn-hangzhou")])
                .unwrap()
                .status
        })
        .collect();
    // Three in a minute, and the minute may turn while this runs.
    let passed = codes.iter().filter(|status| **status == 200).count();
    assert!((3..=6).contains(&passed), "{codes:?}");
    assert!(codes.contains(&400), "{codes:?}");
}

#[test]
fn bad_admin_request_names_the_wrong_field() {
    let simulator = RawSimulator::start(&["--instances=1", "--security-groups=1"]);
    for (path, body, field) in [
        ("/faults", r#"{"fault": "explode"}"#, "explode"),
        (
            "/faults",
            r#"{"actoin": "Join", "fault": "reset"}"#,
            "actoin",
        ),
        (
            "/faults",
            r#"[{"fault": "reset"}, {"count": "many", "fault": "reset"}]"#,
            "[1].count",
        ),
        (
            "/faults",
            r#"{"probability": 2, "fault": "reset"}"#,
            "probability",
        ),
        ("/faults", r#"{"fault": {"latency": "soon"}}"#, "latency"),
        ("/faults", "reset", "not JSON"),
        (
            "/faults",
            r#"{"action": "Join", "fault": "reset"}"#,
            "action: there is no action \"Join\": write one of JoinSecurityGroup",
        ),
        (
            "/faults",
            r#"{"fault": {"error": {"code": "C", "status": 99}}}"#,
            "status: expected a number from 200 to 599",
        ),
        (
            "/change",
            r#"{"set": {"limits": {"Join": 3}}}"#,
            "limits: there is no action \"Join\"",
        ),
        (
            "/change",
            r#"{"set": {"lag": "11m"}}"#,
            "lag: a lag is 10m at most",
        ),
        (
            "/change",
            r#"{"addKey": {"id": "k", "secret": ""}}"#,
            "secret: ",
        ),
        ("/change", r#"{"explode": {}}"#, "explode"),
        (
            "/change",
            r#"{"join": {"target": "i-sim000000"}}"#,
            "securityGroupId",
        ),
        (
            "/change",
            r#"{"join": {"target": "i-nowhere", "securityGroupId": "sg-sim0000"}}"#,
            "target: there is no i-nowhere",
        ),
        (
            "/change",
            r#"{"setStatus": {"id": "i-sim000000", "status": "Sleeping"}}"#,
            "status",
        ),
        (
            "/change",
            r#"{"set": {"groupsPerTarget": -1}}"#,
            "groupsPerTarget",
        ),
        (
            "/change",
            r#"{"createInstance": {"id": "i-new", "securityGroupIds": ["sg-nowhere"]}}"#,
            "securityGroupIds",
        ),
    ] {
        let reply = simulator.admin("POST", path, body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body.contains(field), "{body}: {}", reply.body);
    }
}

/// Every JSON of the manual, as it stands, against the manual's own inventory.
#[test]
fn admin_examples_of_the_manual_work_as_written() {
    let manual = manual();
    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        let parts = manual.split(&fence).skip(1);
        parts
            .map(|rest| rest.split("```").next().unwrap().to_owned())
            .collect()
    };
    let directory = TempDir::new("manual");
    let inventory = directory.file("inventory.yaml", &blocks("yaml")[0]);
    let simulator = RawSimulator::start(&["--inventory", &inventory]);
    let (mut faults, mut changes) = (0, 0);
    for block in blocks("json") {
        let path = if block.contains("\"fault\"") {
            faults += 1;
            "/faults"
        } else {
            changes += 1;
            "/change"
        };
        let reply = simulator.admin("POST", path, &block);
        assert_eq!(reply.status, 204, "{block}: {}", reply.body);
    }
    assert!(faults > 0 && changes > 0);

    // What else there is says the refusal itself.
    let mut words = 0;
    for (path, body) in [
        ("/change", r#"{"no such": {}}"#),
        ("/faults", r#"{"fault": "no such"}"#),
        ("/faults", r#"{"fault": {"malformed": "no such"}}"#),
    ] {
        let refused = simulator.admin("POST", path, body).body;
        let expected = refused.split_once("expected one of ").unwrap().1;
        for word in expected.split('`').skip(1).step_by(2) {
            words += 1;
            assert!(
                [format!("\"{word}\""), format!("`{word}`")]
                    .iter()
                    .any(|quoted| manual.contains(quoted)),
                "the manual lacks {word}"
            );
        }
    }
    assert!(words > 30, "{words}");
}

#[test]
fn every_flag_is_in_the_manual() {
    let output = Command::new(env!("CARGO_BIN_EXE_ecs-simulator"))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let flags: Vec<&str> = help
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
        .filter(|word| word.starts_with("--") && !["--help", "--version"].contains(word))
        .collect();
    assert!(flags.len() > 10, "{flags:?}");
    for flag in flags {
        assert!(manual().contains(flag), "the manual lacks {flag}");
    }
}

fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulator.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn admin_changes_apply_at_once() {
    let simulator = RawSimulator::start(&["--instances=1", "--security-groups=1"]);
    let changes = r#"[
        {"join": {"target": "i-sim000000", "securityGroupId": "sg-sim0000"}},
        {"leave": {"target": "i-sim000000", "securityGroupId": "sg-base"}},
        {"setStatus": {"id": "i-sim000000", "status": "Starting", "for": "1h"}},
        {"lock": {"id": "i-sim000000"}}, {"unlock": {"id": "i-sim000000"}},
        {"createGroup": {"id": "sg-new", "quota": 0}}
    ]"#;
    let reply = simulator.admin("POST", "/change", changes);
    assert_eq!(reply.status, 204, "{}", reply.body);
    assert_eq!(
        simulator.state()["instances"]["i-sim000000"],
        json!({"status": "Starting", "securityGroupIds": ["sg-sim0000"]})
    );
    assert_eq!(
        simulator.call("JoinSecurityGroup", &JOIN).unwrap().json()["Code"],
        "IncorrectInstanceStatus"
    );
}

#[test]
fn failed_start_prints_one_line() {
    let directory = TempDir::new("refused");
    let path = &directory.file(
        "inventory.yaml",
        "instances:\n- id: i-1\n  securityGroup: sg-1\n",
    );
    let run = |arguments: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ecs-simulator"))
            .args(["--listen=127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that started all the same would run for ever.
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.code().is_some_and(|code| code != 0),
            "{arguments:?}: {}",
            output.status
        );
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(&["--inventory", path]);
    assert!(
        told.contains(path)
            && told.contains("instances[0].securityGroup: ")
            && told.lines().count() == 1,
        "{told}"
    );
    assert!(run(&["--inventory", "/nowhere"]).contains("/nowhere"));
    assert!(run(&["--limit", "JoinSecurityGroup"]).contains("ACTION=CALLS"));
    assert!(run(&["--latency", "soon"]).contains("30ms"));
    assert!(run(&["--access-key", "id"]).contains("ID=SECRET"));
    let told = run(&["--limit", "JoinSecurityGroups=600"]);
    assert!(
        told.contains("JoinSecurityGroups") && told.contains("LeaveSecurityGroup"),
        "{told}"
    );
    let both = run(&["--inventory", path, "--instances", "3"]);
    assert!(both.contains("cannot be used with"), "{both}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let told = run(&["--admin", &address]);
    assert!(
        told.starts_with(&format!("ecs-simulator: --admin {address}: "))
            && told.lines().count() == 1,
        "{told}"
    );
}

/// A directory of a test's own.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let name = format!("ecs-simulator-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
