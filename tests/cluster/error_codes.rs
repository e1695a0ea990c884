//! Every documented error code of `JoinSecurityGroup` is visible on the object, as the cloud spells it and with what follows.
//!
//! The simulator makes them from its state. Describe lags ten minutes behind there, so that what changes at the start of a test
//! is first met by Join. [`Cause::Fault`] is for codes that only a broken cloud gives or only a broken request gets.

use std::time::Instant;

use security_group_operator::ecs::Class;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{TestEnv, has_code, phase, ready};
use crate::support::error::{Context, Result};
use crate::support::error_codes::{JOIN, Row};

const INVENTORY: &str = "
settings: {lag: 10m}
securityGroups:
- {id: sg-base}
- {id: sg-a}
- {id: sg-b}
- {id: sg-c}
- {id: sg-d}
- {id: sg-web}
- {id: sg-full, quota: 1}
- {id: sg-rules, rules: 1001}
- {id: sg-managed, serviceManaged: true}
- {id: sg-enterprise, type: enterprise}
- {id: sg-enterprisefull, type: enterprise, quota: 1}
- {id: sg-vpc, vpcId: vpc-other}
- {id: sg-classic, classic: true}
- {id: sg-theirs, account: '2000000000000002', shared: true}
instances:
- {id: i-conflict, securityGroupIds: [sg-base]}
- {id: i-groups, securityGroupIds: [sg-base, sg-a, sg-b, sg-c, sg-d]}
- {id: i-vpc, vpcId: vpc-other, securityGroupIds: [sg-vpc]}
- {id: i-classic, classic: true, securityGroupIds: [sg-classic]}
- {id: i-malformed, securityGroupIds: [sg-base]}
- {id: i-oldtype, enterpriseGroups: false, securityGroupIds: [sg-base]}
- {id: i-basic, securityGroupIds: [sg-base]}
- {id: i-ours, securityGroupIds: [sg-base]}
- {id: i-starting, securityGroupIds: [sg-base]}
- {id: i-stopping, securityGroupIds: [sg-base]}
- {id: i-pending, securityGroupIds: [sg-base]}
- {id: i-locked, locks: [security], securityGroupIds: [sg-base]}
- {id: i-old, locks: [security], securityGroupIds: [sg-base]}
- {id: i-first, securityGroupIds: [sg-base, sg-full]}
- {id: i-second, securityGroupIds: [sg-base]}
- {id: i-faster, securityGroupIds: [sg-base]}
- {id: i-rules, securityGroupIds: [sg-base]}
- {id: i-enterprise, securityGroupIds: [sg-enterprisefull]}
- {id: i-enterprisetoo, securityGroupIds: [sg-enterprise]}
- {id: i-managed, securityGroupIds: [sg-base]}
- {id: i-malformedtoo, securityGroupIds: [sg-base]}
- {id: i-both, securityGroupIds: [sg-base]}
- {id: i-none, securityGroupIds: [sg-base]}
- {id: i-nogroup, securityGroupIds: [sg-base]}
- {id: i-released, securityGroupIds: [sg-base]}
- {id: i-internal, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-groups, securityGroupIds: [sg-base, sg-a, sg-b, sg-c, sg-d]}
- {id: eni-attaching, securityGroupIds: [sg-base]}
- {id: eni-ours, securityGroupIds: [sg-base]}
- {id: eni-region, securityGroupIds: [sg-base]}
- {id: eni-creating, securityGroupIds: [sg-base]}
- {id: eni-vpc, vpcId: vpc-other, securityGroupIds: [sg-vpc]}
- {id: eni-type, securityGroupIds: [sg-base]}
- {id: eni-service, securityGroupIds: [sg-base]}
- {id: eni-released, securityGroupIds: [sg-base]}
";

