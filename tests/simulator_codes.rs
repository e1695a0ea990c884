//! Every code of the vendor's pages of Join and Leave can be produced, by state or by a fault, with its HTTP status.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its world breaks"
)]

mod cloud;

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Response;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use security_group_operator::simulator::faults::Fault;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::simulator::{Delivery, Simulator};
use serde_json::{Value, json};

const KEY: (&str, &str) = ("testid", "testsecret");
const DENIED: (&str, &str) = ("denied", "testsecret");

const INVENTORY: &str = "
accessKeys:
- {id: testid, secret: testsecret}
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

struct World {
    simulator: Simulator,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let cloud = Inventory::from_yaml(INVENTORY).unwrap().build(now).unwrap();
        Self {
            simulator: Simulator::new(cloud, 1),
            now,
        }
    }

    fn change(&self, change: Value) -> &Self {
        self.simulator
            .change(serde_json::from_value(change).unwrap(), self.now)
            .unwrap();
        self
    }

    fn original() -> Self {
        let world = Self::new();
        world.change(json!({"set": {"codes": "original"}}));
        world
    }

    /// `join i-web sg-web` and the like; `-` leaves a parameter out.
    fn call(&self, key: (&str, &str), sentence: &str) -> (u16, String) {
        let (status, body) = self.answer(key, sentence);
        (status, body["Code"].as_str().unwrap_or("OK").to_owned())
    }

    fn answer(&self, key: (&str, &str), sentence: &str) -> (u16, Value) {
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
        if parameters
            .iter()
            .any(|(name, _)| *name == "NetworkInterfaceId")
            && !sentence.contains("RegionId")
        {
            parameters.push(("RegionId", "cn-hangzhou"));
        }
        let request = cloud::signed(key, action, &parameters, self.now);
        let response: Response<Bytes> = self.simulator.answer(&request, self.now).response;
        (
            response.status().as_u16(),
            serde_json::from_slice(response.body()).unwrap(),
        )
    }
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
fn every_precondition_answers_with_its_code_and_status() {
    for (sentence, status, code) in ANSWERS {
        assert_eq!(
            World::new().call(KEY, sentence),
            (*status, (*code).to_owned()),
            "{sentence}"
        );
    }
}

#[test]
fn the_first_edition_of_the_tables_can_be_spoken() {
    for (sentence, status, code) in [
        ("join i-locked sg-web", 403, "OperationDenied"),
        ("join i-pending sg-web", 403, "IncorrectInstanceStatus"),
        ("leave i-web sg-web", 403, "InstanceNotInSecurityGroup"),
    ] {
        assert_eq!(
            World::original().call(KEY, sentence),
            (status, code.to_owned()),
            "{sentence}"
        );
    }
}

#[test]
fn joining_a_member_can_be_a_success() {
    let world = World::new();
    world.change(json!({"set": {"joinMember": "Success"}}));
    assert_eq!(
        world.call(KEY, "join i-web sg-base"),
        (200, "OK".to_owned())
    );
}

#[test]
fn a_denial_by_ram_carries_its_detail() {
    let (status, body) = World::new().answer(DENIED, "join i-web sg-web");
    assert_eq!(
        (status, body["Code"].as_str()),
        (403, Some("Forbidden.RAM"))
    );
    assert_eq!(
        body["AccessDeniedDetail"]["AuthAction"],
        "ecs:JoinSecurityGroup"
    );
    assert_eq!(
        World::new().call(DENIED, "join i-web sg-1"),
        (200, "OK".to_owned())
    );
}

#[test]
fn leaving_from_a_deleted_switch_says_so() {
    let world = World::new();
    world.change(json!({"deleteVSwitch": {"id": "vsw-gone"}}));
    assert_eq!(
        world.call(KEY, "leave i-noswitch sg-1"),
        (404, "InvalidVSwitchId.NotFound".to_owned())
    );
}

#[test]
fn two_changes_of_one_target_within_the_latency_conflict() {
    let mut world = World::new();
    world.change(json!({"set": {"latency": "30ms"}}));
    assert_eq!(world.call(KEY, "join i-web sg-web").0, 200);
    assert_eq!(
        world.call(KEY, "join i-web sg-1"),
        (409, "InvalidOperation.Conflict".to_owned())
    );
    assert_eq!(
        world.call(KEY, "leave i-web sg-base"),
        (409, "InvalidOperation.Conflict".to_owned())
    );
    assert_eq!(
        world.call(KEY, "join i-two sg-web").0,
        200,
        "another target"
    );
    world.now += SignedDuration::from_millis(30);
    assert_eq!(world.call(KEY, "join i-web sg-1").0, 200);
}

