//! Every code of the vendor's pages of Join and Leave can be produced, by state or by a fault, with its HTTP status.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::error_codes::{COMMON, DESCRIBE, JOIN, LEAVE, MODIFY};
use crate::world::{KEY, World};

const DENIED: (&str, &str) = ("denied", "testsecret");

const INVENTORY: &str = "
accessKeys:
- {id: denied, secret: testsecret, deny: [{action: 'ecs:JoinSecurityGroup', resource: 'acs:ecs:*:*:securitygroup/sg-web'}]}
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-full, quota: 0}
- {id: sg-rules, rules: 1001}
- {id: sg-other, vpcId: vpc-other}
- {id: sg-classic, classic: true}
- {id: sg-managed, serviceManaged: true}
- {id: sg-enterprise, type: enterprise}
- {id: sg-fullenterprise, type: enterprise, quota: 0}
- {id: sg-theirs, account: '2', shared: true}
- {id: sg-hidden, account: '2'}
- {id: sg-beijing, region: cn-beijing}
- {id: sg-1}
- {id: sg-2}
- {id: sg-3}
- {id: sg-4}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-two, securityGroupIds: [sg-base, sg-1]}
- {id: i-none}
- {id: i-five, securityGroupIds: [sg-base, sg-1, sg-2, sg-3, sg-4]}
- {id: i-starting, status: Starting, securityGroupIds: [sg-base]}
- {id: i-stopping, status: Stopping, securityGroupIds: [sg-base]}
- {id: i-stopped, status: Stopped, securityGroupIds: [sg-base]}
- {id: i-pending, status: Pending, securityGroupIds: [sg-base]}
- {id: i-locked, locks: [security], securityGroupIds: [sg-base]}
- {id: i-unpaid, locks: [financial], securityGroupIds: [sg-base]}
- {id: i-oldtype, enterpriseGroups: false}
- {id: i-theirs, account: '2', shared: true}
- {id: i-hidden, account: '2'}
- {id: i-noswitch, vSwitchId: vsw-gone, securityGroupIds: [sg-base, sg-1]}
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}
- {id: eni-two, securityGroupIds: [sg-base, sg-1]}
- {id: eni-five, securityGroupIds: [sg-base, sg-1, sg-2, sg-3, sg-4]}
- {id: eni-creating, status: Creating}
- {id: eni-attaching, status: Attaching, securityGroupIds: [sg-base]}
- {id: eni-pending, instanceId: i-pending}
- {id: eni-managed, serviceManaged: true, securityGroupIds: [sg-base]}
";

fn current() -> World {
    World::of(INVENTORY)
}

fn original() -> World {
    let world = current();
    world.change(json!({"set": {"codes": "original"}}));
    world
}

/// `join i-web sg-web` and the like; HTTP status and code.
fn outcome(world: &World, key: (&str, &str), sentence: &str) -> (u16, String) {
    let (status, body) = say(world, key, sentence);
    (status, body["Code"].as_str().unwrap_or("OK").to_owned())
}

fn say(world: &World, key: (&str, &str), sentence: &str) -> (u16, Value) {
    let mut words = sentence.split(' ');
    let action = match words.next() {
        Some("join") => "JoinSecurityGroup",
        Some("leave") => "LeaveSecurityGroup",
        other => panic!("{other:?}"),
    };
    let mut parameters = Vec::new();
    for word in words {
        parameters.push(match word.split_once('=') {
            Some(pair) => pair,
            None if word.starts_with("sg-") => ("SecurityGroupId", word),
            None if word.starts_with("eni-") => ("NetworkInterfaceId", word),
            None => ("InstanceId", word),
        });
    }
    let interface = parameters
        .iter()
        .any(|(name, _)| *name == "NetworkInterfaceId");
    if interface && !sentence.contains("RegionId") {
        parameters.push(("RegionId", "cn-hangzhou"));
    }
    world.call_as(key, action, &parameters)
}

