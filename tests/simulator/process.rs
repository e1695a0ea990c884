//! The simulated cloud as a process: its ports, faults as they feel on a socket, the back door, and what it says when it cannot start.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use security_group_operator::simulator::DEFAULT_ACCESS_KEY;
use serde_json::{Value, json};

use crate::support::simulator::SimulatorProcess;
use crate::support::tempdir::TempDir;
use crate::world::signed;

const BINARY: &str = env!("CARGO_BIN_EXE_ecs-simulator");

const JOIN: [(&str, &str); 2] = [
    ("InstanceId", "i-sim000000"),
    ("SecurityGroupId", "sg-sim0000"),
];

async fn start(arguments: &[&str]) -> SimulatorProcess {
    SimulatorProcess::start(Path::new(BINARY), arguments)
        .await
        .unwrap()
}

/// A signed call, byte by byte: a broken answer is one of the answers.
fn call(
    simulator: &SimulatorProcess,
    action: &str,
    parameters: &[(&str, &str)],
) -> std::io::Result<Reply> {
    let request = signed(DEFAULT_ACCESS_KEY, action, parameters, Timestamp::now());
    let target = format!("{}{}", simulator.endpoint(), request.uri());
    exchange("GET", &target, "")
}

fn admin(simulator: &SimulatorProcess, method: &str, path: &str, body: &str) -> Reply {
    exchange(method, &simulator.admin_url(path), body).unwrap()
}

#[derive(Debug)]
struct Reply {
    status: u16,
    body: String,
    /// Whether as much came as was announced.
    complete: bool,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Reads what comes until the connection ends; of a few bytes at a time, what comes in about three seconds.
fn exchange(method: &str, url: &str, body: &str) -> std::io::Result<Reply> {
    let (address, target) = url["http://".len()..].split_once('/').unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(
        stream,
        "{method} /{target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let ended = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => break Err(error),
        }
        // Only what drips has no end: a large answer takes as long as a busy machine needs.
        if Instant::now() > deadline && bytes.len() < buffer.len() {
            break Ok(());
        }
    };
    if bytes.is_empty() {
        ended?;
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let announced = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    Ok(Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        complete: announced.is_none_or(|length| bytes.len() - head.len() - 4 == length),
        body: body.to_owned(),
    })
}

async fn groups(simulator: &SimulatorProcess) -> Value {
    simulator.state().await.unwrap()["instances"]["i-sim000000"]["securityGroupIds"].clone()
}

fn fault(simulator: &SimulatorProcess, fault: &str) {
    let reply = admin(simulator, "POST", "/faults", fault);
    assert_eq!(reply.status, 204, "{}", reply.body);
}

/// Who misses something learns from the log what the simulator lacks, once each.
#[tokio::test]
async fn log_names_what_is_not_implemented_once() {
    let mut simulator = start(&["--instances=1"]).await;
    let filter = [
        ("RegionId", "cn-hangzhou"),
        ("Filter.1.Key", "CreationStartTime"),
        ("Filter.12.Key", "CreationEndTime"),
        ("OwnerId", "1"),
    ];
    for _ in 0..2 {
        assert_eq!(
            call(&simulator, "DescribeInstances", &filter)
                .unwrap()
                .status,
            200
        );
        assert_eq!(
            call(&simulator, "RunInstances", &filter).unwrap().status,
            404
        );
    }
    // The operator's own calls miss nothing.
    let ids = [
        ("RegionId", "cn-hangzhou"),
        ("InstanceIds", "[\"i-sim000000\"]"),
        ("MaxResults", "100"),
    ];
    assert_eq!(
        call(&simulator, "DescribeInstances", &ids).unwrap().status,
        200
    );
    let log = std::fs::read_to_string(simulator.process().log()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("the simulator ignores Filter.N.Key of DescribeInstances"),
        "{log}"
    );
    assert!(
        lines[1].contains("the simulator does not implement RunInstances"),
        "{log}"
    );
}