#[test]
fn what_no_state_can_produce_a_fault_can() {
    for (code, status) in [
        ("InternalError", 500),
        ("RequestTimeout", 504),
        ("ServiceUnavailable", 503),
        ("Made.Up", 500),
    ] {
        let world = World::new();
        let fault = json!({"action": "LeaveSecurityGroup", "count": 1, "effect": true, "fault": {"error": {"code": code}}});
        world
            .simulator
            .add_fault(serde_json::from_value::<Fault>(fault).unwrap());
        assert_eq!(
            world.call(KEY, "leave i-two sg-1"),
            (status, code.to_owned())
        );
        assert_eq!(
            world.call(KEY, "leave i-two sg-1").1,
            "InvalidSecurityGroupAssociation.NotFound",
            "the effect was there"
        );
    }
}

#[test]
fn no_code_of_the_vendors_pages_is_left_out() {
    let mut produced: BTreeSet<(u16, String)> = ANSWERS
        .iter()
        .map(|(_, status, code)| (*status, (*code).to_owned()))
        .collect();
    // From the other tests of this file.
    for (status, code) in [
        (403, "OperationDenied"),
        (403, "InstanceNotInSecurityGroup"),
        (404, "InvalidVSwitchId.NotFound"),
        (409, "InvalidOperation.Conflict"),
        (500, "InternalError"),
        (504, "RequestTimeout"),
    ] {
        produced.insert((status, code.to_owned()));
    }
    for (status, code) in PAGES {
        assert!(
            produced.contains(&(*status, (*code).to_owned())),
            "{status} {code}"
        );
    }
}

/// The vendor's error tables of `JoinSecurityGroup` and `LeaveSecurityGroup`: first edition, English and Chinese.
const PAGES: &[(u16, &str)] = &[
    (400, "InvalidInstanceId.Mismatch"),
    (400, "InstanceSecurityGroupLimitExceeded"),
    (403, "InstanceSecurityGroupLimitExceeded"),
    (400, "MissingParameter"),
    (403, "IncorrectInstanceStatus"),
    (403, "InstanceLockedForSecurity"),
    (403, "SecurityGroupInstanceLimitExceeded"),
    (403, "InvalidInstanceId.AlreadyExists"),
    (403, "OperationDenied"),
    (404, "InvalidInstanceId.NotFound"),
    (404, "InvalidSecurityGroupId.NotFound"),
    (400, "InvalidInstanceId.Malformed"),
    (400, "InvalidOperation.NotSupportEnterpriseGroup"),
    (400, "InvalidOperation.MultiGroupType"),
    (400, "InvalidOperation.InvalidEniState"),
    (400, "InvalidOperation.EniAndGroupNotBelongSameUser"),
    (400, "NotBelongUser"),
    (400, "MissingParameter.RegionId"),
    (400, "InvalidStatus.EniOrInstanceIsBeingCreated"),
    (403, "AclLimitExceed"),
    (403, "InvalidOperation.NetworkInterfaceCountExceeded"),
    (403, "InvalidOperation.ResourceManagedByCloudProduct"),
    (403, "InvalidOperation.InvalidEniType"),
    (403, "InvalidOperation.VpcMismatch"),
    (403, "InvalidOperation.EniServiceManaged"),
    (403, "InvalidParam.Malformed"),
    (403, "InvalidParam.EniIdAndInstanceId.Conflict"),
    (403, "Forbidden.InstanceIsBeingCreated"),
    (404, "InvalidEniId.NotFound"),
    (409, "InvalidOperation.Conflict"),
    (500, "InternalError"),
    (400, "InvalidSecurityGroupAssociation.NotFound"),
    (403, "InstanceLastSecurityGroup"),
    (403, "InvalidOperation.AtLeastInOneGroup"),
    (403, "InstanceNotInSecurityGroup"),
    (404, "InvalidVSwitchId.NotFound"),
    (504, "RequestTimeout"),
];

#[test]
fn a_default_quota_is_that_of_the_vendors_page() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let cloud = security_group_operator::simulator::cloud::Cloud::generated(1_001, 6, 0).unwrap();
    let simulator = Simulator::new(cloud, 1);
    let join = |instance: &str, group: &str| {
        let parameters = [("InstanceId", instance), ("SecurityGroupId", group)];
        let request = cloud::signed(
            security_group_operator::simulator::DEFAULT_ACCESS_KEY,
            "JoinSecurityGroup",
            &parameters,
            now,
        );
        let answer = simulator.answer(&request, now);
        assert_eq!(answer.delivery, Delivery::Whole);
        answer.outcome
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
