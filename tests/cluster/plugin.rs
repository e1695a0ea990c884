//! `kubectl sgm` beside a real API server and the simulated cloud, as a person runs it: what it prints, its exit codes, its rights.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::binaries;
use crate::plugin_docs::assert_documented;
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Error, Result};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-hand, securityGroupIds: [sg-base, sg-web]}
- {id: i-web, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-hand, instanceId: i-web, securityGroupIds: [sg-base, sg-web]}
";

/// What a command printed, and how it ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Result<Self> {
        Ok(Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// The one line of an error.
    pub fn line(&self) -> &str {
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("kubectl sgm: "), "{}", self.err);
        self.err.trim_end()
    }

    pub fn json(&self) -> Result<Value> {
        assert_eq!(self.code, 0, "{}", self.err);
        Ok(serde_json::from_str(&self.out)?)
    }

    /// The words of each line.
    pub fn table(&self) -> Vec<Vec<&str>> {
        let lines = self.out.lines();
        lines
            .map(|line| line.split_whitespace().collect())
            .collect()
    }
}

/// The plugin, with nothing of this process's environment that could change its answer.
fn command(kubeconfig: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-sgm"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ALIBABA_CLOUD_") || name.starts_with("SECURITY_GROUP_OPERATOR_") {
            command.env_remove(name);
        }
    }
    command
        .env("KUBECONFIG", kubeconfig)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("HOME", "/nonexistent");
    command
}

pub async fn sgm(arguments: &[&str]) -> Result<Ran> {
    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    Ran::of(command(&kubeconfig).args(arguments).output().await?)
}

/// The same with the person's own key, for the cloud of the environment.
pub async fn sgm_with_key(env: &TestEnv, arguments: &[&str]) -> Result<Ran> {
    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    let endpoint = env.simulator.endpoint();
    let output = command(&kubeconfig)
        .args(arguments)
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "testid")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "testsecret")
        .env("SECURITY_GROUP_OPERATOR_ECS_ENDPOINT", &endpoint)
        .env("SECURITY_GROUP_OPERATOR_STS_ENDPOINT", &endpoint)
        .output();
    Ran::of(output.await?)
}

#[tokio::test]
async fn why_tells_all_of_a_joined_membership_in_one_screen() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    let ran = sgm(&["why", "web", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.lines().count() <= 24, "{}", ran.out);
    for told in [
        format!("Membership    {}/web", env.name),
        format!(
            "Spec          i-web in sg-web (cn-hangzhou, ClusterCloudAccount {})",
            env.name
        ),
        format!(
            "Owned         Joined: the operator made the membership of cloud account {}",
            env.account
        ),
        "Ready         True Joined, for ".to_owned(),
        "Also held by  no other object".to_owned(),
        "On deletion   the operator removes i-web from sg-web (LeaveSecurityGroup)".to_owned(),
    ] {
        assert!(ran.out.contains(&told), "{told} is not in:\n{}", ran.out);
    }
    Ok(())
}

#[tokio::test]
async fn why_tells_the_error_the_next_step_and_who_else_holds_the_edge() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("first", "i-web", "sg-web", json!({})).await?;
    env.until_ready("first").await?;
    env.apply("second", "i-web", "sg-web", json!({})).await?;
    env.until_reason("second", "Shared").await?;
    let ran = sgm(&["why", "first", "-n", &env.name]).await?;
    assert!(
        ran.out.contains(&format!(
            "Also held by  {}/second (Ready True Shared)",
            env.name
        )),
        "{}",
        ran.out
    );
    let heir = format!(
        "nothing happens in the cloud: {}/second takes over",
        env.name
    );
    assert!(ran.out.contains(&heir), "{}", ran.out);
    assert_documented("why first", &ran, &env)?;

    env.apply("lost", "i-web", "sg-gone", json!({})).await?;
    env.until_reason("lost", "InvalidSecurityGroupIdNotFound")
        .await?;
    let ran = sgm(&["why", "lost", "-n", &env.name]).await?;
    assert_eq!(ran.code, 3, "{}", ran.out);
    for told in [
        "Last error    JoinSecurityGroup InvalidSecurityGroupId.NotFound (Absent), first ",
        ", request ",
        "Next step     check the ID, the region and the account, or create the group",
        "On deletion   nothing happens in the cloud: the operator has joined nothing",
    ] {
        assert!(ran.out.contains(told), "{told} is not in:\n{}", ran.out);
    }
    assert_documented("why lost", &ran, &env)?;

    let ran = sgm(&["why", "-n", &env.name]).await?;
    assert_eq!(ran.code, 3);
    assert_documented("why", &ran, &env)?;
    let names: Vec<_> = ran
        .table()
        .iter()
        .skip(1)
        .map(|row| row[1].to_owned())
        .collect();
    assert_eq!(names, ["lost"], "{}", ran.out);
    Ok(())
}

