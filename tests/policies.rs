//! Every policy does what it says, for instances and for network interfaces, and may be changed at any time.

mod support;

use kube::ResourceExt;
use serde_json::json;
use support::ask::{claim, phase};
use support::error::Result;
use support::stage::{Stage, condition, ready};

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

async fn writes(stage: &Stage) -> Result<u64> {
    Ok(stage.calls("JoinSecurityGroup").await? + stage.calls("LeaveSecurityGroup").await?)
}

#[tokio::test]
async fn observe_says_what_it_would_do_and_does_nothing() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let observe = json!({"managementPolicy": "Observe", "deletionPolicy": "Leave"});
    for (out, within) in TARGETS {
        stage.apply("out", out, "sg-web", observe.clone()).await?;
        let object = stage.until_reason("out", "NotAMember").await?;
        assert_eq!((phase(&object), claim(&object)), ("Settled", None));
        assert!(ready(&object).unwrap().message.contains("would be joined"));

        stage
            .apply("within", within, "sg-web", observe.clone())
            .await?;
        let object = stage.until_ready("within").await?;
        assert_eq!((phase(&object), claim(&object)), ("Settled", None));

        // The edge comes and goes, and the object only tells.
        let edge = json!({"target": out, "securityGroupId": "sg-web"});
        stage.behind(json!({"join": edge})).await?;
        stage.look_again("out").await?;
        stage.until_ready("out").await?;
        stage.behind(json!({"leave": edge})).await?;
        stage.look_again("out").await?;
        stage.until_reason("out", "NotAMember").await?;

        // Without a finalizer deletion needs nobody.
        stage.delete("out").await?;
        stage.delete("within").await?;
        stage.until_gone("out").await?;
        stage.until_gone("within").await?;
        assert!(stage.is_member(within, "sg-web").await?);
    }
    assert_eq!(writes(&stage).await?, 0);
    Ok(())
}

#[tokio::test]
async fn refuse_leaves_an_edge_from_before_alone_until_it_is_told_to_adopt() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (_, within) in TARGETS {
        let refuse = json!({"adoptionPolicy": "Refuse", "deletionPolicy": "Leave"});
        stage
            .apply("before", within, "sg-web", refuse.clone())
            .await?;
        let object = stage.until_reason("before", "AdoptionRefused").await?;
        assert_eq!((phase(&object), claim(&object)), ("Stalled", None));
        assert!(ready(&object).unwrap().message.contains("set it to Adopt"));
        // Even with deletionPolicy Leave: the edge was never this object's.
        stage.delete("before").await?;
        stage.until_gone("before").await?;
        assert!(stage.is_member(within, "sg-web").await?);

        stage.apply("before", within, "sg-web", refuse).await?;
        stage.until_reason("before", "AdoptionRefused").await?;
        stage
            .apply(
                "before",
                within,
                "sg-web",
                json!({"adoptionPolicy": "Adopt"}),
            )
            .await?;
        let object = stage.until_reason("before", "Adopted").await?;
        assert_eq!(
            (phase(&object), claim(&object).as_deref()),
            ("Settled", Some("Adopted"))
        );
        stage.delete("before").await?;
        stage.until_gone("before").await?;
        assert!(stage.is_member(within, "sg-web").await?);
    }
    assert_eq!(writes(&stage).await?, 0);
    Ok(())
}

