//! The walkthrough of `make demo`: each chapter shows the user's view and checks it against the API server and the cloud.
//! Any deviation ends the demo with a sentence.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use security_group_operator::api::{ClusterCloudAccount, SecurityGroupMembership};
use serde_json::{Value, json};

use crate::environment::{DemoEnvironment, repository};
use crate::support::error::{Context as _, Error, Result};
use crate::support::operator::SERVICE_ACCOUNT;

/// Starts the environment, runs the walkthrough, and stops everything again.
pub async fn run() -> Result<()> {
    println!("== On this machine, for the length of this demo");
    let walkthrough = Walkthrough::new(DemoEnvironment::start().await?).await?;
    walkthrough.account().await?;
    walkthrough.running_instance().await?;
    walkthrough.starting_instance().await?;
    walkthrough.network_interface().await?;
    walkthrough.what_cannot_work().await?;
    walkthrough.observed_instance().await?;
    walkthrough.adopted_instance().await?;
    walkthrough.deletion().await?;
    walkthrough.summary().await?;
    println!(
        "\nAll as told. To try it yourself: make up; to use it on Alibaba Cloud: see README.md."
    );
    Ok(())
}

struct Walkthrough {
    environment: DemoEnvironment,
    memberships: Api<SecurityGroupMembership>,
}

impl Walkthrough {
    async fn new(environment: DemoEnvironment) -> Result<Self> {
        let client = environment.plane.admin_client().await?;
        Ok(Self {
            memberships: Api::namespaced(client, "default"),
            environment,
        })
    }

    async fn account(&self) -> Result<()> {
        heading("The account: a Secret, and who may use it for which groups");
        self.apply("account").await?;
        let accounts: Api<ClusterCloudAccount> =
            Api::all(self.environment.plane.admin_client().await?);
        let started = Instant::now();
        loop {
            let account = accounts.get("default").await?;
            let conditions = account.status.map(|status| status.conditions);
            let ready = find(conditions.as_deref().unwrap_or_default(), "Ready");
            if ready.is_some_and(|ready| ready.status == "True") {
                break;
            }
            give_up_after(started, || {
                format!("ClusterCloudAccount default is not Ready: {ready:?}")
            })?;
            tokio::time::sleep(POLL).await;
        }
        self.show(&["get", "clustercloudaccounts"]).await
    }

    async fn running_instance(&self) -> Result<()> {
        heading("An instance that runs joins at once");
        self.check_cloud("i-demorunning", "Running", &["sg-base"])
            .await?;
        self.apply("running-instance").await?;
        self.until("running-instance", "True", "Joined").await?;
        self.table(&["running-instance"]).await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.cost("running-instance").await
    }

    /// The cost of the first object, by the cloud's counts and the API server's audit log.
    async fn cost(&self, name: &str) -> Result<()> {
        let reads = self.calls("DescribeInstances").await?;
        let joins = self.calls("JoinSecurityGroup").await?;
        let started = Instant::now();
        let writes = loop {
            let events = self.environment.plane.audit_events()?;
            let writes = events
                .iter()
                .filter(|event| event.resource == "securitygroupmemberships" && event.name == name)
                .filter(|event| event.verb == "patch" && event.user.ends_with(SERVICE_ACCOUNT))
                .count();
            // The log is written after the answer.
            if writes >= 2 {
                break writes;
            }
            give_up_after(started, || {
                format!("the audit log knows {writes} writes of the operator to {name}, not 2")
            })?;
            tokio::time::sleep(POLL).await;
        };
        say(&format!(
            "it took {reads} DescribeInstances, {joins} JoinSecurityGroup and {writes} writes to the object: claim and status"
        ));
        check(joins == 1, "one Join should do")?;
        check(writes == 2, "two writes should do")
    }

