//! What the image relies on: the operator without certificate authorities, and the image itself where it can be built.

use std::path::Path;
use std::process::Command;

use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::Result;
use crate::support::eventually::eventually;
use crate::support::operator::{self, Operator, Options};
use crate::support::tempdir::TempDir;
use kube::Api;
use security_group_operator::api::ClusterCloudAccount;
use serde_json::json;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";

/// A file of certificates is needed for https only.
#[tokio::test]
async fn operator_without_certificate_authorities_uses_http_endpoints() -> Result<()> {
    let binaries = crate::binaries!();
    let plane = ControlPlane::start().await?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    operator::install(&plane, &deploy).await?;
    let env = TestEnv::start_on(&plane, &binaries, INVENTORY).await?;
    let nowhere = "/nonexistent".to_owned();
    let options = Options {
        binary: binaries.operator.clone(),
        arguments: Vec::new(),
        environment: vec![
            ("SSL_CERT_FILE".to_owned(), nowhere.clone()),
            ("SSL_CERT_DIR".to_owned(), nowhere),
        ],
    };
    let operator = Operator::start(&plane, options).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;

    // An account with the public endpoints says why it cannot use them.
    let accounts: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    let account = accounts.get(&env.name).await?;
    let secure = serde_json::from_value(json!({
        "metadata": {"name": "secure"}, "spec": {"credentials": account.spec.credentials, "grants": []},
    }))?;
    let post = kube::api::PostParams::default();
    accounts.create(&post, &secure).await?;
    eventually("the account names the file", async || {
        let status = accounts.get("secure").await?.status;
        let conditions = status.iter().flat_map(|status| &status.conditions);
        let mut messages = conditions.map(|condition| &condition.message);
        Ok(messages.any(|message| message.contains("/etc/ssl/certs/ca-certificates.crt")))
    })
    .await?;
    let log = std::fs::read_to_string(operator.log())?;
    let said = log
        .lines()
        .filter(|line| line.contains("no https:// endpoint"));
    assert_eq!(said.count(), 1, "{log}");
    Ok(())
}

/// One line that says what is missing, and nothing built for minutes before it.
#[test]
fn image_without_a_tool_says_what_is_missing() -> Result<()> {
    let path = TempDir::new("path")?;
    for tool in ["bash", "dirname", "uname", "cargo", "env", "sed"] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()?;
        let found = String::from_utf8(found.stdout)?;
        std::os::unix::fs::symlink(found.trim(), path.path().join(tool))?;
    }
    let output = Command::new(path.path().join("bash"))
        .arg("deploy/image/build")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", path.path())
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(!output.status.success());
    assert!(
        said.contains("buildah is not on the PATH: install it"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    Ok(())
}

/// The Dockerfile by a real builder: what it copies, as whom it runs, and the same image twice. Not the static binary, which takes
/// minutes: `deploy/image/build twice` does that.
#[test]
fn dockerfile_makes_the_same_image_twice() -> Result<()> {
    let has_buildah = Command::new("buildah").arg("--version").output();
    if has_buildah.is_err() {
        println!("SKIPPED: buildah is not on the PATH, so that nothing tests the Dockerfile");
        return Ok(());
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let context = TempDir::new("image")?;
    let root = context.path().join("target/oci/rootfs");
    for folder in ["usr/local/bin", "etc/ssl/certs"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy(
        env!("CARGO_BIN_EXE_security-group-operator"),
        root.join("usr/local/bin/security-group-operator"),
    )?;
    std::fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "")?;
    std::fs::write(context.path().join("not-for-the-image"), "")?;
    for file in ["Dockerfile", ".dockerignore"] {
        std::fs::copy(repository.join(file), context.path().join(file))?;
    }
    let storage = TempDir::new("storage")?;
    let buildah = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("buildah")
            .arg("--root")
            .arg(storage.path().join("root"))
            .arg("--runroot")
            .arg(storage.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .current_dir(context.path())
            .output()?;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let build = [
        "build",
        "--quiet",
        "--isolation",
        "chroot",
        "--no-cache",
        "--timestamp",
        "0",
        ".",
    ];
    let image = buildah(&build)?;
    assert_eq!(buildah(&build)?, image);
    let image: serde_json::Value =
        serde_json::from_str(&buildah(&["inspect", "--type", "image", &image])?)?;
    let config = &image["OCIv1"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(
        config["Entrypoint"],
        json!(["/usr/local/bin/security-group-operator"])
    );
    assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}}));
    Ok(())
}
