//! What Argo CD and Flux make of our objects: the files of `examples/gitops/` run in a real Lua, and `kstatus`, over every reason of every kind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use mlua::{Lua, LuaSerdeExt as _, StdLib};
use security_group_operator::api::membership::{
    DeletionPolicy, Origin, SecurityGroupMembershipStatus,
};
use security_group_operator::api::{GROUP, SecurityGroupMembershipSetStatus, reason};
use security_group_operator::ecs::{Action, ApiError, Class, Edge, Error, Target};
use security_group_operator::kubernetes::ObjectUid;
use security_group_operator::membership::decide::{
    AccessView, Attempt, ClaimView, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
    ReconcileOutcome, Release, TargetView,
};
use security_group_operator::membership::status::{
    Ending, Held, Refusal, Refused, StatusInput, status,
};
use security_group_operator::set::{self, plan::Plan};
use serde_json::{Value, json};

use crate::book::{read, repository};
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Error as TestError, Result};
use crate::support::kstatus;

/// An object in one state, and what the tools must say of it.
struct Case {
    what: String,
    object: Value,
    kstatus: &'static str,
    argo: &'static str,
}

#[tokio::test]
async fn kstatus_and_argo_cd_say_what_is_so_for_every_reason() -> Result<()> {
    let cases: Vec<Case> = memberships()
        .into_iter()
        .chain(sets())
        .chain(accounts())
        .collect();
    let objects: Vec<Value> = cases.iter().map(|case| case.object.clone()).collect();
    let found = kstatus::compute(&objects).await?;
    assert_eq!(found.len(), cases.len());
    for (case, found) in cases.iter().zip(found) {
        assert_eq!(found.status, case.kstatus, "kstatus of {}", case.what);
        let health = health(&case.object)?;
        assert_eq!(health["status"], case.argo, "Argo CD of {}", case.what);
        assert!(
            health["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
    println!(
        "{} states, by kstatus and by Argo CD's health check",
        cases.len()
    );
    let met: BTreeSet<String> = cases
        .iter()
        .flat_map(|case| reasons_of(&case.object))
        .collect();
    let missing: Vec<&str> = every_reason().filter(|name| !met.contains(*name)).collect();
    assert_eq!(missing, [""; 0], "add a case");
    Ok(())
}

fn reasons_of(object: &Value) -> Vec<String> {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let reasons = conditions
        .into_iter()
        .flatten()
        .map(|condition| &condition["reason"]);
    reasons
        .filter_map(|reason| reason.as_str().map(str::to_owned))
        .collect()
}

/// Every reason of a condition, by the comments of src/api/reason.rs. Reasons of events alone are none.
fn every_reason() -> impl Iterator<Item = &'static str> {
    let mut comment = "";
    include_str!("../../src/api/reason.rs")
        .lines()
        .filter_map(move |line| {
            if let Some(text) = line.strip_prefix("/// ") {
                // The first line of a comment names the condition.
                if text.contains("Ready=")
                    || text.contains("Drifted=")
                    || text.contains("Reachable=")
                {
                    comment = text;
                }
                return None;
            }
            let name = line.strip_prefix("pub const ")?.split('"').nth(1);
            let is_reason = !std::mem::take(&mut comment).is_empty();
            name.filter(|_| is_reason)
        })
}

// --- Memberships, with the statuses that the operator itself builds.

fn memberships() -> Vec<Case> {
    let joined = told(&Told::of(ready(Some(Origin::Joined), false)));
    let fresh = fresh("SecurityGroupMembership");
    let mut cases = vec![
        case(
            "suspended when Ready",
            suspended(&joined),
            CURRENT,
            "Suspended",
        ),
        case(
            "suspended when fresh",
            suspended(&fresh.object),
            IN_PROGRESS,
            "Suspended",
        ),
        fresh,
    ];
    let add = |state: (&'static str, &'static str), objects: Vec<(String, Value)>| {
        let one = move |(what, object): (String, Value)| case(&what, object, state.0, state.1);
        objects.into_iter().map(one).collect::<Vec<_>>()
    };
    cases.extend(add((CURRENT, "Healthy"), ready_ones()));
    cases.extend(add((FAILED, "Degraded"), stalled_ones()));
    cases.extend(add((IN_PROGRESS, "Progressing"), waiting_ones()));
    let deleted = |release: Release| (format!("deleted, {release:?}"), deleted(release));
    let deleted = [Release::Left, Release::Retained].map(deleted).into();
    cases.extend(add(("Terminating", "Progressing"), deleted));
    cases
}

const CURRENT: &str = "Current";
const FAILED: &str = "Failed";
const IN_PROGRESS: &str = "InProgress";

fn case(what: &str, object: Value, kstatus: &'static str, argo: &'static str) -> Case {
    let what = what.to_owned();
    Case {
        what,
        object,
        kstatus,
        argo,
    }
}

fn ready(origin: Option<Origin>, shared: bool) -> ReconcileOutcome {
    ReconcileOutcome::Ready {
        origin,
        shared,
        repaired: false,
    }
}

fn ready_ones() -> Vec<(String, Value)> {
    let outcomes = [
        ready(Some(Origin::Joined), false),
        ready(Some(Origin::Adopted), false),
        ready(Some(Origin::Adopted), true),
        ready(None, false),
    ];
    outcomes.map(ended).into()
}

fn ended(outcome: ReconcileOutcome) -> (String, Value) {
    (format!("{outcome:?}"), told(&Told::of(outcome)))
}

fn refused_with(code: &str) -> (String, Value) {
    (code.to_owned(), told(&Told::failed(code)))
}

fn of_account(account: AccessView) -> (String, Value) {
    let outcome = ReconcileOutcome::AccountUnusable;
    (
        format!("{account:?}"),
        told(&Told {
            account,
            ..Told::of(outcome)
        }),
    )
}

/// A human or another system must act.
fn stalled_ones() -> Vec<(String, Value)> {
    let outcomes = [
        ReconcileOutcome::WouldJoin,
        ReconcileOutcome::AdoptionRefused,
        ReconcileOutcome::KarpenterNode,
        ReconcileOutcome::DriftReported,
        ReconcileOutcome::RepairLoop,
        ReconcileOutcome::Absent,
    ];
    let accounts = [
        AccessView::Missing,
        AccessView::NotReady { stalled: true },
        AccessView::Changed,
        AccessView::NotGranted,
    ];
    let codes = [
        "InvalidSecurityGroupId.NotFound",
        "InstanceSecurityGroupLimitExceeded",
        "Forbidden.RAM",
        "InvalidInstanceId.Mismatch",
    ];
    let waited = Told {
        waits_for_an_hour: true,
        ..Told::of(ReconcileOutcome::Waiting)
    };
    let mut all = vec![
        ("InvalidSpec".to_owned(), invalid_spec()),
        ("waits for an hour".to_owned(), told(&waited)),
    ];
    all.extend(outcomes.map(ended));
    all.extend(accounts.map(of_account));
    all.extend(codes.map(refused_with));
    all
}

/// It ends by itself.
fn waiting_ones() -> Vec<(String, Value)> {
    let codes = [
        "InternalError",
        "Throttling.User",
        "Never.Heard.Of",
        "IncorrectInstanceStatus",
    ];
    let refused = Told {
        refused: true,
        ..Told::of(ReconcileOutcome::WriteRefused)
    };
    let mut all = vec![
        ("a refused write".to_owned(), told(&refused)),
        ("not observed for long".to_owned(), not_observed()),
        of_account(AccessView::NotReady { stalled: false }),
        ended(ReconcileOutcome::Waiting),
    ];
    all.extend(codes.map(refused_with));
    all
}

/// How a pass ended.
struct Told {
    outcome: ReconcileOutcome,
    account: AccessView,
    failure: Option<Error>,
    waits_for_an_hour: bool,
    refused: bool,
}

impl Told {
    fn of(outcome: ReconcileOutcome) -> Self {
        Self {
            outcome,
            account: AccessView::Usable,
            failure: None,
            waits_for_an_hour: false,
            refused: false,
        }
    }

    fn failed(code: &str) -> Self {
        let error = Error::Api(ApiError::foreseen(Action::JoinSecurityGroup, code));
        let outcome = ReconcileOutcome::Failed(error.class());
        Self {
            failure: Some(error),
            ..Self::of(outcome)
        }
    }
}

/// The object with the status of a pass that ended so.
fn told(told: &Told) -> Value {
    let refusal = Refusal {
        what: Refused::Claim,
        sentence: "denied".to_owned(),
    };
    let edge = edge();
    let observed = observed(told.account);
    let uid: ObjectUid = "0b1f2c3d".into();
    let input = StatusInput {
        failure: told.failure.as_ref(),
        account_problem: "the account has a problem",
        waits_since: told.waits_for_an_hour.then(|| at(-3600)),
        refusal: told.refused.then_some(&refusal),
        ..input(&edge, &observed, &uid, told.outcome)
    };
    let next = status(
        &SecurityGroupMembershipStatus::default(),
        Some(1),
        &input,
        at(0),
    );
    membership(&next.expect("a status"))
}

fn not_observed() -> Value {
    let joined = Told::of(ReconcileOutcome::Ready {
        origin: Some(Origin::Joined),
        shared: false,
        repaired: false,
    });
    let before: SecurityGroupMembershipStatus =
        serde_json::from_value(told(&joined)["status"].clone()).unwrap();
    let (edge, observed) = (edge(), observed(AccessView::Usable));
    let uid: ObjectUid = "0b1f2c3d".into();
    let input = StatusInput {
        not_observed_after: Some(Duration::from_secs(600)),
        ..input(
            &edge,
            &observed,
            &uid,
            ReconcileOutcome::Failed(Class::Throttled),
        )
    };
    membership(&status(&before, Some(1), &input, at(0)).expect("a status"))
}

/// The last status of an object that the finalizer of another controller keeps.
fn deleted(release: Release) -> Value {
    let (edge, observed) = (edge(), observed(AccessView::Usable));
    let uid: ObjectUid = "0b1f2c3d".into();
    let finalizers = ["example.com/hold".to_owned()];
    let ending = Ending {
        why: release,
        removed: true,
    };
    let input = StatusInput {
        deleting: true,
        held: Some(Held {
            ending,
            finalizers: &finalizers,
        }),
        ..input(&edge, &observed, &uid, ReconcileOutcome::Gone)
    };
    let before = SecurityGroupMembershipStatus::default();
    let mut object = membership(&status(&before, Some(1), &input, at(0)).expect("a status"));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object["metadata"]["finalizers"] = json!(finalizers);
    object
}

fn suspended(object: &Value) -> Value {
    let before: SecurityGroupMembershipStatus =
        serde_json::from_value(object["status"].clone()).unwrap();
    let (edge, observed) = (edge(), observed(AccessView::Usable));
    let uid: ObjectUid = "0b1f2c3d".into();
    let input = input(&edge, &observed, &uid, ReconcileOutcome::Suspended);
    let mut object = membership(&status(&before, Some(2), &input, at(0)).expect("a status"));
    object["metadata"]["generation"] = json!(2);
    object["spec"]["suspend"] = json!(true);
    object
}

/// As `membership/invalid_spec.rs` writes it: Stalled.
fn invalid_spec() -> Value {
    object(
        "SecurityGroupMembership",
        &[("Ready", "False"), ("Stalled", "True")],
        reason::INVALID_SPEC,
    )
}

fn edge() -> Edge {
    Edge {
        region: "cn-hangzhou".parse().expect("a region"),
        target: Target::Instance("i-1".parse().expect("an ID")),
        group: "sg-1".parse().expect("an ID"),
    }
}

fn observed(account: AccessView) -> Observed {
    Observed {
        account,
        claim: ClaimView::None,
        finalizer: false,
        confirmed: false,
        target: TargetView::Unread,
        trust: ReadTrust::Settled,
        join_is_open: false,
        holder: Holder::None,
        elsewhere: Elsewhere::default(),
        admitted: false,
        view: EdgeView::Fresh,
        attempt: Attempt::None,
        drifted: false,
        repairs: 0,
        synced: true,
        karpenter: false,
    }
}

fn input<'a>(
    edge: &'a Edge,
    observed: &'a Observed,
    object_uid: &'a ObjectUid,
    outcome: ReconcileOutcome,
) -> StatusInput<'a> {
    StatusInput {
        edge,
        outcome,
        observed,
        deleting: false,
        deletion: DeletionPolicy::RemoveIfJoined,
        description: None,
        failure: None,
        account_problem: "",
        not_listed: None,
        waits_since: None,
        not_observed_after: None,
        held_for: Duration::ZERO,
        object_uid,
        account_uid: None,
        reconcile_requested_at: None,
        held: None,
        docs_url: None,
        refusal: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn membership(status: &SecurityGroupMembershipStatus) -> Value {
    let mut object = object("SecurityGroupMembership", &[], "");
    object["status"] = serde_json::to_value(status).expect("JSON");
    object
}

// --- Sets, with the statuses that the operator itself builds.

fn sets() -> Vec<Case> {
    let fresh = fresh("SecurityGroupMembershipSet");
    let complete = set_of(
        Plan {
            ready: 2,
            ..Plan::default()
        },
        2,
        None,
    );
    let suspended_from = |before: &Value| {
        let before = serde_json::from_value(before["status"].clone()).unwrap();
        let plan = Plan::default();
        let found = set::status::Found {
            suspended: true,
            ..found(&plan, 0, None)
        };
        set(&set::status::status(&before, Some(1), found, at(0)))
    };
    let mut cases = vec![
        case(
            "a suspended complete set",
            suspended_from(&complete),
            CURRENT,
            "Suspended",
        ),
        case(
            "a suspended new set",
            suspended_from(&fresh.object),
            IN_PROGRESS,
            "Suspended",
        ),
        case("a complete set", complete, CURRENT, "Healthy"),
        case(
            "a set without targets",
            set_of(Plan::default(), 0, None),
            CURRENT,
            "Healthy",
        ),
        fresh,
    ];
    let absent = Plan {
        ready: 1,
        not_found: 1,
        ..Plan::default()
    };
    cases.push(case(
        "a target that the cloud does not list",
        set_of(absent, 2, None),
        CURRENT,
        "Healthy",
    ));
    let going = Plan {
        ready: 2,
        going: 1,
        ..Plan::default()
    };
    for (what, plan) in [
        ("a set that goes on", Plan::default()),
        ("a set whose old memberships go", going),
    ] {
        cases.push(case(
            what,
            set_of(plan, 2, None),
            IN_PROGRESS,
            "Progressing",
        ));
    }
    cases.extend(stalled_sets());
    cases.extend(refused_sets());
    cases
}

/// A human must act.
fn stalled_sets() -> Vec<Case> {
    let mut cases = Vec::new();
    let stalled = Plan {
        stalled: [("NotGranted".into(), 1)].into(),
        stalled_targets: 1,
        ..Plan::default()
    };
    let nothing = Plan {
        nothing_selected: true,
        ..Plan::default()
    };
    let invalid = set::status::invalid(
        &SecurityGroupMembershipSetStatus::default(),
        Some(1),
        "spec is wrong".to_owned(),
        at(0),
    );
    cases.push(case(
        "a stalled target",
        set_of(stalled, 1, None),
        FAILED,
        "Degraded",
    ));
    cases.push(case(
        "nothing is selected",
        set_of(nothing, 0, None),
        FAILED,
        "Degraded",
    ));
    cases.push(case(
        "a set that cannot be read",
        set(&invalid),
        FAILED,
        "Degraded",
    ));
    cases
}

/// Something keeps the set from its work.
fn refused_sets() -> Vec<Case> {
    let mut cases = Vec::new();
    let account = |stalled| set::Refusal::Account {
        reason: reason::ACCOUNT_NOT_READY,
        message: "the account has a problem".to_owned(),
        stalled,
    };
    for (refusal, kstatus, argo) in [
        (account(false), IN_PROGRESS, "Progressing"),
        (account(true), FAILED, "Degraded"),
        (
            set::Refusal::Nodes("forbidden".to_owned()),
            FAILED,
            "Degraded",
        ),
        (
            set::Refusal::Tags {
                error: "Throttling".to_owned(),
                stalled: false,
            },
            IN_PROGRESS,
            "Progressing",
        ),
        (
            set::Refusal::NodesUnread("no answer".to_owned()),
            IN_PROGRESS,
            "Progressing",
        ),
        (
            set::Refusal::NodesUnwatched("no answer".to_owned()),
            IN_PROGRESS,
            "Progressing",
        ),
        (
            set::Refusal::NothingShown("cn-hangzhou".parse().unwrap()),
            FAILED,
            "Degraded",
        ),
        (set::Refusal::ManyTagged, FAILED, "Degraded"),
        (
            set::Refusal::NameTaken {
                name: "a".to_owned(),
            },
            FAILED,
            "Degraded",
        ),
        (
            set::Refusal::Create("exceeded quota".to_owned()),
            FAILED,
            "Degraded",
        ),
        (
            set::Refusal::Write("not on a Friday".to_owned()),
            FAILED,
            "Degraded",
        ),
    ] {
        let object = set_of(Plan::default(), 1, Some(&refusal));
        cases.push(case(
            &format!("a set with {refusal:?}"),
            object,
            kstatus,
            argo,
        ));
    }
    cases
}

fn found<'a>(
    plan: &'a Plan,
    targets: usize,
    refusal: Option<&'a set::Refusal>,
) -> set::status::Found<'a> {
    set::status::Found {
        set: ("team-a", "web"),
        plan,
        targets: Some(targets),
        skipped: 0,
        objects: targets,
        refusal,
        suspended: false,
        failure: None,
        requested: None,
    }
}