/// What is said to a cloud as in [`INVENTORY`], and what it answers.
const ANSWERS: &[(&str, u16, &str)] = &[
    // Parameters.
    ("join sg-web", 400, "MissingParameter"),
    ("join i-web", 400, "MissingParameter"),
    ("join InstanceId= sg-web", 400, "MissingParameter"),
    (
        "join eni-web sg-web RegionId=",
        400,
        "MissingParameter.RegionId",
    ),
    (
        "leave eni-web sg-web RegionId=",
        400,
        "MissingParameter.RegionId",
    ),
    ("join web sg-web", 400, "InvalidInstanceId.Malformed"),
    ("leave i-web! sg-web", 400, "InvalidInstanceId.Malformed"),
    ("join eni-web! sg-web", 403, "InvalidParam.Malformed"),
    ("join i-web sg-web!", 403, "InvalidParam.Malformed"),
    ("leave i-web sg-web!", 403, "InvalidParam.Malformed"),
    (
        "join i-web eni-web sg-web",
        403,
        "InvalidParam.EniIdAndInstanceId.Conflict",
    ),
    (
        "leave i-web eni-web sg-web",
        403,
        "InvalidParam.EniIdAndInstanceId.Conflict",
    ),
    // Existence and owner.
    (
        "join i-web sg-nowhere",
        404,
        "InvalidSecurityGroupId.NotFound",
    ),
    (
        "join i-web sg-hidden",
        404,
        "InvalidSecurityGroupId.NotFound",
    ),
    (
        "leave i-web sg-nowhere",
        404,
        "InvalidSecurityGroupId.NotFound",
    ),
    ("join i-nowhere sg-web", 404, "InvalidInstanceId.NotFound"),
    ("join i-hidden sg-web", 404, "InvalidInstanceId.NotFound"),
    ("join i-web sg-beijing", 404, "InvalidInstanceId.NotFound"),
    ("leave i-nowhere sg-web", 404, "InvalidInstanceId.NotFound"),
    ("join eni-nowhere sg-web", 404, "InvalidEniId.NotFound"),
    ("leave eni-nowhere sg-web", 404, "InvalidEniId.NotFound"),
    (
        "join eni-web sg-web RegionId=cn-nowhere",
        404,
        "InvalidRegionId.NotFound",
    ),
    ("join i-theirs sg-web", 400, "NotBelongUser"),
    ("join i-web sg-theirs", 400, "NotBelongUser"),
    (
        "join eni-web sg-theirs",
        400,
        "InvalidOperation.EniAndGroupNotBelongSameUser",
    ),
    // Managed, type of interface.
    (
        "join i-web sg-managed",
        403,
        "InvalidOperation.ResourceManagedByCloudProduct",
    ),
    (
        "leave i-web sg-managed",
        403,
        "InvalidOperation.ResourceManagedByCloudProduct",
    ),
    (
        "join eni-managed sg-web",
        403,
        "InvalidOperation.EniServiceManaged",
    ),
    (
        "leave eni-managed sg-base",
        403,
        "InvalidOperation.EniServiceManaged",
    ),
    (
        "join eni-primaryweb sg-web",
        403,
        "InvalidOperation.InvalidEniType",
    ),
    (
        "leave eni-primaryweb sg-base",
        403,
        "InvalidOperation.InvalidEniType",
    ),
    // State and lock.
    ("join i-starting sg-web", 403, "IncorrectInstanceStatus"),
    ("join i-stopping sg-web", 403, "IncorrectInstanceStatus"),
    ("leave i-starting sg-base", 403, "IncorrectInstanceStatus"),
    ("leave i-pending sg-base", 403, "IncorrectInstanceStatus"),
    (
        "join i-pending sg-web",
        403,
        "Forbidden.InstanceIsBeingCreated",
    ),
    (
        "join eni-creating sg-web",
        400,
        "InvalidStatus.EniOrInstanceIsBeingCreated",
    ),
    (
        "join eni-pending sg-web",
        400,
        "InvalidStatus.EniOrInstanceIsBeingCreated",
    ),
    (
        "join eni-attaching sg-web",
        400,
        "InvalidOperation.InvalidEniState",
    ),
    (
        "leave eni-attaching sg-base",
        400,
        "InvalidOperation.InvalidEniState",
    ),
    ("join i-locked sg-web", 403, "InstanceLockedForSecurity"),
    ("leave i-locked sg-base", 403, "InstanceLockedForSecurity"),
    // Network and type of group.
    ("join i-web sg-other", 400, "InvalidInstanceId.Mismatch"),
    ("join i-web sg-classic", 400, "InvalidInstanceId.Mismatch"),
    ("join eni-web sg-other", 403, "InvalidOperation.VpcMismatch"),
    (
        "join i-oldtype sg-enterprise",
        400,
        "InvalidOperation.NotSupportEnterpriseGroup",
    ),
    (
        "join i-web sg-enterprise",
        400,
        "InvalidOperation.MultiGroupType",
    ),
    // Member or not.
    ("join i-web sg-base", 403, "InvalidInstanceId.AlreadyExists"),
    (
        "leave i-web sg-web",
        400,
        "InvalidSecurityGroupAssociation.NotFound",
    ),
    (
        "leave eni-web sg-web",
        400,
        "InvalidSecurityGroupAssociation.NotFound",
    ),
    ("leave i-web sg-base", 403, "InstanceLastSecurityGroup"),
    (
        "leave eni-web sg-base",
        403,
        "InvalidOperation.AtLeastInOneGroup",
    ),
    // Quotas.
    (
        "join i-five sg-web",
        400,
        "InstanceSecurityGroupLimitExceeded",
    ),
    (
        "join eni-five sg-web",
        403,
        "InstanceSecurityGroupLimitExceeded",
    ),
    (
        "join i-web sg-full",
        403,
        "SecurityGroupInstanceLimitExceeded",
    ),
    (
        "join i-none sg-fullenterprise",
        403,
        "InvalidOperation.NetworkInterfaceCountExceeded",
    ),
    ("join i-web sg-rules", 403, "AclLimitExceed"),
    // And what goes well.
    ("join i-web sg-web", 200, "OK"),
    ("join i-stopped sg-web", 200, "OK"),
    ("join i-unpaid sg-web", 200, "OK"),
    ("join eni-web sg-web", 200, "OK"),
    ("join i-none sg-enterprise", 200, "OK"),
    ("leave i-two sg-1", 200, "OK"),
    ("leave eni-two sg-1", 200, "OK"),
];