    async fn starting_instance(&self) -> Result<()> {
        heading("One that starts is waited for, without a call that the cloud would refuse");
        // A fixed transition time could end the start too early; the walkthrough ends it after it was shown.
        self.set_status("i-demostarting", "Starting").await?;
        self.check_cloud("i-demostarting", "Starting", &["sg-base"])
            .await?;
        self.apply("starting-instance").await?;
        let joins = self.calls("JoinSecurityGroup").await?;
        let waiting = self
            .until("starting-instance", "False", "WaitingForTarget")
            .await?;
        self.table(&["starting-instance"]).await?;
        say(&format!("its message: {}", message(&waiting)));
        check(
            self.calls("JoinSecurityGroup").await? == joins,
            "a Join was sent for an instance that starts",
        )?;
        self.set_status("i-demostarting", "Running").await?;
        say("... the instance is Running now, and is looked at again:");
        self.until("starting-instance", "True", "Joined").await?;
        self.table(&["starting-instance"]).await?;
        self.check_cloud("i-demostarting", "Running", &["sg-base", "sg-demoweb"])
            .await
    }

    async fn network_interface(&self) -> Result<()> {
        heading("A network interface joins like an instance");
        self.check_cloud("eni-demosecondary", "InUse", &["sg-base"])
            .await?;
        self.apply("network-interface").await?;
        self.until("network-interface", "True", "Joined").await?;
        self.table(&["network-interface"]).await?;
        self.check_cloud("eni-demosecondary", "InUse", &["sg-base", "sg-demoweb"])
            .await
    }

    async fn what_cannot_work(&self) -> Result<()> {
        heading("What cannot work says why, in the cloud's own words, and what to do");
        for name in STALLED.map(|(name, _, _)| name) {
            self.apply(name).await?;
        }
        let mut messages = Vec::new();
        for (name, reason, code) in STALLED {
            let object = self.until(name, "False", reason).await?;
            let status = object.status.as_ref().context("no status")?;
            let stalled = find(&status.conditions, "Stalled");
            check(
                stalled.is_some_and(|stalled| stalled.status == "True"),
                &format!("{name} is not Stalled"),
            )?;
            let said = status.last_error.as_ref().context("no lastError")?;
            check(
                said.code.as_deref() == code,
                &format!("{name} does not carry the cloud's code: {said:?}"),
            )?;
            messages.push(format!("{name}: {}", message(&object)));
        }
        self.table(&STALLED.map(|(name, _, _)| name)).await?;
        for message in &messages {
            say(message);
        }
        Ok(())
    }

    async fn observed_instance(&self) -> Result<()> {
        heading("One that is only observed: nothing is written to the cloud");
        self.apply("observed-instance").await?;
        let object = self
            .until("observed-instance", "False", "NotAMember")
            .await?;
        self.table(&["observed-instance"]).await?;
        say(&format!("its message: {}", message(&object)));
        self.check_cloud("i-demoobserved", "Running", &["sg-base"])
            .await
    }