#[tokio::test]
async fn leave_leaves_an_adopted_edge_too() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (_, within) in TARGETS {
        stage
            .apply(
                "before",
                within,
                "sg-web",
                json!({"deletionPolicy": "Leave"}),
            )
            .await?;
        stage.until_reason("before", "Adopted").await?;
        stage.delete("before").await?;
        stage.until_gone("before").await?;
        assert!(!stage.is_member(within, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn retain_keeps_the_edge_without_a_call() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (out, _) in TARGETS {
        stage
            .apply("web", out, "sg-web", json!({"deletionPolicy": "Retain"}))
            .await?;
        stage.until_reason("web", "Joined").await?;
        stage.simulator.reset_stats().await?;
        stage.delete("web").await?;
        stage.until_gone("web").await?;
        assert!(stage.is_member(out, "sg-web").await?);
        assert_eq!(stage.simulator.stats().await?["calls"], json!({}));
        stage.until_event("web", "Retained").await?;
    }
    Ok(())
}

#[tokio::test]
async fn retain_is_the_way_out_of_a_deletion_that_cannot_finish() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let codes = [
        "InstanceLastSecurityGroup",
        "InvalidOperation.AtLeastInOneGroup",
    ];
    for ((out, _), code) in TARGETS.into_iter().zip(codes) {
        stage.apply("web", out, "sg-web", json!({})).await?;
        stage.until_reason("web", "Joined").await?;
        stage
            .behind(json!({"leave": {"target": out, "securityGroupId": "sg-base"}}))
            .await?;
        stage.delete("web").await?;
        let object = stage.until_reason("web", &code.replace('.', "")).await?;
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

        stage.simulator.reset_stats().await?;
        stage
            .apply("web", out, "sg-web", json!({"deletionPolicy": "Retain"}))
            .await?;
        stage.until_gone("web").await?;
        assert!(stage.is_member(out, "sg-web").await?);
        assert_eq!(stage.simulator.stats().await?["calls"], json!({}));
    }
    Ok(())
}

#[tokio::test]
async fn a_deletion_that_was_stuck_goes_on_when_the_cause_is_gone() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("web", "i-web", "sg-web", json!({})).await?;
    stage.until_ready("web").await?;
    let base = json!({"target": "i-web", "securityGroupId": "sg-base"});
    stage.behind(json!({"leave": base})).await?;
    stage.delete("web").await?;
    stage
        .until_reason("web", "InstanceLastSecurityGroup")
        .await?;
    stage.behind(json!({"join": base})).await?;
    stage.look_again("web").await?;
    stage.until_gone("web").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn repair_puts_back_what_somebody_else_took_away() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (out, _) in TARGETS {
        stage.apply(out, out, "sg-web", json!({})).await?;
        stage.until_reason(out, "Joined").await?;
        stage.simulator.reset_stats().await?;
        stage
            .behind(json!({"leave": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        stage.look_again(out).await?;
        stage.until_event(out, "DriftDetected").await?;
        stage.until_event(out, "DriftRepaired").await?;
        assert!(stage.is_member(out, "sg-web").await?);
        stage.look_and_wait(out).await?;
        assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);
        let object = stage.until_reason(out, "Joined").await?;
        assert_eq!(phase(&object), "Settled");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_undone_again_and_again_is_said_and_no_more_repaired_for_now() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("web", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("web", "Joined").await?;
    let taken_out = json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}});
    for repairs in 1..=3 {
        stage.behind(taken_out.clone()).await?;
        stage.look_and_wait("web").await?;
        assert!(stage.is_member("i-web", "sg-web").await?);
        assert_eq!(stage.calls("JoinSecurityGroup").await?, 1 + repairs);
    }
    stage.behind(taken_out).await?;
    stage.look_again("web").await?;
    let object = stage.until_reason("web", "RepairLoop").await?;
    assert_eq!(phase(&object), "Stalled");
    let drifted = condition(&object, "Drifted").unwrap();
    assert_eq!(
        (drifted.status.as_str(), drifted.reason.as_str()),
        ("True", "RepairLoop")
    );
    let message = &ready(&object).unwrap().message;
    assert!(
        message.contains("3 repairs in 30 min were undone"),
        "{message}"
    );
    stage.until_event("web", "DriftDetected").await?;
    stage.look_and_wait("web").await?;
    stage.look_and_wait("web").await?;
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 4);
    assert!(!stage.is_member("i-web", "sg-web").await?);

    // Whoever is the other owner puts it back, and that is the end of it.
    stage
        .behind(json!({"join": {"target": "i-web", "securityGroupId": "sg-web"}}))
        .await?;
    stage.look_again("web").await?;
    let object = stage.until_reason("web", "Joined").await?;
    assert!(condition(&object, "Drifted").is_none());
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 4);
    stage.delete("web").await?;
    stage.until_gone("web").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn report_only_says_that_somebody_else_took_it_away() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (out, within) in TARGETS {
        // Adopted edges drift as joined ones do.
        for target in [out, within] {
            stage
                .apply(target, target, "sg-web", json!({"driftPolicy": "Report"}))
                .await?;
            stage.until_ready(target).await?;
            let joins = stage.calls("JoinSecurityGroup").await?;
            stage
                .behind(json!({"leave": {"target": target, "securityGroupId": "sg-web"}}))
                .await?;
            stage.look_again(target).await?;
            let object = stage.until_reason(target, "DriftReported").await?;
            assert_eq!(phase(&object), "Stalled");
            assert_eq!(condition(&object, "Drifted").unwrap().status, "True");
            stage.until_event(target, "DriftDetected").await?;
            stage.look_and_wait(target).await?;
            stage.look_and_wait(target).await?;
            assert_eq!(stage.calls("JoinSecurityGroup").await?, joins);
            assert!(!stage.is_member(target, "sg-web").await?);

            stage
                .apply(target, target, "sg-web", json!({"driftPolicy": "Repair"}))
                .await?;
            let object = stage.until_ready(target).await?;
            assert!(condition(&object, "Drifted").is_none());
            assert!(stage.is_member(target, "sg-web").await?);
        }
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_read_or_written_for_a_paused_object() -> Result<()> {
    const PAUSED: &str = "security-group-operator.io/paused";
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (out, within) in TARGETS {
        stage.apply("web", out, "sg-web", json!({})).await?;
        stage.until_reason("web", "Joined").await?;
        stage.annotate("web", PAUSED, "true").await?;
        let object = stage.until_reason("web", "Paused").await?;
        assert_eq!(ready(&object).unwrap().status, "Unknown");
        assert_eq!(phase(&object), "Settled");

        stage
            .behind(json!({"leave": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        stage.simulator.reset_stats().await?;
        stage.look_again("web").await?;
        let asked = stage.memberships().get("web").await?.resource_version();
        // What comes after it is done, so it was not forgotten, but left alone.
        stage.apply("witness", within, "sg-web", json!({})).await?;
        stage.until_ready("witness").await?;
        assert_eq!(stage.reads().await?, 1, "that of the witness");
        assert_eq!(writes(&stage).await?, 0);
        let seen = stage.memberships().get("web").await?.resource_version();
        assert_eq!(seen, asked, "nothing was written");

        stage.delete("web").await?;
        stage
            .until("web", "told to wait", |object| {
                ready(object).is_some_and(|ready| ready.message.contains("the deletion waits"))
            })
            .await?;
        stage.look_again("witness").await?;
        stage.look_and_wait("witness").await?;
        assert_eq!(writes(&stage).await?, 0);

        stage
            .behind(json!({"join": {"target": out, "securityGroupId": "sg-web"}}))
            .await?;
        stage.annotate("web", PAUSED, "false").await?;
        stage.until_gone("web").await?;
        assert!(!stage.is_member(out, "sg-web").await?);
        stage.delete("witness").await?;
        stage.until_gone("witness").await?;
    }
    Ok(())
}

#[tokio::test]
async fn unpausing_goes_on_where_it_stopped() -> Result<()> {
    const PAUSED: &str = "security-group-operator.io/paused";
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("web", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("web", "Joined").await?;
    stage.annotate("web", PAUSED, "true").await?;
    stage.until_reason("web", "Paused").await?;
    stage
        .behind(json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}}))
        .await?;
    stage.annotate("web", PAUSED, "false").await?;
    stage.until_reason("web", "Joined").await?;
    assert!(stage.is_member("i-web", "sg-web").await?);
    Ok(())
}
