//! Instructions per pass, counted by callgrind: independent of the machine's speed. In process; no network, no clock except
//! for the time in a condition.

use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy,
};
use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION, SecurityGroupMembership};
use security_group_operator::ecs::{Edge, Tags, TargetDescription, TargetState};
use security_group_operator::membership::decide::{
    AccessView, Attempt, ClaimView, Desired, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
    ReconcileOutcome, Step, TargetView, decide,
};
use security_group_operator::membership::object::Intent;
use security_group_operator::membership::status::{StatusInput, status};
use serde_json::{Value, json};

use crate::support::error::{Context as _, Error, Result};

/// Counts two runs of different length and prints the difference, which excludes the start of the process.
pub fn count() -> Result<()> {
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("valgrind is not installed, so the instructions of a pass are not counted.");
        return Ok(());
    }
    let (few, many) = (instructions(FEW)?, instructions(MANY)?);
    let passes = u64::from(MANY - FEW);
    println!("| what | instructions |\n|---|--:|");
    println!(
        "| one pass that makes an edge: read the object thrice, decide, two patches, status | {} |",
        (many - few) / passes
    );
    Ok(())
}

const FEW: u32 = 100;
const MANY: u32 = 1_100;

fn instructions(passes: u32) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["pass", &format!("--passes={passes}")])
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .ok_or_else(|| Error::new(format!("callgrind counted nothing:\n{said}")))
}

/// Runs this many passes and nothing else: the process under valgrind.
pub fn run(passes: u32) -> ExitCode {
    let fresh = object(None, None).to_string();
    for _ in 0..passes {
        if black_box(one(&fresh)).is_none() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Makes a new object Ready: the steps of `membership::pass`, with prepared answers of the cloud and the API server.
fn one(fresh: &str) -> Option<Vec<u8>> {
    let mut stored: SecurityGroupMembership = serde_json::from_str(fresh).ok()?;
    let edge = Edge::try_from(&stored.spec).ok()?;
    let desired = desired(&stored);
    let mut observed = unseen();
    let outcome = loop {
        match decide(&desired, &observed) {
            Step::Read => {
                observed.target = TargetView::Present {
                    member: false,
                    transitional: false,
                };
            }
            Step::AwaitTurn => observed.admitted = true,
            Step::Intend => {
                let patch = claim_patch();
                let answer = object_with_claim(&patch);
                stored = serde_json::from_slice(&answer).ok()?;
                observed.claim = ClaimView::Intent { void: true };
                observed.finalizer = true;
                observed.confirmed = true;
            }
            Step::Join => {
                observed.attempt = Attempt::Joined;
                observed.claim = ClaimView::Joined { void: false };
            }
            Step::Finish(outcome) => break outcome,
            Step::Confirm
            | Step::Adopt
            | Step::DropClaim
            | Step::ListEdge
            | Step::Leave
            | Step::Record
            | Step::HandOver
            | Step::Release(_) => return None,
        }
    };
    let description = description()?;
    let next = finished(&stored, &edge, outcome, &observed, &description)?;
    let patch = serde_json::to_vec(&json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {"name": "edge-000001", "uid": stored.metadata.uid}, "status": next,
    }));
    let answer = object(Some(&claim_patch()), Some(json!(next))).to_string();
    let written: SecurityGroupMembership = serde_json::from_str(&answer).ok()?;
    black_box(written);
    patch.ok()
}

fn finished(
    stored: &SecurityGroupMembership,
    edge: &Edge,
    outcome: ReconcileOutcome,
    observed: &Observed,
    description: &TargetDescription,
) -> Option<security_group_operator::api::SecurityGroupMembershipStatus> {
    let input = StatusInput {
        edge,
        outcome,
        observed,
        deleting: false,
        deletion: DeletionPolicy::RemoveIfJoined,
        description: Some(description),
        failure: None,
        account_problem: "",
        not_listed: None,
        waits_since: None,
        not_observed_after: None,
        held_for: std::time::Duration::ZERO,
        object_uid: &UID.into(),
        account_uid: None,
        reconcile_requested_at: None,
        held: None,
        docs_url: None,
        refusal: None,
    };
    let previous = stored.status.clone().unwrap_or_default();
    status(
        &previous,
        stored.metadata.generation,
        &input,
        Timestamp::now(),
    )
}

fn desired(object: &SecurityGroupMembership) -> Desired {
    Desired {
        deleting: object.metadata.deletion_timestamp.is_some(),
        suspended: false,
        management: ManagementPolicy::Manage,
        adoption: AdoptionPolicy::Adopt,
        deletion: DeletionPolicy::RemoveIfJoined,
        drift: DriftPolicy::Repair,
        karpenter: KarpenterPolicy::Refuse,
    }
}

const fn unseen() -> Observed {
    Observed {
        account: AccessView::Usable,
        claim: ClaimView::None,
        finalizer: false,
        confirmed: false,
        target: TargetView::Unread,
        karpenter: false,
        trust: ReadTrust::Settled,
        join_is_open: false,
        holder: Holder::None,
        elsewhere: Elsewhere {
            joined: false,
            recorded: false,
        },
        admitted: false,
        view: EdgeView::Fresh,
        attempt: Attempt::None,
        drifted: false,
        repairs: 0,
        synced: true,
    }
}

fn description() -> Option<TargetDescription> {
    Some(TargetDescription {
        state: TargetState::Running,
        vpc_id: Some("vpc-sim".to_owned()),
        security_group_ids: std::iter::once("sg-base".parse().ok()?).collect(),
        service_managed: false,
        primary: false,
        karpenter: false,
        lock_reasons: Vec::new(),
        tags: Tags::default(),
    })
}

const UID: &str = "0b1f2c3d-1111-2222-3333-444455556666";

fn claim_patch() -> Value {
    let intent = Intent::new(&UID.into(), &"1000000000000001".into());
    json!({
        "finalizers": [FINALIZER],
        "annotations": {INTENT_ANNOTATION: intent.text()},
    })
}

fn object_with_claim(patch: &Value) -> Vec<u8> {
    object(Some(patch), None).to_string().into_bytes()
}

/// The object as the API server sends it.
fn object(claim: Option<&Value>, status: Option<Value>) -> Value {
    let field = |name: &str| claim.and_then(|claim| claim.get(name)).cloned();
    json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {
            "name": "edge-000001", "namespace": "bench", "generation": 1, "resourceVersion": "12345",
            "uid": UID, "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": field("finalizers"), "annotations": field("annotations"),
        },
        "spec": {
            "region": "cn-hangzhou", "instanceID": "i-sim000001", "securityGroupID": "sg-sim0001",
            "accountRef": {"kind": "ClusterCloudAccount", "name": "default"},
        },
        "status": status.unwrap_or_else(|| json!({"conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "Pending", "message": "not observed by the operator yet",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]})),
    })
}