/// The same with the codes of the first edition.
const ORIGINAL: &[(&str, u16, &str)] = &[
    ("join i-locked sg-web", 403, "OperationDenied"),
    ("join i-pending sg-web", 403, "IncorrectInstanceStatus"),
    ("leave i-web sg-web", 403, "InstanceNotInSecurityGroup"),
];

#[test]
fn joining_a_member_can_be_a_success() {
    let world = current();
    world.change(json!({"set": {"joinMember": "Success"}}));
    assert_eq!(
        outcome(&world, KEY, "join i-web sg-base"),
        (200, "OK".to_owned())
    );
}

#[test]
fn ram_denial_carries_its_detail() {
    let (status, body) = say(&current(), DENIED, "join i-web sg-web");
    assert_eq!(
        (status, body["Code"].as_str()),
        (403, Some("Forbidden.RAM"))
    );
    assert_eq!(
        body["AccessDeniedDetail"]["AuthAction"],
        "ecs:JoinSecurityGroup"
    );
    assert_eq!(
        outcome(&current(), DENIED, "join i-web sg-1"),
        (200, "OK".to_owned())
    );
}

#[test]
fn concurrent_changes_of_one_target_conflict() {
    let mut world = current();
    world.change(json!({"set": {"latency": "30ms"}}));
    assert_eq!(outcome(&world, KEY, "join i-web sg-web").0, 200);
    assert_eq!(
        outcome(&world, KEY, "join i-web sg-1"),
        (409, "InvalidOperation.Conflict".to_owned())
    );
    assert_eq!(
        outcome(&world, KEY, "leave i-web sg-base"),
        (409, "InvalidOperation.Conflict".to_owned())
    );
    assert_eq!(
        outcome(&world, KEY, "join i-two sg-web").0,
        200,
        "another target"
    );
    world.now += SignedDuration::from_millis(30);
    assert_eq!(outcome(&world, KEY, "join i-web sg-1").0, 200);
}