/// A set after a pass that found this.
fn set_of(plan: Plan, targets: usize, refusal: Option<&set::Refusal>) -> Value {
    let found = found(&plan, targets, refusal);
    let before = SecurityGroupMembershipSetStatus::default();
    set(&set::status::status(&before, Some(1), found, at(0)))
}

fn set(status: &SecurityGroupMembershipSetStatus) -> Value {
    let mut object = object("SecurityGroupMembershipSet", &[], "");
    object["status"] = serde_json::to_value(status).expect("JSON");
    object
}

// --- Accounts. Their conditions are those of src/account/status.rs.

fn accounts() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["CloudAccount", "ClusterCloudAccount"] {
        cases.push(fresh(kind));
        let mut add = |conditions: &[(&str, &str)], reason: &str, kstatus, argo| {
            let what = format!("{kind} {reason} {conditions:?}");
            let object = object(kind, conditions, reason);
            cases.push(Case {
                what,
                object,
                kstatus,
                argo,
            });
        };
        let accepted = reason::CREDENTIALS_ACCEPTED;
        add(&[("Ready", "True")], accepted, "Current", "Healthy");
        add(
            &[("Ready", "True"), ("Reachable", "True")],
            reason::ANSWERING,
            "Current",
            "Healthy",
        );
        for reason in [reason::NO_ANSWER, reason::NOT_OBSERVED] {
            let conditions = [("Ready", "True"), ("Reachable", "False")];
            add(&conditions, reason, "Current", "Degraded");
        }
        let retrying = [("Ready", "False"), ("Reconciling", "True")];
        add(&retrying, reason::RETRYING, "InProgress", "Progressing");
        for reason in [
            reason::SECRET_NOT_FOUND,
            reason::SECRET_INVALID,
            reason::SECRET_FORBIDDEN,
            reason::ENVIRONMENT_EMPTY,
            reason::NO_KEY_HANDED_OUT,
            reason::SERVICE_ACCOUNT_NOT_FOUND,
            reason::TOKEN_FORBIDDEN,
            reason::TOKEN_UNUSABLE,
            reason::INVALID_SPEC,
            "InvalidAccessKeyIdNotFound",
        ] {
            add(
                &[("Ready", "False"), ("Stalled", "True")],
                reason,
                "Failed",
                "Degraded",
            );
        }
    }
    cases
}

