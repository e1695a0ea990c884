//! Every policy does what it says, for instances and for network interfaces, and may be changed at any time.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
use security_group_operator::condition::find;
use serde_json::json;

use crate::binaries;
use crate::support::env::{TestEnv, claim, condition, phase, ready};
use crate::support::error::Result;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-before, securityGroupIds: [sg-base, sg-web]}
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}
- {id: eni-before, instanceId: i-web, securityGroupIds: [sg-base, sg-web]}
";

/// A target that is not in sg-web, and one that is.
const TARGETS: [(&str, &str); 2] = [("i-web", "i-before"), ("eni-web", "eni-before")];

async fn writes(env: &TestEnv) -> Result<u64> {
    Ok(env.calls("JoinSecurityGroup").await? + env.calls("LeaveSecurityGroup").await?)
}

#[tokio::test]
async fn observe_reports_and_changes_nothing() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let observe = json!({"managementPolicy": "Observe", "deletionPolicy": "Remove"});
    for (out, within) in TARGETS {
        env.apply("out", out, "sg-web", observe.clone()).await?;
        let object = env.until_reason("out", "NotAMember").await?;
        assert_eq!((phase(&object), claim(&object)), ("Stalled", None));
        let message = &ready(&object).unwrap().message;
        assert!(message.contains("managementPolicy is Observe"), "{message}");

        env.apply("within", within, "sg-web", observe.clone())
            .await?;
        let object = env.until_ready("within").await?;
        assert_eq!((phase(&object), claim(&object)), ("Settled", None));

        // The edge comes and goes, and the object only tells.
        let edge = json!({"target": out, "securityGroupId": "sg-web"});
        env.change_cloud(json!({"join": edge})).await?;
        env.request_reconcile("out").await?;
        env.until_ready("out").await?;
        env.change_cloud(json!({"leave": edge})).await?;
        env.request_reconcile("out").await?;
        env.until_reason("out", "NotAMember").await?;

        // Without a finalizer deletion needs nobody.
        env.delete("out").await?;
        env.delete("within").await?;
        env.until_deleted("out").await?;
        env.until_deleted("within").await?;
        assert!(env.is_member(within, "sg-web").await?);
    }
    assert_eq!(writes(&env).await?, 0);
    Ok(())
}

#[tokio::test]
async fn refuse_keeps_an_existing_edge_until_set_to_adopt() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (_, within) in TARGETS {
        let refuse = json!({"adoptionPolicy": "Refuse", "deletionPolicy": "Remove"});
        env.apply("before", within, "sg-web", refuse.clone())
            .await?;
        let object = env.until_reason("before", "AdoptionRefused").await?;
        assert_eq!((phase(&object), claim(&object)), ("Stalled", None));
        assert!(
            ready(&object)
                .unwrap()
                .message
                .contains("set adoptionPolicy to Adopt")
        );
        // Even with deletionPolicy Remove: the edge was never this object's.
        env.delete("before").await?;
        env.until_deleted("before").await?;
        assert!(env.is_member(within, "sg-web").await?);

        env.apply("before", within, "sg-web", refuse).await?;
        env.until_reason("before", "AdoptionRefused").await?;
        env.apply(
            "before",
            within,
            "sg-web",
            json!({"adoptionPolicy": "Adopt"}),
        )
        .await?;
        let object = env.until_reason("before", "Adopted").await?;
        assert_eq!(
            (phase(&object), claim(&object).as_deref()),
            ("Settled", Some("Adopted"))
        );
        env.delete("before").await?;
        env.until_deleted("before").await?;
        assert!(env.is_member(within, "sg-web").await?);
    }
    assert_eq!(writes(&env).await?, 0);
    Ok(())
}

