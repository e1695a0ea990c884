//! Every way in which `LeaveSecurityGroup` can be answered ends in an object that goes, or that says why it does not and how it
//! can: nothing keeps it for ever without a word, and nothing lets it go while the edge stands.

use security_group_operator::ecs::Class;
use serde_json::{Value, json};

use crate::binaries;
use crate::error_codes::class;
use crate::support::env::{TestEnv, claim, has_code, message, phase};
use crate::support::error::{Context, Result};
use crate::support::error_codes::LEAVE;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-other}
- {id: sg-managed}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-conflict, securityGroupIds: [sg-base]}
- {id: i-locked, securityGroupIds: [sg-base]}
- {id: i-last, securityGroupIds: [sg-base]}
- {id: i-managed, securityGroupIds: [sg-base]}
- {id: i-vswitch, vSwitchId: vsw-gone, securityGroupIds: [sg-base]}
- {id: i-malformed, securityGroupIds: [sg-base]}
- {id: i-malformedtoo, securityGroupIds: [sg-base]}
- {id: i-both, securityGroupIds: [sg-base]}
- {id: i-timeout, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-web, securityGroupIds: [sg-base]}
- {id: eni-last, securityGroupIds: [sg-base]}
- {id: eni-managed, securityGroupIds: [sg-base]}
- {id: eni-region, securityGroupIds: [sg-base]}
- {id: eni-type, securityGroupIds: [sg-base]}
";

/// What happens between Join and Leave.
fn changes() -> Value {
    json!([
        {"lock": {"id": "i-locked"}},
        {"leave": {"target": "i-last", "securityGroupId": "sg-base"}},
        {"leave": {"target": "eni-last", "securityGroupId": "sg-base"}},
        {"setManaged": {"id": "sg-managed", "managed": true}},
        {"setManaged": {"id": "eni-managed", "managed": true}},
        {"deleteVSwitch": {"id": "vsw-gone"}},
    ])
}

/// Code, target, group. First those that state leads to.
#[rustfmt::skip]
const STATE: &[(&str, &str, &str)] = &[
    ("InstanceLockedForSecurity", "i-locked", "sg-web"),
    ("InstanceLastSecurityGroup", "i-last", "sg-web"),
    ("InvalidOperation.AtLeastInOneGroup", "eni-last", "sg-web"),
    ("InvalidOperation.ResourceManagedByCloudProduct", "i-managed", "sg-managed"),
    ("InvalidOperation.EniServiceManaged", "eni-managed", "sg-web"),
    ("InvalidVSwitchId.NotFound", "i-vswitch", "sg-web"),
    ("InvalidOperation.Conflict", "i-conflict", "sg-web"),
];

/// Those that nothing leads to which has joined before, that the CRD lets no request through to, or that a broken cloud gives.
#[rustfmt::skip]
const FAULTS: &[(&str, &str, &str)] = &[
    ("InvalidInstanceId.Malformed", "i-malformed", "sg-web"),
    ("MissingParameter.RegionId", "eni-region", "sg-web"),
    ("InvalidOperation.InvalidEniType", "eni-type", "sg-web"),
    ("InvalidParam.Malformed", "i-malformedtoo", "sg-web"),
    ("InvalidParam.EniIdAndInstanceId.Conflict", "i-both", "sg-web"),
    ("RequestTimeout", "i-timeout", "sg-web"),
];

#[tokio::test]
async fn failed_leave_keeps_the_object_and_suggests_retain() -> Result<()> {
    let rows = || STATE.iter().chain(FAULTS);
    for (_, code, class, _) in LEAVE {
        // A missing edge, and a target that is about to be ready, keep nothing: see below and in states.rs.
        let keeps_nothing = matches!(class, Class::Done | Class::Transitional);
        let tried = rows().any(|row| row.0 == *code);
        assert_ne!(tried, keeps_nothing, "{code}: a row of STATE or FAULTS");
    }
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (_, target, group) in rows() {
        env.apply(target, target, group, json!({})).await?;
    }
    for (_, target, ..) in rows() {
        env.until_reason(target, "Joined").await?;
    }
    env.hold_conflict("i-conflict", "sg-other").await?;
    env.change_cloud(changes()).await?;
    let fault = |(code, target, _): &(&str, &str, &str)| json!({"action": "LeaveSecurityGroup", "target": target, "fault": {"error": {"code": code}}});
    let faults: Vec<Value> = FAULTS.iter().map(fault).collect();
    env.simulator.faults(&json!(faults)).await?;
    let before = env.simulator.state().await?;

    for (_, target, ..) in rows() {
        env.delete(target).await?;
    }
    for (code, target, _) in rows() {
        let phase = match class(LEAVE, code).context(code)? {
            Class::Transient | Class::Throttled => "Reconciling",
            Class::Absent | Class::Blocked | Class::Invalid | Class::Done | Class::Transitional => {
                "Stalled"
            }
        };
        keeps(&env, target, code, phase).await?;
    }
    assert_eq!(env.simulator.state().await?, before);

    for (_, target, group) in rows() {
        env.apply(target, target, group, json!({"deletionPolicy": "Retain"}))
            .await?;
    }
    for (_, target, ..) in rows() {
        env.until_deleted(target).await?;
    }
    assert_eq!(env.simulator.state().await?, before);
    Ok(())
}

