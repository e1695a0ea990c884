//! The vendor's own SDKs work against the simulated cloud unchanged: for success, for an error code, for a wrong key.
//!
//! They need Python 3 with venv, Node.js with npm, and the registries of both the first time. Where these are missing the test says
//! so on stderr and passes, unless `CI` or `SECURITY_GROUP_OPERATOR_REQUIRE_VENDOR_SDKS` is set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use security_group_operator::ecs::sign::sha256_hex;
use serde_json::{Value, json};

use crate::support::simulator::SimulatorProcess;

#[tokio::test]
async fn acs3_sdk_for_python_works_unchanged() {
    let Some(mut steps) = run("acs3.py", python).await else {
        return;
    };
    check_calls(&mut steps);
    check_error(&mut steps, "wrong secret", "SignatureDoesNotMatch", 400);
    assert_eq!(steps, BTreeMap::new(), "every step is judged");
}

#[tokio::test]
async fn rpc_sdk_for_python_works_unchanged() {
    let Some(mut steps) = run("rpc.py", python).await else {
        return;
    };
    check_calls(&mut steps);
    check_ok(&mut steps, "identity", &json!("1000000000000001"));
    check_error(&mut steps, "no such role", "EntityNotExist.Role", 404);
    check_ok(&mut steps, "identity of role", &json!("1000000000000001"));
    check_ok(&mut steps, "statuses of role", &json!(1));
    check_error(&mut steps, "join of role", "Forbidden.RAM", 403);
    // The SDK compares the string to sign that the server echoes with its own, and concludes that the secret is wrong.
    check_error(&mut steps, "wrong secret", "InvalidAccessKeySecret", 400);
    assert_eq!(steps, BTreeMap::new(), "every step is judged");
}

#[tokio::test]
async fn acs3_sdk_for_node_works_unchanged() {
    let Some(mut steps) = run("acs3.js", node).await else {
        return;
    };
    check_calls(&mut steps);
    check_error(&mut steps, "wrong secret", "SignatureDoesNotMatch", 400);
    for (step, expected) in [
        ("attachment", json!(["i-sim000000", 1])),
        ("disk", json!([["d-sim000003", "system"]])),
        ("attribute", json!(["sg-base"])),
        ("maintenance", json!(["AutoRecover"])),
        ("private pool", json!(["None"])),
        ("tags", json!([[], ""])),
        ("set groups", json!(["sg-base", "sg-sim0002"])),
    ] {
        check_ok(&mut steps, step, &expected);
    }
    check_error(&mut steps, "dry run", "DryRunOperation", 400);
    assert_eq!(steps, BTreeMap::new(), "every step is judged");
}

#[tokio::test]
async fn rpc_sdk_for_node_works_unchanged() {
    let Some(mut steps) = run("rpc.js", node).await else {
        return;
    };
    check_calls(&mut steps);
    check_ok(&mut steps, "identity", &json!("1000000000000001"));
    check_error(&mut steps, "wrong secret", "SignatureDoesNotMatch", 400);
    assert_eq!(steps, BTreeMap::new(), "every step is judged");
}

/// Each machine installs from its own registry.
#[test]
fn lock_file_names_no_registry() {
    let lock = std::fs::read_to_string(sources().join("package-lock.json")).unwrap();
    assert!(lock.contains("\"integrity\"") && !lock.contains("\"resolved\""));
    assert!(!lock.contains("://"));
}

type Steps = BTreeMap<String, Value>;

fn check_calls(steps: &mut Steps) {
    let pages = steps.remove("pages").unwrap();
    let sizes: Vec<usize> = pages["ok"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page.as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [10, 10, 5], "{pages}");
    for name in ["join", "leave", "join interface"] {
        let step = steps.remove(name).unwrap();
        assert!(is_request_id(&step["ok"]), "{step}");
    }
    check_ok(steps, "members", &json!([["i-sim000000"]]));
    check_ok(steps, "members after", &json!([[]]));
    check_ok(
        steps,
        "groups of interface",
        &json!(["sg-base", "sg-sim0001"]),
    );
    check_ok(steps, "groups", &json!(["sg-base", "sg-sim0001"]));
    check_ok(
        steps,
        "statuses",
        &json!([["i-sim000001", "Running"], ["i-sim000002", "Running"]]),
    );
    check_error(steps, "join again", "InvalidInstanceId.AlreadyExists", 403);
    check_error(steps, "leave last", "InstanceLastSecurityGroup", 403);
    check_error(
        steps,
        "no such group",
        "InvalidSecurityGroupId.NotFound",
        404,
    );
    check_error(steps, "wrong key", "InvalidAccessKeyId.NotFound", 404);
}

fn check_ok(steps: &mut Steps, name: &str, expected: &Value) {
    let step = steps.remove(name).unwrap();
    assert_eq!(&step["ok"], expected, "{step}");
}

fn check_error(steps: &mut Steps, name: &str, code: &str, status: u16) {
    let step = steps.remove(name).unwrap();
    assert_eq!(
        (&step["code"], &step["status"]),
        (&json!(code), &json!(status)),
        "{step}"
    );
    assert!(is_request_id(&step["requestId"]), "{step}");
}

