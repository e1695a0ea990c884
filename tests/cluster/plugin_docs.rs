//! The outputs that `docs/user/plugin.md` shows are those of the runs of the tests. What differs from run to run is evened out: the
//! namespace, the account, ages, request IDs, and how wide a column is.

use std::path::Path;

use regex::Regex;

use crate::binaries;
use crate::plugin::{Ran, sgm};
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};

/// Fails if the page shows this command with another output, or with another exit code where it shows one. The page shows standard error
/// after the output.
pub fn assert_documented(command: &str, ran: &Ran, env: &TestEnv) -> Result<()> {
    let (shown, shows_code) = shown(command)?;
    let mut real = evened(&format!("{}{}", ran.out, ran.err), Some(&env.name))?;
    if shows_code {
        real.push(ran.code.to_string());
    } else {
        assert_eq!(
            ran.code, 0,
            "docs/user/plugin.md shows no exit code: {command}"
        );
    }
    let shown = evened(&shown, None)?;
    assert_eq!(shown, real, "docs/user/plugin.md: {command}");
    Ok(())
}

/// What the page shows after a command, and whether the exit code is its last line.
fn shown(command: &str) -> Result<(String, bool)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/user/plugin.md");
    let page = std::fs::read_to_string(page)?;
    let plain = format!("$ kubectl sgm {command}");
    let with_code = format!("{plain} ; echo $?");
    let mut lines = page.lines();
    let found = lines.find(|line| *line == plain || *line == with_code);
    let found = found.context(format!("the page does not show: {plain}"))?;
    let printed = lines.take_while(|line| !line.starts_with("$ ") && *line != "```");
    let printed: Vec<&str> = printed.collect();
    Ok((printed.join("\n"), found == with_code))
}

/// The lines without what differs from run to run.
fn evened(text: &str, namespace: Option<&str>) -> Result<Vec<String>> {
    let mut text = text.to_owned();
    if let Some(namespace) = namespace {
        let account = format!("ClusterCloudAccount {namespace}");
        text = text.replace(&account, "ClusterCloudAccount default");
        let account = format!("kind: ClusterCloudAccount\n    name: {namespace}");
        text = text.replace(&account, "kind: ClusterCloudAccount\n    name: default");
        text = text.replace(&format!("pool: {namespace}"), "pool: web");
        text = text.replace(namespace, "team-a");
    }
    for (differs, even) in [
        (r"\b\d+s\b", "0s"),
        (r"\b\d{16}\b", "1000000000000000"),
        (r"\b[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\b", "REQUEST"),
        (r" {2,}", "  "),
    ] {
        text = Regex::new(differs)?.replace_all(&text, even).into_owned();
    }
    let lines = text.lines().map(|line| line.trim_end().to_owned());
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

const SIX_MISTAKES: &str = "\
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata:
  name: Web_1
spec:
  region: cn-hangzhou-b
  instanceId: i-web
  securityGroupID: SG-web
  deletionPolicy: Leave
";

#[tokio::test]
async fn lint_prints_what_the_page_shows() -> Result<()> {
    let env = TestEnv::start(&binaries!(), "securityGroups: [{id: sg-web}]").await?;
    let folder = ControlPlane::shared().await?.directory();
    let file = folder.join(format!("{}-web.yaml", env.name));
    std::fs::write(&file, SIX_MISTAKES)?;
    let name = file.to_string_lossy().into_owned();
    let mut ran = sgm(&["lint", &name]).await?;
    ran.out = ran.out.replace(&name, "web.yaml");
    assert_documented("lint web.yaml", &ran, &env)
}