/// As the API server stores a new object: with the default of the CRD.
fn fresh(kind: &str) -> Case {
    let crds = security_group_operator::api::crds();
    let (_, crd) = crds
        .iter()
        .find(|(_, crd)| crd.spec.names.kind == kind)
        .unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    let default = "/spec/versions/0/schema/openAPIV3Schema/properties/status/default";
    let mut object = object(kind, &[], "");
    object["status"] = crd.pointer(default).expect("a default").clone();
    Case {
        what: format!("a new {kind}"),
        object,
        kstatus: "InProgress",
        argo: "Progressing",
    }
}

fn object(kind: &str, conditions: &[(&str, &str)], reason: &str) -> Value {
    let condition = |(type_, status): &(&str, &str)| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": "as it is",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": "a", "namespace": "b", "generation": 1},
        "spec": {},
        "status": {
            "observedGeneration": 1,
            "conditions": conditions.iter().map(condition).collect::<Vec<_>>(),
        },
    })
}

// --- The Lua of Argo CD.

/// The kinds that have files there.
const KINDS: [&str; 4] = [
    "SecurityGroupMembership",
    "SecurityGroupMembershipSet",
    "CloudAccount",
    "ClusterCloudAccount",
];
const FOLDER: &str = "examples/gitops/argocd/resource_customizations";

