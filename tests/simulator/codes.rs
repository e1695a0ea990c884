//! Every code of the vendor's pages of Join and Leave can be produced, by state or by a fault, with its HTTP status.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

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

#[test]
fn every_failed_precondition_has_its_code_and_status() {
    for (sentence, status, code) in ANSWERS {
        assert_eq!(
            outcome(&current(), KEY, sentence),
            (*status, (*code).to_owned()),
            "{sentence}"
        );
    }
}

/// The same, when the first edition of the tables is spoken.
const ORIGINAL: &[(&str, u16, &str)] = &[
    ("join i-locked sg-web", 403, "OperationDenied"),
    ("join i-pending sg-web", 403, "IncorrectInstanceStatus"),
    ("leave i-web sg-web", 403, "InstanceNotInSecurityGroup"),
];

#[test]
fn first_edition_codes_can_be_selected() {
    for (sentence, status, code) in ORIGINAL {
        assert_eq!(
            outcome(&original(), KEY, sentence),
            (*status, (*code).to_owned()),
            "{sentence}"
        );
    }
}

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
fn leave_on_a_deleted_switch_has_its_code() {
    let world = current();
    world.change(json!({"deleteVSwitch": {"id": "vsw-gone"}}));
    assert_eq!(
        outcome(&world, KEY, "leave i-noswitch sg-1"),
        (404, "InvalidVSwitchId.NotFound".to_owned())
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

/// A hostile cloud is one line: the code alone, and the status is the vendor's.
#[test]
fn every_other_documented_code_can_be_injected() {
    for (status, code) in OTHERS.iter().chain(&[(500, "Made.Up")]) {
        let world = current();
        world.fault(json!({"fault": {"error": {"code": code}}}));
        let (answered, body) = say(&world, KEY, "join i-web sg-web");
        assert_eq!((answered, &body["Code"]), (*status, &json!(code)));
        assert!(!body["Message"].as_str().unwrap().is_empty(), "{body}");
    }
}

/// The tables of the Describe and Modify calls, of ECS as a whole and of the gateway, where they go beyond [`PAGES`].
#[rustfmt::skip]
const OTHERS: &[(u16, &str)] = &[
    (404, "InvalidInstanceChargeType.NotFound"), (404, "InvalidInternetChargeType.ValueNotSupported"),
    (404, "InvalidLockReason.NotFound"), (404, "InvalidFilterKey.NotFound"), (404, "InvalidNetworkType.NotFound"),
    (404, "InvalidStatus.NotFound"), (400, "InvalidTag.Mismatch"), (400, "InvalidTagCount"),
    (400, "InvalidHpcClusterId.NotFound"), (400, "InvalidHpcClusterId.Creating"), (404, "InvalidRegionId.NotFound"),
    (400, "NotSupported.PageNumberAndPageSize"), (400, "InValidParameter.NextToken"),
    (400, "InvalidParameter.SecurityGroupType"), (400, "InvalidSecurityGroupId.Malformed"),
    (400, "InvalidSecurityGroupName.Malformed"), (400, "DryRunOperation"),
    (400, "JoinedGroupLimitExceed"), (403, "InvalidOperation.EniCountExceeded"), (400, "InvalidNetworkType.NotSupported"),
    (400, "InvalidOperation.InvalidEcsState"), (403, "EnterpriseGroupLimited.MutliGroupType"),
    (403, "SecurityGroupInstanceLimitExceed"), (403, "InvalidOperation.InvalidRegion"),
    (404, "InvalidParameter.SecurityGroupIdRepeated"), (404, "InvalidSecurityGroupType.NotSupportClassic"),
    (404, "InvalidSecurityGroupVpc.NotBelongToOneVpc"), (400, "InvalidParams.EniId"), (400, "Forbidden.RegionId"),
    (403, "InvalidSecurityGroupId.NotVpc"), (404, "InvalidEcsId.NotFound"),
    (404, "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc"),
    (400, "Throttling"), (400, "Throttling.User"), (400, "Throttling.Api"), (409, "OperationConflict"),
    (403, "LastTokenProcessing"), (403, "IdempotentProcessing"), (400, "UnknownError"), (503, "ServiceUnavailable"),
    (503, "ServiceUnavailable.RegionMaintaining"), (400, "SignatureNonceUsed"), (400, "InvalidTimeStamp.Expired"),
    (400, "InvalidTimeStamp.Format"), (400, "IllegalTimestamp"), (400, "IncompleteSignature"), (400, "SignatureDoesNotMatch"),
    (400, "InvalidSignatureMethod"), (400, "UnsupportedHTTPMethod"), (404, "InvalidAccessKeyId.NotFound"),
    (400, "InvalidAccessKeyId.Inactive"), (403, "Forbidden.AccessKeyDisabled"), (400, "InvalidSecurityToken.Expired"),
    (400, "InvalidSecurityToken.Malformed"), (400, "InvalidSecurityToken.MismatchWithAccessKey"), (400, "MissingSecurityToken"),
    (400, "InvalidParameter"), (403, "Forbidden.RAM"), (403, "Forbidden.SubUser"), (403, "Forbidden.Unauthorized"),
    (403, "Forbidden"), (403, "InvalidAction"), (403, "NoPermission"), (403, "Forbidden.NotSupportRAM"),
    (403, "Forbidden.RiskControl"), (403, "RealNameAuthenticationError"), (400, "InsufficientBalance"),
    (400, "UnsupportedParameter"), (404, "InvalidApi.NotFound"), (404, "InvalidProduct.NotFound"),
    (404, "InvalidAction.NotFound"), (404, "InvalidVersion"), (400, "IdempotentParameterMismatch"),
    (403, "InvalidIdempotenceParameter.Mismatch"),
];

#[test]
fn every_documented_code_has_the_vendors_message() {
    let mut answers = Vec::new();
    for (sentence, ..) in ANSWERS {
        answers.push(say(&current(), KEY, sentence));
    }
    for (sentence, ..) in ORIGINAL {
        answers.push(say(&original(), KEY, sentence));
    }
    let world = current();
    world.change(json!({"set": {"latency": "30ms"}}));
    world.change(json!({"deleteVSwitch": {"id": "vsw-gone"}}));
    for sentence in [
        "leave i-noswitch sg-1",
        "join i-web sg-web",
        "join i-web sg-1",
    ] {
        answers.push(say(&world, KEY, sentence));
    }
    for code in ["InternalError", "RequestTimeout"] {
        let world = current();
        world.fault(json!({"fault": {"error": {"code": code}}}));
        answers.push(say(&world, KEY, "leave i-two sg-1"));
    }
    for (status, code, message) in PAGES {
        let said: BTreeSet<&str> = answers
            .iter()
            .filter(|(answered, body)| answered == status && body["Code"] == *code)
            .map(|(_, body)| body["Message"].as_str().unwrap())
            .collect();
        assert!(
            if message.is_empty() {
                said.iter().any(|said| !said.is_empty())
            } else {
                said.contains(message)
            },
            "{status} {code}: {said:?}"
        );
    }
}

/// The vendor's error tables of `JoinSecurityGroup` and `LeaveSecurityGroup`: first edition, English and Chinese. An empty message
/// is one that the vendor fills in.
#[rustfmt::skip]
const PAGES: &[(u16, &str, &str)] = &[
    (400, "InvalidInstanceId.Mismatch", "Specified instance and security group are not in the same VPC."),
    (400, "InstanceSecurityGroupLimitExceeded", "Exceeding the allowed amount of security groups that an instance can be in."),
    (403, "InstanceSecurityGroupLimitExceeded", ""),
    (400, "MissingParameter", "The input parameter \"InstanceId\" that is mandatory for processing this request is not supplied."),
    (400, "MissingParameter", "The input parameter \"SecurityGroupId\" that is mandatory for processing this request is not supplied."),
    (403, "IncorrectInstanceStatus", "The current status of the resource does not support this operation."),
    (403, "InstanceLockedForSecurity", "The specified operation is denied as your instance is locked for security reasons."),
    (403, "SecurityGroupInstanceLimitExceeded", "The maximum number of instances in a security group is exceeded."),
    (403, "InvalidInstanceId.AlreadyExists", "The specified instance already exists in the specified security group."),
    (403, "OperationDenied", "The specified operation is denied as your instance is locked for security reasons."),
    (404, "InvalidInstanceId.NotFound", "The specified InstanceId does not exist."),
    (404, "InvalidSecurityGroupId.NotFound", "The specified SecurityGroupId does not exist."),
    (400, "InvalidInstanceId.Malformed", "The specified parameter \"InstanceId\" is not valid."),
    (400, "InvalidOperation.NotSupportEnterpriseGroup", "The specified instance type doesn't support enterprise level security group."),
    (400, "InvalidOperation.MultiGroupType", "The specified instance can't join different types of security group."),
    (400, "InvalidOperation.InvalidEniState", ""),
    (400, "InvalidOperation.EniAndGroupNotBelongSameUser", ""),
    (400, "NotBelongUser", ""),
    (400, "MissingParameter.RegionId", "The specified RegionId should not be null."),
    (400, "InvalidStatus.EniOrInstanceIsBeingCreated", ""),
    (403, "AclLimitExceed", ""),
    (403, "InvalidOperation.NetworkInterfaceCountExceeded", "The maximum number of NetworkInterface in a enterprise level security group is exceeded."),
    (403, "InvalidOperation.ResourceManagedByCloudProduct", ""),
    (403, "InvalidOperation.InvalidEniType", ""),
    (403, "InvalidOperation.VpcMismatch", ""),
    (403, "InvalidOperation.EniServiceManaged", ""),
    (403, "InvalidParam.Malformed", ""),
    (403, "InvalidParam.EniIdAndInstanceId.Conflict", ""),
    (403, "Forbidden.InstanceIsBeingCreated", "The specified instance is being created."),
    (404, "InvalidEniId.NotFound", ""),
    (409, "InvalidOperation.Conflict", "Request was denied due to conflict with a previous request, please try again later."),
    (500, "InternalError", "The request processing has failed due to some unknown error."),
    (400, "InvalidSecurityGroupAssociation.NotFound", ""),
    (403, "InstanceLastSecurityGroup", "The specified security group is the last security group for the instance."),
    (403, "InvalidOperation.AtLeastInOneGroup", ""),
    (403, "InstanceNotInSecurityGroup", "The instance not in the group."),
    (404, "InvalidVSwitchId.NotFound", "The specified virtual switch vsw-gone does not exist."),
    (504, "RequestTimeout", "The request encounters an upstream server timeout."),
];

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
