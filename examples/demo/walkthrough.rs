//! The walkthrough of `make demo`: each step shows what a user would type and see, and checks it against the API server and the
//! cloud. Whatever is not as expected ends the demo with a sentence that says so.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::ListParams;
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};

use crate::environment::{DemoEnvironment, SCAN_PERIOD, binary, repository};
use crate::support::control_plane::Controllers;
use crate::support::error::{Context as _, Error, Result};
use crate::support::operator::SERVICE_ACCOUNT;

/// Starts the environment, runs the walkthrough, and takes everything down again.
pub async fn run() -> Result<()> {
    println!("== On this machine, for the length of this demo");
    let walkthrough = Walkthrough::new(DemoEnvironment::start(Controllers::Absent).await?).await?;
    walkthrough.account().await?;
    walkthrough.join().await?;
    walkthrough.starting_instance().await?;
    walkthrough.what_cannot_work().await?;
    walkthrough.two_teams().await?;
    walkthrough.observed_instance().await?;
    walkthrough.adopted_instance().await?;
    walkthrough.drift().await?;
    walkthrough.suspend().await?;
    walkthrough.deletion().await?;
    walkthrough.stuck_deletion().await?;
    walkthrough.set_by_nodes().await?;
    walkthrough.set_by_ids().await?;
    walkthrough.set_changes_its_group().await?;
    walkthrough.ask().await?;
    walkthrough.summary().await?;
    println!(
        "\nEverything was as expected. To try it yourself: make up; to use it on Alibaba Cloud: see README.md."
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
        heading(
            "An account: a Secret with an access key, and grants that say who may use it for which groups",
        );
        self.apply(&["account"]).await?;
        self.wait_for("Ready", "clustercloudaccount/demo").await?;
        self.kubectl(&["get", "clustercloudaccounts"]).await
    }

    async fn join(&self) -> Result<()> {
        heading("Join: one object is one membership, of an instance or a network interface");
        self.check_cloud("i-demorunning", "Running", &["sg-base"])
            .await?;
        self.check_cloud("eni-demosecondary", "InUse", &["sg-base"])
            .await?;
        self.apply(&["running-instance"]).await?;
        self.wait_for("Ready", "sgm/demo-running-instance").await?;
        let cost = self.cost("demo-running-instance").await?;
        self.apply(&["network-interface"]).await?;
        self.wait_for("Ready", "sgm/demo-network-interface").await?;
        self.table(&["demo-running-instance", "demo-network-interface"])
            .await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.check_cloud("eni-demosecondary", "InUse", &["sg-base", "sg-demoweb"])
            .await?;
        say(&cost);
        Ok(())
    }

    /// What an object has cost that is alone so far, by the cloud's count and the API server's audit log.
    async fn cost(&self, name: &str) -> Result<String> {
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
                format!("the audit log has {writes} writes of the operator to {name}, not 2")
            })?;
            tokio::time::sleep(POLL).await;
        };
        check(joins == 1, "one JoinSecurityGroup should be enough")?;
        check(writes == 2, "two writes to the API server should be enough")?;
        Ok(format!(
            "each took {joins} JoinSecurityGroup and {writes} writes to the API server"
        ))
    }

    async fn starting_instance(&self) -> Result<()> {
        heading(
            "Wait: an instance that is Starting is joined when it is Running, with no call that the cloud would refuse",
        );
        // The cloud's own clock would end the start at any time; here it ends after it has been shown.
        self.set_status("i-demostarting", "Starting").await?;
        let joins = self.calls("JoinSecurityGroup").await?;
        self.apply(&["starting-instance"]).await?;
        let waiting = self
            .until("demo-starting-instance", "False", "WaitingForTarget")
            .await?;
        self.table(&["demo-starting-instance"]).await?;
        say(&format!("message: {}", message(&waiting)));
        check(
            self.calls("JoinSecurityGroup").await? == joins,
            "JoinSecurityGroup was called for an instance that is Starting",
        )?;
        self.set_status("i-demostarting", "Running").await?;
        say("... the instance is Running now");
        self.wait_for("Ready", "sgm/demo-starting-instance").await?;
        self.check_cloud("i-demostarting", "Running", &["sg-base", "sg-demoweb"])
            .await
    }

    async fn what_cannot_work(&self) -> Result<()> {
        heading("Errors: what cannot work says why, with the cloud's own code, and what to do");
        self.apply(&STALLED.map(|(sample, _, _)| sample)).await?;
        for (sample, reason, code) in STALLED {
            let name = object(sample);
            let found = self.until(&name, "False", reason).await?;
            let status = found.status.as_ref().context("no status")?;
            let stalled = find(&status.conditions, "Stalled");
            check(
                stalled.is_some_and(|stalled| stalled.status == "True"),
                &format!("{name} is not Stalled"),
            )?;
            let said = status.last_error.as_ref().context("no lastError")?;
            check(
                said.code.as_deref() == code,
                &format!("{name} does not have the cloud's code in lastError: {said:?}"),
            )?;
        }
        let names = STALLED.map(|(sample, _, _)| object(sample));
        self.table(&names.each_ref().map(String::as_str)).await?;
        self.describe("demo-wrong-vpc").await
    }

    /// `kubectl describe`, from the status on; an error where the events, its last part, are not there.
    async fn describe(&self, name: &str) -> Result<()> {
        let arguments = ["describe", "sgm", name];
        say(&format!("$ {} | sed -n '/^Status:/,$p'", typed(&arguments)));
        let text = self.run(&arguments).await?;
        let shown: Vec<&str> = text.lines().skip_while(|line| *line != "Status:").collect();
        check(
            shown.iter().any(|line| line.starts_with("Events:")),
            "kubectl describe shows no status and events",
        )?;
        shown.into_iter().for_each(say);
        Ok(())
    }

    async fn two_teams(&self) -> Result<()> {
        heading(
            "Two teams: team-b may use sg-base of this account, and is refused when it tries a group of the other team",
        );
        let joins = self.calls("JoinSecurityGroup").await?;
        self.refused(
            &["apply", "-f", "examples/refused/other-teams-group.yaml"],
            "no grant of ClusterCloudAccount demo lets namespace demo-team-b use sg-demoweb",
        )
        .await?;
        check(
            self.calls("JoinSecurityGroup").await? == joins,
            "JoinSecurityGroup was called without a grant",
        )
    }

    async fn observed_instance(&self) -> Result<()> {
        heading("Observe: nothing is written to the cloud, and the object says what would be done");
        self.apply(&["observed-instance"]).await?;
        let object = self
            .until("demo-observed-instance", "False", "NotAMember")
            .await?;
        self.table(&["demo-observed-instance"]).await?;
        say(&format!("message: {}", message(&object)));
        self.check_cloud("i-demoobserved", "Running", &["sg-base"])
            .await
    }

    async fn adopted_instance(&self) -> Result<()> {
        heading("Adopt: a membership that was there before is kept when its object is deleted");
        self.check_cloud("i-demoadopted", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.apply(&["adopted-instance"]).await?;
        self.until("demo-adopted-instance", "True", "Adopted")
            .await?;
        self.table(&["demo-adopted-instance"]).await?;
        self.delete("demo-adopted-instance").await?;
        self.check_cloud("i-demoadopted", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        check(
            self.calls("LeaveSecurityGroup").await? == 0,
            "LeaveSecurityGroup was called for a membership that was there before",
        )
    }

    async fn drift(&self) -> Result<()> {
        heading("Drift: what somebody else removes is put back at the next scan");
        self.remove_behind_the_operators_back("i-demorunning", "sg-demoweb")
            .await?;
        self.until_member("i-demorunning", "sg-demoweb").await?;
        self.until_event("demo-running-instance", "DriftRepaired")
            .await?;
        self.kubectl(&["events", "--for=sgm/demo-running-instance"])
            .await?;
        self.wait_for("Ready", "sgm/demo-running-instance").await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base", "sg-demoweb"])
            .await
    }

    async fn suspend(&self) -> Result<()> {
        heading("Suspend: the operator makes no cloud call for the object until it is resumed");
        let name = "sgm/demo-running-instance";
        self.patch(name, r#"{"spec":{"suspend":true}}"#).await?;
        self.wait_for("Suspended", name).await?;
        self.remove_behind_the_operators_back("i-demorunning", "sg-demoweb")
            .await?;
        tokio::time::sleep(4 * SCAN_PERIOD).await;
        say(&format!("... {} s later:", 4 * SCAN_PERIOD.as_secs()));
        self.check_cloud("i-demorunning", "Running", &["sg-base"])
            .await?;
        self.patch(name, r#"{"spec":{"suspend":false}}"#).await?;
        self.until_member("i-demorunning", "sg-demoweb").await?;
        self.wait_for("Ready", name).await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base", "sg-demoweb"])
            .await
    }

    async fn deletion(&self) -> Result<()> {
        heading("Delete: the operator removes from the group what it joined");
        self.delete("demo-running-instance").await?;
        self.check_cloud("i-demorunning", "Running", &["sg-base"])
            .await
    }

    async fn stuck_deletion(&self) -> Result<()> {
        heading("A deletion that is stuck: the cloud lets no instance leave its last group");
        self.remove_behind_the_operators_back("i-demostarting", "sg-base")
            .await?;
        let name = "demo-starting-instance";
        self.kubectl(&["delete", "sgm", name, "--wait=false"])
            .await?;
        let stuck = self
            .until(name, "False", "InstanceLastSecurityGroup")
            .await?;
        self.table(&[name]).await?;
        say(&format!("message: {}", message(&stuck)));
        say("The way out, without a cloud call: keep the membership, and let only the object go.");
        let resource = "sgm/demo-starting-instance";
        self.patch(resource, r#"{"spec":{"deletionPolicy":"Retain"}}"#)
            .await?;
        self.kubectl(&["wait", "--for=delete", resource, "--timeout=60s"])
            .await?;
        self.check_cloud("i-demostarting", "Running", &["sg-demoweb"])
            .await
    }

    async fn set_by_nodes(&self) -> Result<()> {
        heading("Set: each Node with a label becomes a membership of its instance");
        self.apply(&["node-set"]).await?;
        self.wait_for_set().await?;
        self.show_set().await?;
        self.check_cloud("i-demonodeb", "Running", &["sg-base"])
            .await?;
        say("demo-node-b has no label yet. It gets one:");
        self.kubectl(&["label", "node", "demo-node-b", "demo-pool=web"])
            .await?;
        // Of the old count the set is Ready until it has seen the label.
        let both = "--for=jsonpath={.status.readyTargets}=2";
        self.kubectl(&["wait", both, SET, "--timeout=120s"]).await?;
        self.show_set().await?;
        for instance in ["i-demonodea", "i-demonodeb"] {
            self.check_cloud(instance, "Running", &["sg-base", "sg-demoweb"])
                .await?;
        }
        say(
            "A label that is taken off counts when the Node is five minutes old. Until then the instance stays in the group.",
        );
        Ok(())
    }

    async fn set_by_ids(&self) -> Result<()> {
        heading(
            "Set: the same instances by their IDs; one that is taken off the list is removed at once",
        );
        let by_ids =
            r#"{"spec":{"nodeSelector":null,"instanceIDs":["i-demonodea","i-demonodeb"]}}"#;
        let joins = self.calls("JoinSecurityGroup").await?;
        let leaves = self.calls("LeaveSecurityGroup").await?;
        self.patch(SET, by_ids).await?;
        self.wait_for_set().await?;
        check(
            self.calls("JoinSecurityGroup").await? == joins
                && self.calls("LeaveSecurityGroup").await? == leaves,
            "another selector of the same instances needs no call that changes the cloud",
        )?;
        self.patch(SET, r#"{"spec":{"instanceIDs":["i-demonodea"]}}"#)
            .await?;
        self.wait_for_set().await?;
        self.show_set().await?;
        self.check_cloud("i-demonodea", "Running", &["sg-base", "sg-demoweb"])
            .await?;
        self.check_cloud("i-demonodeb", "Running", &["sg-base"])
            .await
    }

    async fn set_changes_its_group(&self) -> Result<()> {
        heading("Set: another group is joined before the old one is left");
        self.patch(SET, r#"{"spec":{"securityGroupID":"sg-demoapi"}}"#)
            .await?;
        self.wait_for_set().await?;
        self.show_set().await?;
        self.check_cloud("i-demonodea", "Running", &["sg-base", "sg-demoapi"])
            .await?;
        let journal = self.environment.simulator.journal().await?;
        let number = |action: &str, group: &str| {
            let is_it = |entry: &Value| {
                let has = |key, value| entry.get(key).and_then(Value::as_str) == Some(value);
                has("target", "i-demonodea")
                    && has("action", action)
                    && has("securityGroupId", group)
            };
            journal.as_array()?.iter().position(is_it)
        };
        let joined = number("JoinSecurityGroup", "sg-demoapi");
        let left = number("LeaveSecurityGroup", "sg-demoweb");
        check(
            joined.is_some() && joined < left,
            "i-demonodea should join sg-demoapi before it leaves sg-demoweb",
        )?;
        say(
            "the cloud's journal: i-demonodea joined sg-demoapi first, and left sg-demoweb then: it was never without one of them",
        );
        Ok(())
    }

    async fn wait_for_set(&self) -> Result<()> {
        self.wait_for("Ready", SET).await
    }

    /// The set, and its memberships.
    async fn show_set(&self) -> Result<()> {
        self.kubectl(&["get", SET]).await?;
        let label = "security-group-operator.io/set=demo-nodes";
        self.kubectl(&["get", "sgm", "-l", label]).await
    }

    async fn ask(&self) -> Result<()> {
        heading("Ask: the plugin tells all of one membership, and who is in a group");
        self.kubectl(&["sgm", "why", "demo-network-interface"])
            .await?;
        self.kubectl(&["sgm", "members", "sg-demoweb"]).await
    }

    async fn summary(&self) -> Result<()> {
        heading("The end");
        self.kubectl(&["get", "sgm", "-A", "-o", "wide"]).await?;
        let stats = self.environment.simulator.stats().await?;
        let count = |action: &str| {
            stats
                .pointer(&format!("/calls/{action}/OK"))
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        let joins = count("JoinSecurityGroup");
        let leaves = count("LeaveSecurityGroup");
        say(&format!(
            "the cloud accepted {joins} JoinSecurityGroup and {leaves} LeaveSecurityGroup"
        ));
        check(
            joins == 8,
            "three objects joined, two of their memberships were put back, and a set joined three: that takes 8",
        )?;
        check(
            leaves == 3,
            "one membership was removed, and a set removed two: that takes 3",
        )
    }

    /// `kubectl apply` of samples.
    async fn apply(&self, samples: &[&str]) -> Result<()> {
        let files: Vec<String> = samples
            .iter()
            .map(|sample| format!("examples/simulator/{sample}.yaml"))
            .collect();
        let files = files.iter().flat_map(|file| ["-f", file.as_str()]);
        let arguments: Vec<&str> = std::iter::once("apply").chain(files).collect();
        self.kubectl(&arguments).await
    }

    /// `kubectl delete`, which waits for the finalizer.
    async fn delete(&self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "sgm", name, "--timeout=120s"])
            .await
    }

    async fn table(&self, names: &[&str]) -> Result<()> {
        self.kubectl(&[&["get", "sgm"], names].concat()).await
    }

    async fn wait_for(&self, condition: &str, resource: &str) -> Result<()> {
        let condition = format!("--for=condition={condition}");
        self.kubectl(&["wait", &condition, resource, "--timeout=120s"])
            .await
    }

    async fn patch(&self, resource: &str, patch: &str) -> Result<()> {
        self.kubectl(&["patch", resource, "--type=merge", "-p", patch])
            .await
    }

    /// Runs kubectl and shows command and answer.
    async fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        say(&format!("$ {}", typed(arguments)));
        self.run(arguments).await?.lines().for_each(say);
        Ok(())
    }

    /// Runs kubectl and shows command and refusal; an error where it is not refused with these words.
    async fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        say(&format!("$ {}", typed(arguments)));
        let said = match self.run(arguments).await {
            Ok(said) => said,
            Err(error) => error.to_string(),
        };
        said.lines().for_each(say);
        check(said.contains(words), "the API server does not refuse it")
    }

    /// Runs kubectl and gives what it prints.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let typed = typed(arguments);
        let mut command = tokio::process::Command::from(self.environment.plane.kubectl());
        // kubectl finds its plugins there.
        let plugins = binary("kubectl-sgm")?;
        let plugins = plugins.parent().into_iter().map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(plugins.chain(std::env::split_paths(&path)));
        command
            .args(arguments)
            .env("PATH", path.context("PATH")?)
            .current_dir(repository())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(2 * PATIENCE, command.output())
            .await
            .context(format!("`{typed}` hangs"))?
            .context(&typed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!("`{typed}`: {}", said.trim_end())))
    }

    async fn until(
        &self,
        name: &str,
        status: &str,
        reason: &str,
    ) -> Result<SecurityGroupMembership> {
        until(&self.memberships, name, status, reason).await
    }

    async fn until_event(&self, name: &str, reason: &str) -> Result<()> {
        let client = self.environment.plane.admin_client().await?;
        let events: Api<Event> = Api::namespaced(client, "default");
        let about = format!("regarding.name={name},reason={reason}");
        let started = Instant::now();
        while events
            .list(&ListParams::default().fields(&about))
            .await?
            .items
            .is_empty()
        {
            give_up_after(started, || format!("{name} gets no event {reason}"))?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn until_member(&self, target: &str, group: &str) -> Result<()> {
        let started = Instant::now();
        while !self.groups(target).await?.contains(group) {
            give_up_after(started, || format!("{target} is not put back into {group}"))?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Shows what the cloud holds of a target; an error where it is not as expected.
    async fn check_cloud(&self, target: &str, status: &str, groups: &[&str]) -> Result<()> {
        let found = self.target(target).await?;
        let found = found.get("status").and_then(Value::as_str).unwrap_or("?");
        let members = self.groups(target).await?;
        let list = members.iter().map(String::as_str).collect::<Vec<_>>();
        say(&format!(
            "the cloud: {target} is {found} and in {}",
            list.join(", ")
        ));
        check(
            found == status && list == groups,
            &format!("{target} should be {status} and in {}", groups.join(", ")),
        )
    }

    async fn groups(&self, target: &str) -> Result<BTreeSet<String>> {
        let found = self.target(target).await?;
        let groups = found.get("securityGroupIds").and_then(Value::as_array);
        let groups = groups.into_iter().flatten().filter_map(Value::as_str);
        Ok(groups.map(str::to_owned).collect())
    }

    /// What the cloud holds of an instance or a network interface.
    async fn target(&self, id: &str) -> Result<Value> {
        let state = self.environment.simulator.state().await?;
        let kind = if id.starts_with("eni-") {
            "networkInterfaces"
        } else {
            "instances"
        };
        let found = state.pointer(&format!("/{kind}/{id}"));
        Ok(found.context(format!("the cloud has no {id}"))?.clone())
    }

    /// As somebody would in the cloud's own console.
    async fn remove_behind_the_operators_back(&self, target: &str, group: &str) -> Result<()> {
        let change = json!({"leave": {"target": target, "securityGroupId": group}});
        self.environment.simulator.change(&change).await?;
        say(&format!(
            "somebody else removes {target} from {group}, in the cloud"
        ));
        check(
            !self.groups(target).await?.contains(group),
            &format!("{target} is in {group} all the same"),
        )
    }

    async fn set_status(&self, instance: &str, status: &str) -> Result<()> {
        let change = json!({"setStatus": {"id": instance, "status": status}});
        self.environment.simulator.change(&change).await
    }

    /// How many calls of an action the cloud has answered, whatever it said.
    async fn calls(&self, action: &str) -> Result<u64> {
        let stats = self.environment.simulator.stats().await?;
        let counts = stats.pointer(&format!("/calls/{action}"));
        let counts = counts.and_then(Value::as_object).into_iter().flatten();
        Ok(counts.filter_map(|(_, count)| count.as_u64()).sum())
    }
}

/// The object as soon as Ready has this status and reason for its generation.
async fn until(
    memberships: &Api<SecurityGroupMembership>,
    name: &str,
    status: &str,
    reason: &str,
) -> Result<SecurityGroupMembership> {
    let started = Instant::now();
    loop {
        let object = memberships.get(name).await?;
        if let Some(ready) = ready(&object)
            && ready.status == status
            && ready.reason == reason
            && ready.observed_generation == object.metadata.generation
        {
            return Ok(object);
        }
        give_up_after(started, || {
            let seen = ready(&object);
            format!("{name} does not become Ready={status} with reason {reason}; it is {seen:?}")
        })?;
        tokio::time::sleep(POLL).await;
    }
}

/// The name of the object in a sample.
fn object(sample: &str) -> String {
    format!("demo-{sample}")
}

/// The command as one would type it.
fn typed(arguments: &[&str]) -> String {
    let quoted = arguments.iter().map(|argument| {
        if argument.contains(['{', '"', ' ']) {
            format!("'{argument}'")
        } else {
            (*argument).to_owned()
        }
    });
    let words: Vec<String> = std::iter::once("kubectl".to_owned())
        .chain(quoted)
        .collect();
    words.join(" ")
}

/// The set in node-set.yaml.
const SET: &str = "sgmset/demo-nodes";

/// Name of the sample, reason, and the code in `lastError`.
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
    // No call was refused: the cloud does not list it.
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
        Err(Error::new(format!("not as expected: {otherwise}")))
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
/// Longer than anything here takes on a busy machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