/// What Argo CD shows, which does not ask the script of an object that is being deleted.
fn health(object: &Value) -> Result<Value> {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Ok(json!({"status": "Progressing", "message": "Pending deletion"}));
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    run_lua(
        &read(&format!("{FOLDER}/{GROUP}/{kind}/health.lua")),
        object,
    )
}

/// Runs a script with `obj`, in a Lua 5.1 with the libraries that Argo CD opens: those of the language, `table`, `package` and `os`.
fn run_lua(script: &str, object: &Value) -> Result<Value> {
    let libraries = StdLib::TABLE | StdLib::PACKAGE | StdLib::OS;
    let lua = Lua::new_with(libraries, mlua::LuaOptions::default()).map_err(lua_error)?;
    let object = lua.to_value(object).map_err(lua_error)?;
    lua.globals().set("obj", object).map_err(lua_error)?;
    let answer: mlua::Value = lua.load(script).eval().map_err(lua_error)?;
    lua.from_value(answer).map_err(lua_error)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn lua_error(error: mlua::Error) -> TestError {
    TestError::new(error.to_string())
}

#[test]
fn actions_change_what_they_name_and_nothing_else() -> Result<()> {
    let action = |kind: &str, name: &str| {
        read(&format!(
            "{FOLDER}/{GROUP}/{kind}/actions/{name}/action.lua"
        ))
    };
    let discovered = |object: &Value| -> Result<Value> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let script = format!("{FOLDER}/{GROUP}/{kind}/actions/discovery.lua");
        run_lua(&read(&script), object)
    };
    for kind in ["SecurityGroupMembership", "SecurityGroupMembershipSet"] {
        let before = object(kind, &[("Ready", "True")], "Joined");
        let offered = discovered(&before)?;
        assert_eq!(offered["suspend"]["disabled"], false);
        assert_eq!(offered["resume"]["disabled"], true);
        let suspended = run_lua(&action(kind, "suspend"), &before)?;
        assert_eq!(suspended["spec"], json!({"suspend": true}));
        let offered = discovered(&suspended)?;
        assert_eq!(offered["suspend"]["disabled"], true);
        assert_eq!(offered["resume"]["disabled"], false);
        let resumed = run_lua(&action(kind, "resume"), &suspended)?;
        assert_eq!(resumed["spec"], json!({"suspend": false}));
    }
    for kind in KINDS {
        let before = object(kind, &[("Ready", "True")], "Joined");
        assert_eq!(discovered(&before)?["reconcile-now"]["disabled"], false);
        let mut asked = run_lua(&action(kind, "reconcile-now"), &before)?;
        let metadata = asked["metadata"].as_object_mut().unwrap();
        let annotations = metadata.remove("annotations").unwrap();
        let annotation = security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
        let value = annotations[annotation].as_str().unwrap();
        assert!(value.parse::<Timestamp>().is_ok(), "{value}");
        assert_eq!(asked, before);
    }
    Ok(())
}