/// Scripts read the addresses there.
#[test]
fn first_two_lines_name_both_addresses() {
    let mut child = Command::new(BINARY)
        .args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    let health = |line: &str, start: &str| {
        let url = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
        exchange("GET", &format!("{url}/healthz"), "")
            .unwrap()
            .status
    };
    assert_eq!(health(&lines[0], "listening on "), 200);
    assert_eq!(health(&lines[1], "admin on "), 200);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn admin_port_serves_state_statistics_and_journal() {
    let simulator = start(&[
        "--instances=1",
        "--security-groups=1",
        "--network-interfaces=1",
    ])
    .await;
    assert_eq!(
        call(&simulator, "JoinSecurityGroup", &JOIN).unwrap().status,
        200
    );
    assert_eq!(
        call(&simulator, "JoinSecurityGroup", &JOIN).unwrap().status,
        403
    );
    let state = simulator.state().await.unwrap();
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
        simulator.stats().await.unwrap()["calls"],
        json!({"JoinSecurityGroup": {"OK": 1, "InvalidInstanceId.AlreadyExists": 1}})
    );
    let journal = admin(&simulator, "GET", "/journal", "").body;
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
        assert_eq!(admin(&simulator, "POST", "/change", leave).status, 204);
    }
    let journal = admin(&simulator, "GET", "/journal", "").body;
    let journal: Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(journal.as_array().unwrap().len(), 2, "{journal}");
    assert_eq!(journal[1]["action"], "LeaveSecurityGroup");
    assert_eq!(journal[1]["by"], "admin");
    assert_eq!(admin(&simulator, "POST", "/stats/reset", "").status, 204);
    assert_eq!(simulator.stats().await.unwrap()["calls"], json!({}));
    assert_eq!(admin(&simulator, "GET", "/journal", "").body, "[]");
}