#[test]
fn faults_produce_codes_that_no_state_can() {
    for (status, code) in [(500, "InternalError"), (504, "RequestTimeout")] {
        let world = current();
        world.fault(json!({"action": "LeaveSecurityGroup", "count": 1, "effect": true, "fault": {"error": {"code": code}}}));
        assert_eq!(
            outcome(&world, KEY, "leave i-two sg-1"),
            (status, code.to_owned())
        );
        assert_eq!(
            outcome(&world, KEY, "leave i-two sg-1").1,
            "InvalidSecurityGroupAssociation.NotFound",
            "the effect was there"
        );
    }
}

/// A hostile cloud is one line: the code alone, and the status is one of the vendor's.
#[test]
fn every_code_can_be_injected_by_its_name() {
    for (_, code, ..) in [JOIN, LEAVE, DESCRIBE, MODIFY, COMMON].concat() {
        let world = current();
        world.fault(json!({"fault": {"error": {"code": code}}}));
        let (answered, body) = say(&world, KEY, "join i-web sg-web");
        assert_eq!(body["Code"], code);
        let rows = [JOIN, LEAVE, DESCRIBE, MODIFY, COMMON].concat();
        let documented = rows.iter().any(|row| (row.0, row.1) == (answered, code));
        assert!(documented, "{answered} {code}");
        assert!(!body["Message"].as_str().unwrap().is_empty(), "{body}");
    }
    let world = current();
    world.fault(json!({"fault": {"error": {"code": "Made.Up"}}}));
    assert_eq!(
        outcome(&world, KEY, "join i-web sg-web"),
        (500, "Made.Up".to_owned())
    );
}

/// The whole of both pages, and nothing of it by chance: each code has its status and the vendor's message.
#[test]
fn every_code_of_both_pages_has_a_cause_and_the_vendors_message() {
    let mut answers = Vec::new();
    let mut check = |world: &World, sentence: &str, status: u16, code: &str| {
        let (answered, body) = say(world, KEY, sentence);
        let said = body["Code"].as_str().unwrap_or("OK");
        assert_eq!((answered, said), (status, code), "{sentence}");
        answers.push((answered, body));
    };
    for (sentence, status, code) in ANSWERS {
        check(&current(), sentence, *status, code);
    }
    for (sentence, status, code) in ORIGINAL {
        check(&original(), sentence, *status, code);
    }
    let world = current();
    world.change(json!({"deleteVSwitch": {"id": "vsw-gone"}}));
    let code = "InvalidVSwitchId.NotFound";
    check(&world, "leave i-noswitch sg-1", 404, code);
    world.change(json!({"set": {"latency": "30ms"}}));
    check(&world, "join i-web sg-web", 200, "OK");
    check(&world, "join i-web sg-1", 409, "InvalidOperation.Conflict");
    for (status, code) in [(500, "InternalError"), (504, "RequestTimeout")] {
        world.fault(json!({"count": 1, "fault": {"error": {"code": code}}}));
        check(&world, "leave i-two sg-1", status, code);
    }
    for (status, code, _, message) in JOIN.iter().chain(LEAVE) {
        let said: BTreeSet<&str> = answers
            .iter()
            .filter(|(answered, body)| answered == status && body["Code"] == *code)
            .map(|(_, body)| body["Message"].as_str().unwrap())
            .collect();
        assert!(
            said.iter().any(|said| is_filled_in(message, said)),
            "{status} {code}: {said:?}"
        );
    }
}