/// The test files of Argo CD's own repository, in its format.
#[test]
fn files_of_resource_customizations_pass_their_own_tests() -> Result<()> {
    let yaml = |path: String| -> Result<Value> { Ok(serde_saphyr::from_str(&read(&path))?) };
    let mut number = 0;
    for kind in KINDS {
        let folder = format!("{FOLDER}/{GROUP}/{kind}");
        let tests = yaml(format!("{folder}/health_test.yaml"))?;
        for test in tests["tests"].as_array().unwrap() {
            let input = test["inputPath"].as_str().unwrap();
            let object = yaml(format!("{folder}/{input}"))?;
            assert_eq!(health(&object)?, test["healthStatus"], "{kind} {input}");
            number += 1;
        }
    }
    for kind in ["SecurityGroupMembership", "SecurityGroupMembershipSet"] {
        let folder = format!("{FOLDER}/{GROUP}/{kind}/actions");
        let tests = yaml(format!("{folder}/action_test.yaml"))?;
        for test in tests["discoveryTests"].as_array().unwrap() {
            let object = yaml(format!("{folder}/{}", test["inputPath"].as_str().unwrap()))?;
            let found = run_lua(&read(&format!("{folder}/discovery.lua")), &object)?;
            let expected = test["result"].as_array().unwrap();
            assert_eq!(found.as_object().unwrap().len(), expected.len());
            for action in expected {
                let name = action["name"].as_str().unwrap();
                assert_eq!(found[name]["disabled"], action["disabled"], "{name}");
            }
            number += 1;
        }
        for test in tests["actionTests"].as_array().unwrap() {
            let object = yaml(format!("{folder}/{}", test["inputPath"].as_str().unwrap()))?;
            let script = format!("{folder}/{}/action.lua", test["action"].as_str().unwrap());
            let expected = yaml(format!(
                "{folder}/{}",
                test["expectedOutputPath"].as_str().unwrap()
            ))?;
            assert_eq!(run_lua(&read(&script), &object)?, expected);
            number += 1;
        }
    }
    assert_eq!(number, 28);
    Ok(())
}