/// Python gives the plugin a terminal.
#[tokio::test]
async fn colours_are_for_a_terminal_alone() -> Result<()> {
    const TERMINAL: &str = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("lost", "i-none", "sg-web", json!({})).await?;
    env.until_reason("lost", "TargetNotFound").await?;
    let plane = ControlPlane::shared().await?;
    let plugin = env!("CARGO_BIN_EXE_kubectl-sgm");
    let red = "\u{1b}[31mFalse\u{1b}[0m";
    for (terminal, no_color, is_red) in [
        (true, false, true),
        (true, true, false),
        (false, false, false),
    ] {
        let mut all = command(&plane.admin_kubeconfig());
        if terminal {
            all = tokio::process::Command::new("python3");
            all.args(["-c", TERMINAL, plugin])
                .env("KUBECONFIG", plane.admin_kubeconfig());
        }
        all.args(["why", "-n", &env.name]).env_remove("NO_COLOR");
        if no_color {
            all.env("NO_COLOR", "1");
        }
        let ran = Ran::of(all.stdin(std::process::Stdio::null()).output().await?)?;
        assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
        assert_eq!(ran.out.contains(red), is_red, "{:?}", ran.out);
        assert_eq!(ran.out.contains('\u{1b}'), is_red, "{:?}", ran.out);
    }
    Ok(())
}

#[tokio::test]
async fn members_tells_objects_and_edges_of_others() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    let account: &str = &env.name;
    // Region and account are those of the one object that names the group in its namespace.
    let ran = sgm(&["members", "sg-web", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let object = format!("{}/web", env.name);
    assert_eq!(
        ran.table(),
        [
            vec![
                "TARGET", "MEMBER", "STATE", "OBJECT", "SET", "READY", "ORIGIN"
            ],
            vec![
                "i-hand", "True", "Running", "<none>", "<none>", "<none>", "<none>"
            ],
            vec![
                "i-web", "True", "Running", &object, "<none>", "True", "Joined"
            ],
            vec![
                "eni-hand", "True", "InUse", "<none>", "<none>", "<none>", "<none>"
            ],
        ]
    );
    assert_documented("members sg-web -n team-a", &ran, &env)?;
    for format in ["json", "yaml", "name", "wide"] {
        let ran = sgm(&[
            "members",
            "sg-web",
            "--account",
            account,
            "-n",
            &env.name,
            "-o",
            format,
        ])
        .await?;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("i-hand"), "{}", ran.out);
    }
    let own = sgm_with_key(&env, &["members", "sg-web", "-n", &env.name, "-o", "json"]).await?;
    let value = own.json()?;
    assert_eq!(value["members"].as_array().map(Vec::len), Some(3));
    assert_eq!(value["members"][1]["objects"][0]["name"], "web");
    Ok(())
}

#[tokio::test]
async fn groups_tells_every_group_of_a_target() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    let ran = sgm(&["groups", "i-web", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let object = format!("{}/web", env.name);
    assert_eq!(
        ran.table(),
        [
            vec![
                "TARGET",
                "SECURITY-GROUP",
                "MEMBER",
                "OBJECT",
                "SET",
                "READY",
                "ORIGIN"
            ],
            vec![
                "i-web", "sg-base", "True", "<none>", "<none>", "<none>", "<none>"
            ],
            vec![
                "i-web", "sg-web", "True", &object, "<none>", "True", "Joined"
            ],
        ]
    );
    assert_documented("groups i-web -n team-a", &ran, &env)?;
    let gone = [
        "groups",
        "i-gone",
        "i-hand",
        "--region",
        "cn-hangzhou",
        "-n",
        &env.name,
    ];
    let ran = sgm_with_key(&env, &gone).await?;
    assert_eq!(ran.code, 4);
    assert!(ran.line_of_note("i-gone"), "{}", ran.err);
    assert!(
        ran.out.contains("i-hand"),
        "the others are told all the same"
    );
    Ok(())
}

impl Ran {
    fn line_of_note(&self, word: &str) -> bool {
        self.err.lines().any(|line| line.contains(word))
    }
}

/// `kubectl apply -f -` of a text.
pub async fn apply(text: &str) -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let plane = ControlPlane::shared().await?;
    let mut apply = tokio::process::Command::from(plane.kubectl());
    let mut child = apply
        .args(["apply", "-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).await?;
    }
    assert!(child.wait().await?.success(), "{text}");
    Ok(())
}

/// What the plugin prints is applied: everything is adopted, nothing is joined, and nothing left when it is deleted.
#[tokio::test]
async fn adopted_yaml_changes_nothing_in_the_cloud() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let arguments = [
        "adopt",
        "--security-group=sg-web",
        "--region=cn-hangzhou",
        "--account",
        &env.name,
        "-n",
        &env.name,
    ];
    let ran = sgm(&arguments).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.err
            .contains("1 instance, 1 network interface; 0 named by an object, 2 printed"),
        "{}",
        ran.err
    );
    let shown = "adopt --security-group sg-web --region cn-hangzhou -n team-a";
    assert_documented(shown, &ran, &env)?;
    assert_eq!(
        env.memberships()
            .list(&kube::api::ListParams::default())
            .await?
            .items
            .len(),
        0
    );
    apply(&ran.out).await?;
    for name in ["sg-web-i-hand", "sg-web-eni-hand"] {
        env.until_reason(name, "Adopted").await?;
    }
    // Nothing is left to adopt.
    let again = sgm(&arguments).await?;
    assert_eq!((again.code, again.out.as_str()), (0, ""));
    for name in ["sg-web-i-hand", "sg-web-eni-hand"] {
        env.delete(name).await?;
        env.until_deleted(name).await?;
    }
    for action in ["JoinSecurityGroup", "LeaveSecurityGroup"] {
        assert_eq!(env.calls(action).await?, 0, "{action}");
    }
    Ok(())
}