/// The object stands, with its claim, the code, and the way out.
async fn keeps(env: &TestEnv, name: &str, code: &str, said: &str) -> Result<()> {
    let object = env
        .until(name, &format!("{code} as it should be"), |object| {
            has_code(object, code)
        })
        .await?;
    let message = message(&object);
    assert_eq!(phase(&object), said, "{code}");
    assert_eq!(claim(&object).as_deref(), Some("Joined"), "{code}");
    assert!(message.starts_with(&format!("{code}: ")), "{message}");
    assert!(
        message.contains("set spec.deletionPolicy to Retain"),
        "{message}"
    );
    let error = object
        .status
        .and_then(|status| status.last_error)
        .context(code)?;
    assert_eq!(error.action, "LeaveSecurityGroup");
    assert!(error.request_id.is_some_and(|id| !id.is_empty()), "{code}");
    assert!(!error.message.is_empty(), "{code}");
    Ok(())
}

#[tokio::test]
async fn missing_edge_counts_as_left() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (codes, code) in [
        ("current", "InvalidSecurityGroupAssociation.NotFound"),
        ("original", "InstanceNotInSecurityGroup"),
    ] {
        env.change_cloud(json!({"set": {"codes": codes}})).await?;
        for (count, target) in [(1, "i-web"), (2, "eni-web")] {
            env.apply("web", target, "sg-web", json!({})).await?;
            env.until_reason("web", "Joined").await?;
            env.change_cloud(json!({"leave": {"target": target, "securityGroupId": "sg-web"}}))
                .await?;
            env.delete("web").await?;
            env.until_deleted("web").await?;
            assert_eq!(
                env.simulator.calls("LeaveSecurityGroup", code).await?,
                count
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn forbidden_leave_is_ignored_once_the_edge_is_missing() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let deny = json!({"deny": {"id": "testid", "deny": [{"action": "ecs:LeaveSecurityGroup"}]}});
    for target in ["i-web", "eni-web"] {
        env.apply("web", target, "sg-web", json!({})).await?;
        env.until_reason("web", "Joined").await?;
        env.change_cloud(deny.clone()).await?;
        env.delete("web").await?;
        keeps(&env, "web", "Forbidden.RAM", "Stalled").await?;
        assert!(env.is_member(target, "sg-web").await?);

        // Still forbidden, but there is nothing left to forbid.
        env.change_cloud(json!({"leave": {"target": target, "securityGroupId": "sg-web"}}))
            .await?;
        env.request_reconcile("web").await?;
        env.until_deleted("web").await?;
        assert_eq!(env.simulator.calls("LeaveSecurityGroup", "OK").await?, 0);
        env.change_cloud(json!({"allow": {"id": "testid"}})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn deletion_continues_when_ram_allows_it() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.change_cloud(
        json!({"deny": {"id": "testid", "deny": [{"action": "ecs:LeaveSecurityGroup"}]}}),
    )
    .await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    env.delete("web").await?;
    keeps(&env, "web", "Forbidden.RAM", "Stalled").await?;
    env.change_cloud(json!({"allow": {"id": "testid"}})).await?;
    env.request_reconcile("web").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn throttled_leave_is_retried_when_allowed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    let throttle = json!({"throttle": {"retryAfter": "2s"}});
    env.simulator
        .faults(&json!({"action": "LeaveSecurityGroup", "count": 1, "fault": throttle}))
        .await?;
    env.delete("web").await?;
    let object = env.until_reason("web", "Throttled").await?;
    assert_eq!(phase(&object), "Reconciling");
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 2);
    Ok(())
}

/// 504 is documented to come after the work was done.
#[tokio::test]
async fn leave_with_a_lost_answer_completes() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for fault in [
        json!({"error": {"code": "RequestTimeout", "status": 504}}),
        json!("reset"),
        json!({"malformed": "badGateway"}),
    ] {
        for effect in [true, false] {
            env.apply("web", "i-web", "sg-web", json!({})).await?;
            env.until_reason("web", "Joined").await?;
            env
                .simulator
                .faults(&json!({"action": "LeaveSecurityGroup", "count": 1, "effect": effect, "fault": fault}))
                .await?;
            env.delete("web").await?;
            env.until_deleted("web").await?;
            assert!(
                !env.is_member("i-web", "sg-web").await?,
                "{fault}, {effect}"
            );
        }
    }
    Ok(())
}