/// The `ConfigMap` has the texts of the files.
#[test]
fn config_map_has_the_scripts_of_the_files() -> Result<()> {
    let map: Value = serde_saphyr::from_str(&read("examples/gitops/argocd/argocd-cm.yaml"))?;
    let data = map["data"].as_object().unwrap();
    let mut scripts = 0;
    for kind in KINDS {
        let folder = format!("{FOLDER}/{GROUP}/{kind}");
        let health = &data[&format!("resource.customizations.health.{GROUP}_{kind}")];
        assert_eq!(*health, read(&format!("{folder}/health.lua")));
        let actions = data[&format!("resource.customizations.actions.{GROUP}_{kind}")].as_str();
        let actions: Value = serde_saphyr::from_str(actions.unwrap())?;
        assert_eq!(
            actions["discovery.lua"],
            read(&format!("{folder}/actions/discovery.lua"))
        );
        for definition in actions["definitions"].as_array().unwrap() {
            let name = definition["name"].as_str().unwrap();
            let file = format!("{folder}/actions/{name}/action.lua");
            assert_eq!(definition["action.lua"], read(&file));
            scripts += 1;
        }
        let folders = std::fs::read_dir(repository().join(&folder).join("actions"))?;
        let folders = folders.filter(|entry| {
            let is_action = |path: std::path::PathBuf| path.join("action.lua").exists();
            entry.as_ref().is_ok_and(|entry| is_action(entry.path()))
        });
        let defined = actions["definitions"].as_array().unwrap().len();
        assert_eq!(folders.count(), defined, "{kind}");
    }
    assert_eq!((data.len(), scripts), (8, 8));
    Ok(())
}