#[tokio::test]
async fn each_way_to_fail_is_one_line_and_its_exit_code() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let none = command(Path::new("/nonexistent/kubeconfig"))
        .args(["why", "web"])
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .await?;
    let none = Ran::of(none)?;
    assert_eq!(none.code, 1);
    assert!(
        none.line().contains("no cluster: ") && none.line().contains("--kubeconfig"),
        "{}",
        none.err
    );

    let missing = sgm(&["why", "nobody", "-n", &env.name]).await?;
    assert_eq!(missing.code, 4);
    let told = format!(
        "there is no SecurityGroupMembership nobody in namespace {}",
        env.name
    );
    assert!(missing.line().contains(&told), "{}", missing.err);

    let stranger = sgm(&["why", "web", "-n", &env.name, "--as", "stranger"]).await?;
    assert_eq!(stranger.code, 5);
    let told = format!(
        "you may not get securitygroupmemberships in namespace {}",
        env.name
    );
    assert!(stranger.line().contains(&told), "{}", stranger.err);

    let wrong = sgm(&["members", "web"]).await?;
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.line().contains("is not a security group ID"),
        "{}",
        wrong.err
    );

    let nowhere = sgm(&["members", "sg-web", "-n", &env.name]).await?;
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.line().contains("--region"), "{}", nowhere.err);

    let keyless = sgm(&[
        "members",
        "sg-web",
        "-n",
        &env.name,
        "--region",
        "cn-hangzhou",
    ])
    .await?;
    assert_eq!(keyless.code, 1);
    assert!(
        keyless.line().contains("ALIBABA_CLOUD_ACCESS_KEY_ID"),
        "{}",
        keyless.err
    );
    Ok(())
}

/// Who may read an account and not its Secret is told so; so is who has a key without the right.
#[tokio::test]
async fn missing_rights_on_secret_and_in_the_cloud_are_told() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let plane = ControlPlane::shared().await?;
    let reader = format!("reader-{}", env.name);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": reader},
        "rules": [{"apiGroups": ["security-group-operator.io"], "resources": ["*"], "verbs": ["get", "list"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": reader},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": reader},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": reader}],
    });
    for object in [role, binding] {
        let file = plane.directory().join(format!(
            "{}-{}.json",
            env.name,
            object["kind"].as_str().unwrap_or_default()
        ));
        std::fs::write(&file, object.to_string())?;
        let mut apply = tokio::process::Command::from(plane.kubectl());
        let applied = apply.arg("apply").arg("-f").arg(&file).output().await?;
        if !applied.status.success() {
            return Err(Error::new(
                String::from_utf8_lossy(&applied.stderr).into_owned(),
            ));
        }
    }
    let arguments = ["members", "sg-web", "--region=cn-hangzhou", "-n", &env.name];
    let as_reader = [&arguments[..], &["--as", &reader, "--account", &env.name]].concat();
    crate::support::eventually::eventually("the reader may list", async || {
        Ok(!sgm(&as_reader).await?.err.contains("may not list"))
    })
    .await?;
    let ran = sgm(&as_reader).await?;
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(
        ran.line()
            .contains("you may not get secrets in namespace security-group-operator"),
        "{}",
        ran.err
    );

    let refused =
        json!({"action": "DescribeInstances", "fault": {"error": {"code": "Forbidden.RAM"}}});
    env.simulator.faults(&refused).await?;
    let ran = sgm(&[&arguments[..], &["--account", &env.name]].concat()).await?;
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(
        ran.line()
            .contains("may not ecs:DescribeInstances (Forbidden.RAM)"),
        "{}",
        ran.err
    );
    Ok(())
}