#[tokio::test]
async fn reset_fault_may_keep_its_effect() {
    let simulator = start(&["--instances=1", "--security-groups=1"]).await;
    fault(
        &simulator,
        r#"{"action": "JoinSecurityGroup", "count": 1, "fault": "reset"}"#,
    );
    let broken = call(&simulator, "JoinSecurityGroup", &JOIN).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    assert_eq!(groups(&simulator).await, json!(["sg-base"]), "no effect");
    fault(
        &simulator,
        r#"{"action": "JoinSecurityGroup", "count": 1, "fault": "reset", "effect": true}"#,
    );
    assert_eq!(
        call(&simulator, "JoinSecurityGroup", &JOIN)
            .unwrap_err()
            .kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(groups(&simulator).await, json!(["sg-base", "sg-sim0000"]));
    assert_eq!(
        simulator.stats().await.unwrap()["calls"]["JoinSecurityGroup"],
        json!({"ConnectionReset": 2})
    );
    assert_eq!(
        simulator.stats().await.unwrap()["effects"]["JoinSecurityGroup"],
        1
    );
}

#[tokio::test]
async fn silence_and_timeout_faults_may_keep_their_effect() {
    let simulator = start(&["--instances=1", "--security-groups=1"]).await;
    fault(
        &simulator,
        r#"{"count": 1, "fault": "silence", "effect": true}"#,
    );
    let silent = call(&simulator, "JoinSecurityGroup", &JOIN).unwrap_err();
    assert!(
        matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{silent}"
    );
    assert_eq!(groups(&simulator).await, json!(["sg-base", "sg-sim0000"]));
    fault(
        &simulator,
        r#"{"count": 1, "fault": {"error": {"code": "RequestTimeout"}}, "effect": true}"#,
    );
    let reply = call(&simulator, "LeaveSecurityGroup", &JOIN).unwrap();
    assert_eq!(
        (reply.status, &reply.json()["Code"]),
        (504, &json!("RequestTimeout"))
    );
    assert_eq!(groups(&simulator).await, json!(["sg-base"]));
}

#[tokio::test]
async fn every_kind_of_malformed_body_can_be_served() {
    let simulator = start(&["--instances=1", "--security-groups=1"]).await;
    let broken = |body: &str| {
        fault(
            &simulator,
            &format!(r#"{{"count": 1, "fault": {{"malformed": "{body}"}}}}"#),
        );
        call(
            &simulator,
            "DescribeInstances",
            &[("RegionId", "cn-hangzhou")],
        )
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

#[tokio::test]
async fn fault_latency_adds_to_the_latency_of_each_call() {
    let simulator = start(&["--instances=1", "--latency=100ms"]).await;
    let timed = || {
        let start = Instant::now();
        assert_eq!(
            call(
                &simulator,
                "DescribeInstances",
                &[("RegionId", "cn-hangzhou")]
            )
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
    assert_eq!(admin(&simulator, "DELETE", "/faults", "").status, 204);
    assert!(timed() < Duration::from_millis(400));
}

#[tokio::test]
async fn limits_from_the_command_line_hold() {
    let simulator = start(&["--instances=1", "--limit=DescribeSecurityGroups=3"]).await;
    let codes: Vec<u16> = (0..10)
        .map(|_| {
            call(
                &simulator,
                "DescribeSecurityGroups",
                &[("RegionId", "cn-hangzhou")],
            )
            .unwrap()
            .status
        })
        .collect();
    // Three in a minute, and the minute may turn while this runs.
    let passed = codes.iter().filter(|status| **status == 200).count();
    assert!((3..=6).contains(&passed), "{codes:?}");
    assert!(codes.contains(&400), "{codes:?}");
}

#[tokio::test]
async fn bad_admin_request_names_the_wrong_field() {
    let simulator = start(&["--instances=1", "--security-groups=1"]).await;
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
        let reply = admin(&simulator, "POST", path, body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body.contains(field), "{body}: {}", reply.body);
    }
}

/// Every JSON of the manual, as it stands, against the manual's own inventory.
#[tokio::test]
async fn admin_examples_of_the_manual_work_as_written() {
    let manual = manual();
    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        let parts = manual.split(&fence).skip(1);
        parts
            .map(|rest| rest.split("```").next().unwrap().to_owned())
            .collect()
    };
    let directory = TempDir::new("manual").unwrap();
    let inventory = file(&directory, &blocks("yaml")[0]);
    let simulator = start(&["--inventory", &inventory]).await;
    let (mut faults, mut changes) = (0, 0);
    for block in blocks("json") {
        let path = if block.contains("\"fault\"") {
            faults += 1;
            "/faults"
        } else {
            changes += 1;
            "/change"
        };
        let reply = admin(&simulator, "POST", path, &block);
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
        let refused = admin(&simulator, "POST", path, body).body;
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
    let output = Command::new(BINARY).arg("--help").output().unwrap();
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

#[tokio::test]
async fn admin_changes_apply_at_once() {
    let simulator = start(&["--instances=1", "--security-groups=1"]).await;
    let changes = r#"[
        {"join": {"target": "i-sim000000", "securityGroupId": "sg-sim0000"}},
        {"leave": {"target": "i-sim000000", "securityGroupId": "sg-base"}},
        {"setStatus": {"id": "i-sim000000", "status": "Starting", "for": "1h"}},
        {"lock": {"id": "i-sim000000"}}, {"unlock": {"id": "i-sim000000"}},
        {"createGroup": {"id": "sg-new", "quota": 0}}
    ]"#;
    let reply = admin(&simulator, "POST", "/change", changes);
    assert_eq!(reply.status, 204, "{}", reply.body);
    assert_eq!(
        simulator.state().await.unwrap()["instances"]["i-sim000000"],
        json!({"status": "Starting", "securityGroupIds": ["sg-sim0000"]})
    );
    assert_eq!(
        call(&simulator, "JoinSecurityGroup", &JOIN).unwrap().json()["Code"],
        "IncorrectInstanceStatus"
    );
}

#[test]
fn failed_start_prints_one_line() {
    let directory = TempDir::new("refused").unwrap();
    let path = &file(&directory, "instances:\n- id: i-1\n  securityGroup: sg-1\n");
    let run = |arguments: &[&str]| {
        let mut child = Command::new(BINARY)
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

/// An inventory file.
fn file(directory: &TempDir, text: &str) -> String {
    let path = directory.path().join("inventory.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