/// Whether a text is the vendor's message with something for its `%s`; anything for a message that is empty.
fn is_filled_in(message: &str, text: &str) -> bool {
    match message.split_once("%s") {
        _ if message.is_empty() => !text.is_empty(),
        None => text == message,
        Some((start, end)) => {
            text.len() > start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

/// One edge with everything wrong at once, put right step by step: the order of `docs/simulator.md`.
#[test]
fn first_failing_check_in_documented_order_answers() {
    let mut world = current();
    world.change(
        json!({"addKey": {"id": "walker", "secret": "s", "deny": [{"action": "ecs:Join*"}]}}),
    );
    let key = ("walker", "s");
    let told = |world: &World, sentence: &str, code: &str| {
        assert_eq!(outcome(world, key, sentence).1, code, "{sentence}");
    };
    let edge = "join i-worst sg-worst";
    told(
        &world,
        "join i-worst! sg-worst",
        "InvalidInstanceId.Malformed",
    );
    told(&world, edge, "Forbidden.RAM");
    world.change(json!({"allow": {"id": "walker"}}));
    told(&world, edge, "InvalidSecurityGroupId.NotFound");
    let worst = json!({
        "id": "sg-worst", "account": "2", "shared": true, "serviceManaged": true, "vpcId": "vpc-other",
        "type": "enterprise", "quota": 0, "rules": 1001,
    });
    world.change(json!({"createGroup": worst}));
    told(&world, edge, "InvalidInstanceId.NotFound");
    let instance = json!({
        "id": "i-worst", "status": "Pending", "locks": ["security"], "enterpriseGroups": false, "quota": 1,
        "securityGroupIds": ["sg-base"],
    });
    world.change(json!({"createInstance": instance}));
    told(&world, edge, "NotBelongUser");
    world.becomes("createGroup", &worst, json!({"account": null}));
    told(
        &world,
        edge,
        "InvalidOperation.ResourceManagedByCloudProduct",
    );
    world.change(json!({"setManaged": {"id": "sg-worst", "managed": false}}));
    told(&world, edge, "Forbidden.InstanceIsBeingCreated");
    world.change(json!({"setStatus": {"id": "i-worst", "status": "Starting"}}));
    told(&world, edge, "InstanceLockedForSecurity");
    world.change(json!({"unlock": {"id": "i-worst"}}));
    told(&world, edge, "IncorrectInstanceStatus");
    world.change(json!({"setStatus": {"id": "i-worst", "status": "Running"}}));
    world.change(json!({"set": {"latency": "30ms"}}));
    world.change(json!({"setQuota": {"id": "i-worst"}}));
    told(&world, "join i-worst sg-1", "OK");
    told(&world, edge, "InvalidOperation.Conflict");
    world.now += SignedDuration::from_millis(30);
    told(&world, edge, "InvalidInstanceId.Mismatch");
    let in_our_vpc = json!({"account": null, "serviceManaged": false, "vpcId": null});
    let worst = world.becomes("createGroup", &worst, in_our_vpc);
    told(&world, edge, "InvalidOperation.NotSupportEnterpriseGroup");
    let well = json!({"status": "Running", "locks": [], "enterpriseGroups": true});
    world.becomes("createInstance", &instance, well);
    told(&world, edge, "InvalidOperation.MultiGroupType");
    world.becomes("createGroup", &worst, json!({"type": "normal"}));
    let by_itself = json!({"target": "i-worst", "securityGroupId": "sg-worst"});
    world.change(json!({"join": by_itself}));
    told(&world, edge, "InvalidInstanceId.AlreadyExists");
    world.change(json!({"leave": by_itself}));
    told(&world, edge, "InstanceSecurityGroupLimitExceeded");
    world.change(json!({"setQuota": {"id": "i-worst"}}));
    told(&world, edge, "SecurityGroupInstanceLimitExceeded");
    world.change(json!({"setQuota": {"id": "sg-worst"}}));
    told(&world, edge, "AclLimitExceed");
    world.change(json!({"setRules": {"id": "sg-worst", "rules": 1000}}));
    told(&world, edge, "OK");

    // Leave, where it has reasons of its own.
    told(&world, "leave i-locked sg-web", "InstanceLockedForSecurity");
    told(&world, "leave i-starting sg-web", "IncorrectInstanceStatus");
    told(&world, "leave i-worst sg-web", "InvalidOperation.Conflict");
    world.change(json!({"deleteVSwitch": {"id": "vsw-gone"}}));
    world.change(json!({"lock": {"id": "i-noswitch"}}));
    told(
        &world,
        "leave i-noswitch sg-web",
        "InvalidVSwitchId.NotFound",
    );
}

/// The caller need not say in which region it is: the denial holds all the same.
#[test]
fn regional_denial_applies_to_calls_without_region() {
    let world = current();
    let there = json!({"action": "ecs:*", "resource": "acs:ecs:cn-hangzhou:*:*"});
    world.change(json!({"deny": {"id": "testid", "deny": [there]}}));
    assert_eq!(outcome(&world, KEY, "join i-web sg-web").1, "Forbidden.RAM");
    assert_eq!(outcome(&world, KEY, "leave i-two sg-1").1, "Forbidden.RAM");
    let stopped = world.call("StopInstance", &[("InstanceId", "i-web")]);
    assert_eq!(stopped["Code"], "Forbidden.RAM");
}

#[test]
fn default_quotas_match_the_vendors_page() {
    let world = World::generated(1_001, 6, 0);
    let join = |instance: &str, group: &str| {
        let parameters = [("InstanceId", instance), ("SecurityGroupId", group)];
        let answer = world.call("JoinSecurityGroup", &parameters);
        answer["Code"].as_str().unwrap_or("OK").to_owned()
    };
    for number in 0..1_000 {
        assert_eq!(join(&format!("i-sim{number:06}"), "sg-sim0000"), "OK");
    }
    assert_eq!(
        join("i-sim001000", "sg-sim0000"),
        "SecurityGroupInstanceLimitExceeded"
    );
    for group in ["sg-sim0001", "sg-sim0002", "sg-sim0003"] {
        assert_eq!(join("i-sim000000", group), "OK");
    }
    assert_eq!(
        join("i-sim000000", "sg-sim0004"),
        "InstanceSecurityGroupLimitExceeded"
    );
}

#[test]
fn effect_may_come_later_than_the_answer() {
    let mut world = current();
    let fault =
        json!({"count": 1, "fault": {"error": {"code": "RequestTimeout"}}, "effectAfter": "12s"});
    let timeout = |world: &World| world.fault(fault.clone());
    let entries = |world: &World| world.simulator.journal().as_array().unwrap().len();
    timeout(&world);
    assert_eq!(outcome(&world, KEY, "join i-web sg-web").0, 504);
    assert_eq!(entries(&world), 0);
    world.now += Duration::from_secs(11);
    world.simulator.advance(world.now);
    assert_eq!(entries(&world), 0);
    let due = world.now + Duration::from_secs(1);
    world.now += Duration::from_secs(5);
    world.simulator.advance(world.now);
    let journal = world.simulator.journal();
    assert_eq!(journal[0]["at"], due.to_string(), "{journal}");
    assert_eq!(journal[0]["by"], KEY.0);
    // Its preconditions are those of the time at which it takes effect.
    timeout(&world);
    assert_eq!(outcome(&world, KEY, "leave i-web sg-web").0, 504);
    world.change(json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}}));
    world.now += Duration::from_secs(20);
    world.simulator.advance(world.now);
    assert_eq!(entries(&world), 2, "{}", world.simulator.journal());
}