    async fn adopted_instance(&self) -> Result<()> {
        heading("A member from before is adopted, and kept when its object goes");
        self.check_cloud("i-demoadopted", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.apply("adopted-instance").await?;
        self.until("adopted-instance", "True", "Adopted").await?;
        self.table(&["adopted-instance"]).await?;
        self.delete("adopted-instance").await?;
        self.check_cloud("i-demoadopted", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        check(
            self.calls("LeaveSecurityGroup").await? == 0,
            "LeaveSecurityGroup was called for a member from before",
        )
    }

    async fn deletion(&self) -> Result<()> {
        heading("What an object joined, it leaves when it goes");
        self.check_cloud("i-demorunning", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.delete("running-instance").await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base"])
            .await
    }

    async fn summary(&self) -> Result<()> {
        heading("What is there now");
        self.show(&["get", "sgm", "-o", "wide"]).await?;
        let stats = self.environment.simulator.stats().await?;
        let count = |action: &str, outcome: &str| {
            stats
                .pointer(&format!("/calls/{action}/{outcome}"))
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        let joins = count("JoinSecurityGroup", "OK");
        let leaves = count("LeaveSecurityGroup", "OK");
        say(&format!(
            "the cloud took {joins} JoinSecurityGroup and {leaves} LeaveSecurityGroup"
        ));
        check(
            joins == 3,
            "three objects joined, and each should have once",
        )?;
        check(leaves == 1, "one object left, and it should have once")
    }

    /// `kubectl apply` of a sample.
    async fn apply(&self, sample: &str) -> Result<()> {
        let file = format!("deploy/samples/{sample}.yaml");
        self.show(&["apply", "-f", &file]).await
    }

    /// `kubectl delete`, which waits for the finalizer.
    async fn delete(&self, name: &str) -> Result<()> {
        self.show(&["delete", "sgm", name, "--timeout=120s"]).await
    }

    async fn table(&self, names: &[&str]) -> Result<()> {
        self.show(&[&["get", "sgm"], names].concat()).await
    }

    /// Runs kubectl and shows command and answer.
    async fn show(&self, arguments: &[&str]) -> Result<()> {
        let typed = format!("kubectl {}", arguments.join(" "));
        say(&format!("$ {typed}"));
        let mut command = tokio::process::Command::from(self.environment.plane.kubectl());
        command
            .args(arguments)
            .current_dir(repository())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(2 * PATIENCE, command.output())
            .await
            .context(format!("`{typed}` hangs"))?
            .context(&typed)?;
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .for_each(say);
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!("`{typed}`: {}", said.trim_end())))
    }

    /// The object when Ready has this status and reason for its generation.
    async fn until(
        &self,
        name: &str,
        status: &str,
        reason: &str,
    ) -> Result<SecurityGroupMembership> {
        let started = Instant::now();
        loop {
            let object = self.memberships.get(name).await?;
            if let Some(ready) = ready(&object)
                && ready.status == status
                && ready.reason == reason
                && ready.observed_generation == object.metadata.generation
            {
                return Ok(object);
            }
            give_up_after(started, || {
                let seen = ready(&object);
                format!(
                    "{name} does not become Ready={status} with reason {reason}; it is {seen:?}"
                )
            })?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Shows status and groups of a target in the cloud; an error if they are not the expected ones.
    async fn check_cloud(&self, target: &str, status: &str, groups: &[&str]) -> Result<()> {
        let state = self.environment.simulator.state().await?;
        let kind = if target.starts_with("eni-") {
            "networkInterfaces"
        } else {
            "instances"
        };
        let found = state
            .pointer(&format!("/{kind}/{target}"))
            .context(format!("the cloud has no {target}"))?;
        let found_status = found.get("status").and_then(Value::as_str);
        let found_groups: BTreeSet<&str> = found
            .get("securityGroupIds")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let list = found_groups.iter().copied().collect::<Vec<_>>().join(", ");
        say(&format!(
            "the cloud: {target} is {} and in {list}",
            found_status.unwrap_or("?")
        ));
        let as_told = found_status == Some(status) && found_groups.iter().eq(groups);
        check(
            as_told,
            &format!("{target} should be {status} and in {}", groups.join(", ")),
        )
    }

    async fn set_status(&self, instance: &str, status: &str) -> Result<()> {
        let change = json!({"setStatus": {"id": instance, "status": status}});
        self.environment.simulator.change(&change).await
    }

    /// Number of calls of an action that the cloud has answered, with any result.
    async fn calls(&self, action: &str) -> Result<u64> {
        let stats = self.environment.simulator.stats().await?;
        let counts = stats.pointer(&format!("/calls/{action}"));
        let counts = counts.and_then(Value::as_object).into_iter().flatten();
        Ok(counts.filter_map(|(_, count)| count.as_u64()).sum())
    }
}

/// Name of the sample, reason, and code in `lastError`.
const STALLED: [(&str, &str, Option<&str>); 3] = [
    (
        "group-full",
        "SecurityGroupInstanceLimitExceeded",
        Some("SecurityGroupInstanceLimitExceeded"),
    ),
    (
        "wrong-vpc",
        "InvalidInstanceIdMismatch",
        Some("InvalidInstanceId.Mismatch"),
    ),
    // No call was rejected: the cloud does not list the target.
    ("missing-instance", "TargetNotFound", None),
];

fn heading(text: &str) {
    println!("\n== {text}");
}

fn say(line: &str) {
    println!("  {line}");
}

fn check(holds: bool, otherwise: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::new(format!("not as told: {otherwise}")))
    }
}

fn give_up_after(started: Instant, what: impl FnOnce() -> String) -> Result<()> {
    if started.elapsed() < PATIENCE {
        Ok(())
    } else {
        Err(Error::new(what()))
    }
}

fn ready(object: &SecurityGroupMembership) -> Option<&Condition> {
    find(&object.status.as_ref()?.conditions, "Ready")
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn message(object: &SecurityGroupMembership) -> &str {
    ready(object).map_or("", |ready| &ready.message)
}

const POLL: Duration = Duration::from_millis(100);
/// Longer than any step takes on a busy machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