/// As the page says: the keys are added, and those of others stay.
#[tokio::test]
async fn config_map_is_added_to_an_existing_one() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let kubectl = |arguments: &'static str| {
        let mut command = tokio::process::Command::from(plane.kubectl());
        command.args(arguments.split(' ')).current_dir(repository());
        async move {
            let output = command.output().await?;
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() {
                Ok(said)
            } else {
                Err(TestError::new(said))
            }
        }
    };
    // Another test of this binary may make it as well.
    drop(kubectl("create namespace argocd").await);
    kubectl("create configmap argocd-cm -n argocd --from-literal=url=https://argocd.example.com")
        .await?;
    kubectl("apply --server-side --field-manager=security-group-operator-health -f examples/gitops/argocd/argocd-cm.yaml").await?;
    let map = kubectl("get configmap argocd-cm -n argocd -o json").await?;
    let map: Value = serde_json::from_str(&map)?;
    assert_eq!(map["data"].as_object().unwrap().len(), 9);
    assert_eq!(map["data"]["url"], "https://argocd.example.com");
    Ok(())
}

/// No `ignoreDifferences`: what is applied once more changes nothing, and a dry run finds no difference, by server-side and by
/// client-side apply.
#[tokio::test]
async fn examples_that_are_applied_twice_change_nothing() -> Result<()> {
    // One of its own: other tests of this binary have objects of the same names.
    let plane = &ControlPlane::start().await?;
    crate::support::operator::install(plane, &repository().join("deploy")).await?;
    let run = |arguments: &str| {
        let mut command = tokio::process::Command::from(plane.kubectl());
        command.args(arguments.split(' ')).current_dir(repository());
        async move {
            let output = command.output().await?;
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.success() {
                Ok(said)
            } else {
                Err(TestError::new(said))
            }
        }
    };
    for (way, files) in [
        (
            "--server-side ",
            "-f examples/kind/simulator.yaml -f examples/kind/memberships.yaml",
        ),
        ("", "-f examples/simulator"),
        ("--server-side --force-conflicts ", "-f examples/simulator"),
    ] {
        run(&format!("apply {way}{files}")).await?;
        let versions = "get sgm,sgmset,clustercloudaccounts -A -o jsonpath={.items[*].metadata.resourceVersion}";
        // The API server stores the default of `status` with the second write, whoever makes it.
        run(&format!("apply {way}{files}")).await?;
        let first = run(versions).await?;
        run(&format!("apply {way}{files}")).await?;
        assert_eq!(run(versions).await?, first, "{way}{files}");
        // Exit code 1: there are differences.
        let diff = run(&format!("diff {way}{files}")).await;
        assert_eq!(
            diff.unwrap_or_else(|error| error.to_string()),
            "",
            "{way}{files}"
        );
    }
    Ok(())
}