/// 10,000 members in 100 calls, with progress on standard error, and a reader that goes away after a line.
#[tokio::test]
async fn large_group_is_read_in_100_calls_with_progress() -> Result<()> {
    use std::fmt::Write as _;
    let mut inventory = "securityGroups: [{id: sg-base}, {id: sg-web}]\ninstances:\n".to_owned();
    for number in 0..10_000 {
        writeln!(
            inventory,
            "- {{id: i-{number:05}, securityGroupIds: [sg-base, sg-web]}}"
        )?;
    }
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    let arguments = [
        "members",
        "sg-web",
        "--region=cn-hangzhou",
        "-n",
        &env.name,
        "-o",
        "name",
    ];
    let before = env.calls("DescribeInstances").await?;
    let ran = sgm_with_key(&env, &arguments).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out.lines().count(), 10_000);
    assert_eq!(env.calls("DescribeInstances").await? - before, 100);
    assert!(
        ran.err.contains("5000 members read in 50 calls …"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("10000 members read in 101 calls"),
        "{}",
        ran.err
    );

    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    let endpoint = env.simulator.endpoint();
    let mut child = command(&kubeconfig)
        .args(arguments)
        .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "testid")
        .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "testsecret")
        .env("SECURITY_GROUP_OPERATOR_ECS_ENDPOINT", &endpoint)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    // The reader is gone before the first line.
    drop(child.stdout.take());
    let ended = Ran::of(child.wait_with_output().await?)?;
    assert_eq!(ended.code, 141, "{}", ended.err);
    assert!(
        !ended.err.contains("panicked") && !ended.err.contains("kubectl sgm:"),
        "{}",
        ended.err
    );
    Ok(())
}

#[tokio::test]
async fn completion_offers_verbs_flags_and_names() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    let asked =
        async |words: &[&str]| Ok::<_, Error>(sgm(&[&["__complete"], words].concat()).await?.out);
    let verbs = asked(&[""]).await?;
    assert!(
        verbs.contains("why\t") && verbs.ends_with(":4\n") && !verbs.contains("__complete"),
        "{verbs}"
    );
    assert!(asked(&["--kube"]).await?.starts_with("--kubeconfig\t"));
    assert_eq!(asked(&["why", "-n", &env.name, "w"]).await?, "web\t\n:4\n");
    assert!(asked(&["groups", "i-w"]).await?.contains("i-web\t"));
    let script = sgm(&["completion", "bash"]).await?;
    assert!(
        script.code == 0 && script.out.contains("kubectl-sgm"),
        "{}",
        script.err
    );
    Ok(())
}

/// A proxy that answers no request: what it was asked for, first lines only.
async fn proxy() -> Result<(String, std::sync::Arc<std::sync::Mutex<Vec<String>>>)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let asked: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::default();
    let seen = std::sync::Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut first = vec![0; 4096];
            let read = client.read(&mut first).await.unwrap_or_default();
            let text = String::from_utf8_lossy(first.get(..read).unwrap_or_default()).into_owned();
            let line = text.lines().next().unwrap_or_default().to_owned();
            if let Ok(mut seen) = seen.lock() {
                seen.push(line);
            }
            let answer = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
            client.write_all(answer.as_bytes()).await.ok();
        }
    });
    Ok((address, asked))
}

/// The plugin is in a person's network: its proxies lead to the cloud, and none to what `NO_PROXY` names or to this machine's API
/// server.
#[tokio::test]
async fn proxies_of_the_environment_are_used_and_no_proxy_is_heeded() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    let endpoint = env.simulator.endpoint();
    let (address, asked) = proxy().await?;
    for (no_proxy, is_used) in [
        ("", true),
        ("127.0.0.1", false),
        ("example.com,127.0.0.0/8", false),
    ] {
        let output = command(&kubeconfig)
            .args(["members", "sg-web", "--region=cn-hangzhou", "-n", &env.name])
            .env("ALIBABA_CLOUD_ACCESS_KEY_ID", "testid")
            .env("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "testsecret")
            .env("SECURITY_GROUP_OPERATOR_ECS_ENDPOINT", &endpoint)
            .env("HTTPS_PROXY", &address)
            .env("HTTP_PROXY", &address)
            .env("NO_PROXY", no_proxy)
            .output();
        let ran = Ran::of(output.await?)?;
        let lines = asked.lock().map(|mut lines| std::mem::take(&mut *lines));
        let lines = lines.unwrap_or_default();
        assert_eq!(ran.code, i32::from(is_used), "{no_proxy}: {}", ran.err);
        assert_eq!(!lines.is_empty(), is_used, "{no_proxy}: {lines:?}");
        let to_cloud = format!("POST {endpoint}");
        assert!(
            lines.iter().all(|line| line.starts_with(&to_cloud)),
            "{lines:?}"
        );
    }
    Ok(())
}