fn is_request_id(value: &Value) -> bool {
    value.as_str().is_some_and(|id| id.len() == 36)
}

/// Runs a script with the interpreter of an environment that has its SDK. `None` if there can be no such environment here.
async fn run(script: &str, environment: fn() -> Result<Interpreter, String>) -> Option<Steps> {
    let interpreter = match environment() {
        Ok(interpreter) => interpreter,
        Err(reason) => {
            let required = ["CI", "SECURITY_GROUP_OPERATOR_REQUIRE_VENDOR_SDKS"];
            assert!(
                !required.iter().any(|name| std::env::var_os(name).is_some()),
                "{reason}"
            );
            // Written straight to stderr: the test harness swallows what the print macros say when a test passes.
            // In one piece, since several tests may have something to say.
            let said = format!(
                "\nSKIPPED: the vendor's SDKs were not run against the simulated cloud ({script}): {reason}\n\n"
            );
            let _ = std::io::stderr().write_all(said.as_bytes());
            return None;
        }
    };
    let arguments = [
        "--instances=25",
        "--security-groups=3",
        "--network-interfaces=1",
        "--access-key=testid=testsecret",
    ];
    let binary = Path::new(env!("CARGO_BIN_EXE_ecs-simulator"));
    let simulator = SimulatorProcess::start(binary, &arguments).await.unwrap();
    let reader = json!({"addRole": {"name": "reader",
        "trustPolicy": {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"RAM": "acs:ram::1000000000000001:root"}}]},
        "policies": [{"Statement": [{"Effect": "Allow", "Action": "ecs:Describe*", "Resource": "*"}]}]}});
    simulator.change(&reader).await.unwrap();
    let output = Command::new(interpreter.program)
        .arg(sources().join(script))
        .envs(interpreter.environment)
        .env("ECS_ENDPOINT", &simulator.endpoint()["http://".len()..])
        .env("KEY", "testid")
        .env("SECRET", "testsecret")
        // Whatever proxy the machine has: the simulated cloud is on this machine.
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let steps = stdout.lines().map(|line| {
        let mut step: Value = serde_json::from_str(line).unwrap();
        (step["step"].take().as_str().unwrap().to_owned(), step)
    });
    Some(steps.collect())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulator/vendor_sdk")
}

struct Interpreter {
    program: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// The Python of a virtual environment that has the SDKs.
fn python() -> Result<Interpreter, String> {
    let version = checked(Command::new("python3").arg("--version"))
        .map_err(|error| format!("python3 is needed: {error}"))?;
    let requirements = sources().join("requirements.txt");
    let place = installed(&version, &[&requirements], |making| {
        checked(Command::new("python3").args(["-m", "venv"]).arg(making))?;
        let mut pip = Command::new(making.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "-r"])
            .arg(&requirements);
        checked(&mut pip)
    })?;
    Ok(Interpreter {
        program: place.join("bin/python"),
        environment: Vec::new(),
    })
}

/// Node.js with the modules of the SDKs.
fn node() -> Result<Interpreter, String> {
    let version = checked(Command::new("node").arg("--version"))
        .map_err(|error| format!("node is needed: {error}"))?;
    let files = ["package.json", "package-lock.json"].map(|name| sources().join(name));
    let place = installed(&version, &[&files[0], &files[1]], |making| {
        std::fs::create_dir_all(making).map_err(|error| error.to_string())?;
        for file in &files {
            let name = file.file_name().unwrap_or_default();
            std::fs::copy(file, making.join(name)).map_err(|error| error.to_string())?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(making);
        checked(&mut npm).map_err(|error| format!("npm: {error}"))
    })?;
    Ok(Interpreter {
        program: "node".into(),
        environment: vec![("NODE_PATH", place.join("node_modules").into())],
    })
}

/// The directory of the cache for an interpreter of this version and these lists of packages. `install` fills it beside its place, and
/// it is renamed into it, so that two tests at once and a half-made one do no harm.
fn installed(
    version: &str,
    lists: &[&Path],
    install: impl FnOnce(&Path) -> Result<String, String>,
) -> Result<PathBuf, String> {
    let mut key = version.as_bytes().to_vec();
    for list in lists {
        key.extend(std::fs::read(list).unwrap());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("security-group-operator/vendor-sdk");
    let place = cache.join(&sha256_hex(&key)[..16]);
    if place.exists() {
        return Ok(place);
    }
    std::fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let unique = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    let making = cache.join(format!("making-{}", unique.replace(['(', ')'], "")));
    let made = install(&making)
        .map_err(|error| format!("the vendor's SDKs could not be installed: {error}"));
    if made.is_ok() && std::fs::rename(&making, &place).is_ok() {
        return Ok(place);
    }
    // Either it failed, or another test was faster.
    let _ = std::fs::remove_dir_all(&making);
    made?;
    let message = || format!("{} cannot be made", place.display());
    place.exists().then_some(place.clone()).ok_or_else(message)
}

fn checked(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