/// What happens after the time that Describe tells of.
fn changes() -> Value {
    json!([
        {"setStatus": {"id": "i-starting", "status": "Starting"}},
        {"setStatus": {"id": "i-stopping", "status": "Stopping"}},
        {"setStatus": {"id": "i-pending", "status": "Pending"}},
        {"setStatus": {"id": "eni-attaching", "status": "Attaching"}},
        {"setStatus": {"id": "eni-creating", "status": "Creating"}},
        {"delete": {"id": "i-released"}},
        {"delete": {"id": "eni-released"}},
        {"join": {"target": "i-faster", "securityGroupId": "sg-web"}},
    ])
}

/// What makes the code.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    State,
    Fault,
}

/// What the object says of it.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// Stalled; the reason is the code.
    Stalled,
    /// Reconciling, `WaitingForTarget`.
    Waiting,
    /// Reconciling, `Retrying`.
    Retrying,
}

use Cause::{Fault, State};
use Shown::{Retrying, Stalled, Waiting};

impl Shown {
    /// What an object says of a code of Join; `None` if it is no failure.
    fn of(code: &str) -> Option<Self> {
        match class(JOIN, code)? {
            Class::Transitional => Some(Waiting),
            Class::Transient | Class::Throttled => Some(Retrying),
            Class::Absent | Class::Blocked | Class::Invalid => Some(Stalled),
            Class::Done => None,
        }
    }
}

/// What a code of a page means to the operator.
pub fn class(page: &[Row], code: &str) -> Option<Class> {
    let row = page.iter().find(|row| row.1 == code);
    row.map(|row| row.2)
}

/// Codes of the page that are not in [`CODES`], since another test has them.
const ELSEWHERE: &[&str] = &["InvalidInstanceId.AlreadyExists", "OperationDenied"];

/// Code, target, group, what makes it.
#[rustfmt::skip]
const CODES: &[(&str, &str, &str, Cause)] = &[
    ("InstanceSecurityGroupLimitExceeded", "i-groups", "sg-web", State),
    ("InstanceSecurityGroupLimitExceeded", "eni-groups", "sg-web", State),
    ("InvalidInstanceId.Mismatch", "i-vpc", "sg-web", State),
    ("InvalidInstanceId.Mismatch", "i-classic", "sg-web", State),
    // The CRD lets no such ID through.
    ("InvalidInstanceId.Malformed", "i-malformed", "sg-web", Fault),
    ("InvalidOperation.NotSupportEnterpriseGroup", "i-oldtype", "sg-enterprise", State),
    ("InvalidOperation.MultiGroupType", "i-basic", "sg-enterprise", State),
    ("InvalidOperation.InvalidEniState", "eni-attaching", "sg-web", State),
    ("InvalidOperation.EniAndGroupNotBelongSameUser", "eni-ours", "sg-theirs", State),
    ("NotBelongUser", "i-ours", "sg-theirs", State),
    // The operator always names the region.
    ("MissingParameter.RegionId", "eni-region", "sg-web", Fault),
    // Nor does it ever leave out the target.
    ("MissingParameter", "i-none", "sg-web", Fault),
    ("InvalidStatus.EniOrInstanceIsBeingCreated", "eni-creating", "sg-web", State),
    ("IncorrectInstanceStatus", "i-starting", "sg-web", State),
    ("IncorrectInstanceStatus", "i-stopping", "sg-web", State),
    ("InstanceLockedForSecurity", "i-locked", "sg-web", State),
    ("SecurityGroupInstanceLimitExceeded", "i-second", "sg-full", State),
    ("AclLimitExceed", "i-rules", "sg-rules", State),
    ("InvalidOperation.NetworkInterfaceCountExceeded", "i-enterprisetoo", "sg-enterprisefull", State),
    ("InvalidOperation.ResourceManagedByCloudProduct", "i-managed", "sg-managed", State),
    // The operator reads what these two say before it calls.
    ("InvalidOperation.InvalidEniType", "eni-type", "sg-web", Fault),
    ("InvalidOperation.VpcMismatch", "eni-vpc", "sg-web", State),
    ("InvalidOperation.EniServiceManaged", "eni-service", "sg-web", Fault),
    // The CRD lets no such ID through, and no object with two targets.
    ("InvalidParam.Malformed", "i-malformedtoo", "sg-web", Fault),
    ("InvalidParam.EniIdAndInstanceId.Conflict", "i-both", "sg-web", Fault),
    ("Forbidden.InstanceIsBeingCreated", "i-pending", "sg-web", State),
    ("InvalidSecurityGroupId.NotFound", "i-nogroup", "sg-missing", State),
    ("InvalidInstanceId.NotFound", "i-released", "sg-web", State),
    ("InvalidEniId.NotFound", "eni-released", "sg-web", State),
    ("InvalidOperation.Conflict", "i-conflict", "sg-web", State),
    // No state leads there.
    ("InternalError", "i-internal", "sg-web", Fault),
];