#[tokio::test]
async fn deletion_policy_remove_also_removes_adopted() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (_, within) in TARGETS {
        env.apply(
            "before",
            within,
            "sg-web",
            json!({"deletionPolicy": "Remove"}),
        )
        .await?;
        env.until_reason("before", "Adopted").await?;
        env.delete("before").await?;
        env.until_deleted("before").await?;
        assert!(!env.is_member(within, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn retain_keeps_the_edge_without_a_call() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (out, _) in TARGETS {
        env.apply("web", out, "sg-web", json!({"deletionPolicy": "Retain"}))
            .await?;
        env.until_reason("web", "Joined").await?;
        env.simulator.reset_stats().await?;
        env.delete("web").await?;
        env.until_deleted("web").await?;
        assert!(env.is_member(out, "sg-web").await?);
        assert_eq!(env.simulator.stats().await?["calls"], json!({}));
        env.until_event("web", "Retained").await?;
    }
    Ok(())
}

#[tokio::test]
async fn retain_unblocks_a_stuck_deletion() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let codes = [
        "InstanceLastSecurityGroup",
        "InvalidOperation.AtLeastInOneGroup",
    ];
    for ((out, _), code) in TARGETS.into_iter().zip(codes) {
        env.apply("web", out, "sg-web", json!({})).await?;
        env.until_reason("web", "Joined").await?;
        env.change_cloud(json!({"leave": {"target": out, "securityGroupId": "sg-base"}}))
            .await?;
        env.delete("web").await?;
        let object = env.until_reason("web", &code.replace('.', "")).await?;
        assert_eq!(phase(&object), "Stalled");
        let message = &ready(&object).unwrap().message;
        assert!(message.starts_with(code), "{message}");
        assert!(
            message.contains("set spec.deletionPolicy to Retain"),
            "{message}"
        );
        let error = object.status.as_ref().unwrap().last_error.as_ref().unwrap();
        assert_eq!(error.action, "LeaveSecurityGroup");
        assert_eq!(error.code.as_deref(), Some(code));
        assert_eq!(
            claim(&object).as_deref(),
            Some("Joined"),
            "it does not go by itself"
        );

        env.simulator.reset_stats().await?;
        env.apply("web", out, "sg-web", json!({"deletionPolicy": "Retain"}))
            .await?;
        env.until_deleted("web").await?;
        assert!(env.is_member(out, "sg-web").await?);
        assert_eq!(env.simulator.stats().await?["calls"], json!({}));
    }
    Ok(())
}

#[tokio::test]
async fn stuck_deletion_continues_when_its_cause_is_removed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    let base = json!({"target": "i-web", "securityGroupId": "sg-base"});
    env.change_cloud(json!({"leave": base})).await?;
    env.delete("web").await?;
    env.until_reason("web", "InstanceLastSecurityGroup").await?;
    env.change_cloud(json!({"join": base})).await?;
    env.request_reconcile("web").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn repair_rejoins_a_removed_edge() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (out, _) in TARGETS {
        env.apply(out, out, "sg-web", json!({})).await?;
        env.until_reason(out, "Joined").await?;
        env.simulator.reset_stats().await?;
        env.change_cloud(json!({"leave": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        env.request_reconcile(out).await?;
        env.until_event(out, "DriftDetected").await?;
        env.until_event(out, "DriftRepaired").await?;
        assert!(env.is_member(out, "sg-web").await?);
        env.reconcile_and_wait(out).await?;
        assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
        let object = env.until_reason(out, "Joined").await?;
        assert_eq!(phase(&object), "Settled");
    }
    Ok(())
}

#[tokio::test]
async fn repair_loop_is_reported_and_repairs_stop() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    let taken_out = json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}});
    for repairs in 1..=3 {
        env.change_cloud(taken_out.clone()).await?;
        env.reconcile_and_wait("web").await?;
        assert!(env.is_member("i-web", "sg-web").await?);
        assert_eq!(env.calls("JoinSecurityGroup").await?, 1 + repairs);
    }
    env.change_cloud(taken_out).await?;
    env.request_reconcile("web").await?;
    let object = env.until_reason("web", "RepairLoop").await?;
    assert_eq!(phase(&object), "Stalled");
    let drifted = condition(&object, "Drifted").unwrap();
    assert_eq!(
        (drifted.status.as_str(), drifted.reason.as_str()),
        ("True", "RepairLoop")
    );
    let message = &ready(&object).unwrap().message;
    assert!(
        message.contains("again after 3 repairs in 30 minutes"),
        "{message}"
    );
    env.until_event("web", "DriftDetected").await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 4);
    assert!(!env.is_member("i-web", "sg-web").await?);

    // The other owner puts it back, and that is the end of it: the membership is now that of the other owner.
    env.change_cloud(json!({"join": {"target": "i-web", "securityGroupId": "sg-web"}}))
        .await?;
    env.request_reconcile("web").await?;
    let object = env.until_reason("web", "Adopted").await?;
    assert_eq!(condition(&object, "Drifted").unwrap().reason, "NoDrift");
    assert_eq!(env.calls("JoinSecurityGroup").await?, 4);
    env.delete("web").await?;
    env.until_deleted("web").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn report_policy_reports_drift_without_repair() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (out, within) in TARGETS {
        // Adopted edges drift as joined ones do.
        for target in [out, within] {
            env.apply(target, target, "sg-web", json!({"driftPolicy": "Report"}))
                .await?;
            env.until_ready(target).await?;
            let joins = env.calls("JoinSecurityGroup").await?;
            env.change_cloud(json!({"leave": {"target": target, "securityGroupId": "sg-web"}}))
                .await?;
            env.request_reconcile(target).await?;
            let object = env.until_reason(target, "DriftReported").await?;
            assert_eq!(phase(&object), "Stalled");
            assert_eq!(condition(&object, "Drifted").unwrap().status, "True");
            env.until_event(target, "DriftDetected").await?;
            env.reconcile_and_wait(target).await?;
            env.reconcile_and_wait(target).await?;
            assert_eq!(env.calls("JoinSecurityGroup").await?, joins);
            assert!(!env.is_member(target, "sg-web").await?);

            env.apply(target, target, "sg-web", json!({"driftPolicy": "Repair"}))
                .await?;
            let object = env.until_ready(target).await?;
            assert_eq!(condition(&object, "Drifted").unwrap().reason, "NoDrift");
            assert!(env.is_member(target, "sg-web").await?);
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_read_or_written_for_a_suspended_object() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (out, within) in TARGETS {
        env.apply("web", out, "sg-web", json!({})).await?;
        env.until_reason("web", "Joined").await?;
        env.apply("web", out, "sg-web", json!({"suspend": true}))
            .await?;
        let object = env.until_suspended("web", true).await?;
        assert_eq!(ready(&object).unwrap().status, "True", "as it was");
        assert_eq!(phase(&object), "Settled");

        env.change_cloud(json!({"leave": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        env.simulator.reset_stats().await?;
        env.request_reconcile("web").await?;
        env.until("web", "the request is handled", |object| {
            let status = object.status.as_ref();
            let handled = status.and_then(|status| status.last_handled_reconcile_at.as_ref());
            handled == object.annotations().get(RECONCILE_REQUESTED_ANNOTATION)
        })
        .await?;
        let asked = env.memberships().get("web").await?.resource_version();
        // What comes after it is done, so it was not forgotten, but left alone.
        env.apply("witness", within, "sg-web", json!({})).await?;
        env.until_ready("witness").await?;
        // That of the witness.
        env.assert_reads(env.describe_calls().await?, 1);
        assert_eq!(writes(&env).await?, 0);
        let seen = env.memberships().get("web").await?.resource_version();
        assert_eq!(seen, asked, "nothing was written");

        env.delete("web").await?;
        env.until("web", "told to wait", |object| {
            let status = object.status.as_ref();
            let suspended = status.and_then(|status| find(&status.conditions, "Suspended"));
            suspended.is_some_and(|condition| condition.message.contains("the deletion waits"))
        })
        .await?;
        env.request_reconcile("witness").await?;
        env.reconcile_and_wait("witness").await?;
        assert_eq!(writes(&env).await?, 0);

        env.change_cloud(json!({"join": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
        env.memberships()
            .patch("web", &PatchParams::default(), &resume)
            .await?;
        env.until_deleted("web").await?;
        assert!(!env.is_member(out, "sg-web").await?);
        env.delete("witness").await?;
        env.until_deleted("witness").await?;
    }
    Ok(())
}

#[tokio::test]
async fn resumed_object_is_reconciled_again() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    env.apply("web", "i-web", "sg-web", json!({"suspend": true}))
        .await?;
    env.until_suspended("web", true).await?;
    env.change_cloud(json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}}))
        .await?;
    env.apply("web", "i-web", "sg-web", json!({"suspend": false}))
        .await?;
    env.until_suspended("web", false).await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    Ok(())
}