#[tokio::test]
async fn every_join_code_is_shown_with_class_and_retry() -> Result<()> {
    for (_, code, ..) in JOIN {
        let tried = CODES.iter().any(|row| row.0 == *code);
        assert_ne!(tried, ELSEWHERE.contains(code), "{code}: a row of CODES");
    }
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.hold_conflict("i-conflict", "sg-a").await?;
    env.change_cloud(changes()).await?;
    let faults: Vec<Value> = CODES
        .iter()
        .filter(|(.., cause)| *cause == Fault)
        .map(|(code, target, ..)| {
            json!({"action": "JoinSecurityGroup", "target": target, "fault": {"error": {"code": code}}})
        })
        .collect();
    env.simulator.faults(&json!(faults)).await?;
    let before = env.simulator.state().await?;

    for (_, target, group, ..) in CODES {
        env.apply(target, target, group, json!({})).await?;
    }
    for (code, target, ..) in CODES {
        shows(&env, target, code, Shown::of(code).context(code)?).await?;
    }

    assert_eq!(
        env.simulator.state().await?,
        before,
        "nothing was changed by it"
    );
    for (code, ..) in CODES {
        let rows = CODES.iter().filter(|row| row.0 == *code).count() as u64;
        let asked = env.simulator.calls("JoinSecurityGroup", code).await?;
        // Whoever must be helped by somebody else asks once, and again after minutes.
        if Shown::of(code) == Some(Stalled) {
            assert_eq!(asked, rows, "{code}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn first_edition_codes_are_shown() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.change_cloud(json!({"set": {"codes": "original"}}))
        .await?;
    env.change_cloud(changes()).await?;
    for (code, target) in [
        ("OperationDenied", "i-old"),
        ("IncorrectInstanceStatus", "i-pending"),
        ("InvalidOperation.InvalidEniState", "eni-creating"),
    ] {
        env.apply(target, target, "sg-web", json!({})).await?;
        shows(&env, target, code, Shown::of(code).context(code)?).await?;
    }
    Ok(())
}

/// `InvalidInstanceId.AlreadyExists`: Describe did not list the edge, and Join finds it there.
#[tokio::test]
async fn edge_joined_by_another_actor_is_adopted_and_kept() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.change_cloud(changes()).await?;
    env.apply("faster", "i-faster", "sg-web", json!({})).await?;
    let object = env.until_reason("faster", "Adopted").await?;
    assert_eq!(phase(&object), "Settled");
    let code = "InvalidInstanceId.AlreadyExists";
    assert_eq!(env.simulator.calls("JoinSecurityGroup", code).await?, 1);
    env.delete("faster").await?;
    env.until_deleted("faster").await?;
    assert!(env.is_member("i-faster", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn ram_denial_is_reported_and_recovers_when_allowed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.change_cloud(
        json!({"deny": {"id": "testid", "deny": [{"action": "ecs:JoinSecurityGroup"}]}}),
    )
    .await?;
    env.apply("web", "i-basic", "sg-web", json!({})).await?;
    shows(&env, "web", "Forbidden.RAM", Stalled).await?;
    env.change_cloud(json!({"allow": {"id": "testid"}})).await?;
    env.request_reconcile("web").await?;
    let object = env.until_reason("web", "Joined").await?;
    assert!(object.status.unwrap().last_error.is_none());
    env.until_event("web", "Recovered").await?;
    Ok(())
}

#[tokio::test]
async fn used_up_limit_is_reported_and_waited_for() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("witness", "i-first", "sg-full", json!({}))
        .await?;
    env.until_reason("witness", "Adopted").await?;
    env.change_cloud(json!({"set": {"limits": {"JoinSecurityGroup": 0}}}))
        .await?;
    let start = Instant::now();
    env.apply("web", "i-basic", "sg-web", json!({})).await?;
    let object = env.until_reason("web", "Throttled").await?;
    assert_eq!(phase(&object), "Reconciling");
    let error = object.status.unwrap().last_error.unwrap();
    assert_eq!(error.code.as_deref(), Some("Throttling.User"));
    // Asked again and again, it does not call again: this call stays away until the minute is over. While it waits for its
    // turn it is not read either; the witness, asked after it, is.
    for _ in 0..5 {
        env.request_reconcile("web").await?;
        env.reconcile_and_wait("witness").await?;
    }
    let asked = env
        .simulator
        .calls("JoinSecurityGroup", "Throttling.User")
        .await?;
    let windows = 2 + start.elapsed().as_secs() / 60;
    assert!(asked <= windows, "{asked} calls in {windows} windows");
    Ok(())
}

#[tokio::test]
async fn throttled_join_is_retried_when_allowed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let throttle = json!({"throttle": {"retryAfter": "2s"}});
    env.simulator
        .faults(&json!({"action": "JoinSecurityGroup", "count": 1, "fault": throttle}))
        .await?;
    env.apply("web", "i-basic", "sg-web", json!({})).await?;
    env.until_reason("web", "Throttled").await?;
    let object = env.until_reason("web", "Joined").await?;
    assert!(object.status.unwrap().last_error.is_none());
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);
    Ok(())
}

/// The object shows the code, all that belongs to it, and nothing that kstatus could misread.
async fn shows(env: &TestEnv, name: &str, code: &str, shown: Shown) -> Result<()> {
    let object = env
        .until(name, &format!("{code} as it should be"), |object| {
            has_code(object, code)
        })
        .await?;
    let ready = ready(&object).context("Ready")?;
    let (reason, said) = match shown {
        Stalled => (code.replace('.', ""), "Stalled"),
        Waiting => ("WaitingForTarget".to_owned(), "Reconciling"),
        Retrying => ("Retrying".to_owned(), "Reconciling"),
    };
    assert_eq!(
        (ready.status.as_str(), &ready.reason),
        ("False", &reason),
        "{code}"
    );
    assert_eq!(phase(&object), said, "{code}");
    assert!(
        ready.message.starts_with(&format!("{code}: ")),
        "{}",
        ready.message
    );
    assert_eq!(ready.observed_generation, object.metadata.generation);
    let status = object.status.as_ref().context("a status")?;
    assert_eq!(status.observed_generation, object.metadata.generation);
    assert!(
        status.origin.is_none(),
        "{name} says that it holds something"
    );
    let error = status.last_error.as_ref().context(code)?;
    assert_eq!(error.action, "JoinSecurityGroup", "{code}");
    let request = error.request_id.as_deref().unwrap_or_default();
    assert!(!request.is_empty(), "{code} without a request ID");
    assert!(!error.message.is_empty(), "{code} without words");
    assert!(
        ready.message.contains("; next try in "),
        "{}",
        ready.message
    );
    assert!(ready.message.len() <= 250, "{}", ready.message);
    Ok(())
}
