//! What the Describe calls show of the simulated cloud: paging, limits, filters, lag, and intermediate states.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::world::World;

fn status(world: &World, instance: &str) -> String {
    let (rows, _) = world.rows("statuses", &[("InstanceId.1", instance)]);
    rows[0]["Status"].as_str().unwrap().to_owned()
}

#[test]
fn page_size_defaults_to_10_and_is_capped() {
    let world = World::generated(600, 150, 0);
    for (asked, rows) in [("", 10), ("1", 10), ("499", 499), ("5000", 500)] {
        let parameters: &[(&str, &str)] = if asked.is_empty() {
            &[]
        } else {
            &[("MaxResults", asked)]
        };
        assert_eq!(world.count("interfaces", parameters), rows, "{asked}");
    }
    for what in ["instances", "interfaces", "groups"] {
        for wrong in ["-1", "many"] {
            assert_eq!(
                world.rows(what, &[("MaxResults", wrong)]).1["Code"],
                "InvalidParameter"
            );
        }
    }
    for (asked, rows) in [("", 10), ("1", 10), ("50", 50), ("100", 100), ("5000", 100)] {
        let parameters: &[(&str, &str)] = if asked.is_empty() {
            &[]
        } else {
            &[("MaxResults", asked)]
        };
        assert_eq!(
            world.count("instances", parameters),
            rows,
            "MaxResults={asked}"
        );
        assert_eq!(
            world.count("groups", parameters),
            rows,
            "MaxResults={asked}"
        );
    }
}

#[test]
fn pages_cover_every_row_once_despite_changes() {
    let expected: Vec<String> = (0..35).map(|number| format!("i-sim{number:06}")).collect();
    // By everything, and by the index of a group's members.
    for filter in [None, Some(("SecurityGroupId", "sg-base"))] {
        let world = World::generated(35, 0, 0);
        let mut seen = Vec::new();
        let mut token = String::new();
        for page in 0.. {
            let mut parameters = vec![("MaxResults", "10"), ("NextToken", &token)];
            parameters.extend(filter);
            let (rows, answer) = world.rows("instances", &parameters);
            seen.extend(
                rows.iter()
                    .map(|row| row["InstanceId"].as_str().unwrap().to_owned()),
            );
            token = answer["NextToken"].as_str().unwrap().to_owned();
            if token.is_empty() {
                break;
            }
            if page == 0 {
                world.change(json!({"delete": {"id": "i-sim000009"}}));
            }
        }
        assert_eq!(seen, expected, "{filter:?}");
    }
}

#[test]
fn unknown_page_token_is_rejected() {
    let world = World::generated(1, 1, 0);
    assert_eq!(
        world.rows("groups", &[("NextToken", "AAAA")]).1["Code"],
        "InValidParameter.NextToken"
    );
    assert_eq!(
        world.rows("instances", &[("NextToken", "AAAA")]).1["Code"],
        "InvalidParameter"
    );
}

#[test]
fn up_to_100_ids_are_described_and_unknown_omitted() {
    let world = World::generated(200, 0, 0);
    let ids = |count: usize| {
        serde_json::to_string(
            &(0..count)
                .map(|n| format!("i-sim{:06}", n * 3))
                .collect::<Vec<_>>(),
        )
        .unwrap()
    };
    assert_eq!(
        world.count(
            "instances",
            &[("InstanceIds", &ids(100)), ("MaxResults", "100")]
        ),
        67
    );
    assert_eq!(
        world.count("instances", &[("InstanceIds", &ids(100))]),
        10,
        "ten rows a page here too"
    );
    assert_eq!(
        world.rows("instances", &[("InstanceIds", &ids(101))]).1["Code"],
        "InvalidParameter"
    );
    assert_eq!(
        world.rows("instances", &[("InstanceIds", "i-sim000000")]).1["Code"],
        "InvalidParameter"
    );
    assert_eq!(
        world
            .rows("instances", &[("InstanceIds", r#"["i-1","nonsense"]"#)])
            .1["Code"],
        "InvalidInstanceId.Malformed"
    );
}

#[test]
fn id_lists_are_limited_to_100_in_every_form() {
    let world = World::generated(1, 1, 1);
    for (what, name, id) in [
        ("statuses", "InstanceId", "i-sim000000"),
        ("interfaces", "NetworkInterfaceId", "eni-sim000000"),
    ] {
        let names: Vec<String> = (1..=101).map(|n| format!("{name}.{n}")).collect();
        let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), id)).collect();
        assert_eq!(world.count(what, &all[..100]), 1);
        assert_eq!(world.rows(what, &all).1["Code"], "InvalidParameter");
    }
    let ids = |count| serde_json::to_string(&vec!["sg-base"; count]).unwrap();
    assert_eq!(world.count("groups", &[("SecurityGroupIds", &ids(100))]), 1);
    assert_eq!(
        world.rows("groups", &[("SecurityGroupIds", &ids(101))]).1["Code"],
        "InvalidParameter"
    );
}

#[test]
fn numbered_pages_report_totals_and_have_own_limits() {
    let world = World::generated(120, 0, 0);
    let (rows, answer) = world.rows("statuses", &[("PageSize", "50"), ("PageNumber", "3")]);
    assert_eq!((rows.len(), &answer["TotalCount"]), (20, &json!(120)));
    assert_eq!(
        world.rows("statuses", &[("PageSize", "51")]).1["Code"],
        "InvalidParameter"
    );
    let (rows, answer) = world.rows("instances", &[("PageSize", "100"), ("PageNumber", "2")]);
    assert_eq!((rows.len(), &answer["TotalCount"]), (20, &json!(120)));
    for (what, most) in [
        ("statuses", 50),
        ("instances", 100),
        ("groups", 100),
        ("interfaces", 1_000),
    ] {
        let (most, more) = (most.to_string(), (most + 1).to_string());
        let (_, answer) = world.rows(what, &[("PageSize", &most)]);
        assert_eq!(answer["PageSize"].to_string(), most, "{what}");
        for wrong in [
            ("PageSize", more.as_str()),
            ("PageSize", "0"),
            ("PageNumber", "0"),
            ("PageNumber", "first"),
        ] {
            assert_eq!(
                world.rows(what, &[wrong]).1["Code"],
                "InvalidParameter",
                "{what} {wrong:?}"
            );
        }
    }
}

/// What a call does not look at it must not seem to have filtered by: these it looks at.
#[test]
fn every_documented_filter_selects_only_its_rows() {
    let world = World::generated(2, 2, 2);
    world.change(json!({"createInstance": {"id": "i-odd", "name": "web-7", "zoneId": "cn-hangzhou-b", "vSwitchId": "vsw-odd",
        "privateIp": "10.9.9.9", "locks": ["financial"], "classic": true, "imageId": "m-odd", "instanceType": "ecs.odd.xlarge"}}));
    world.change(json!({"createInterface": {"id": "eni-odd", "name": "odd interface", "vSwitchId": "vsw-odder", "privateIp": "11.9.9.9", "serviceManaged": true}}));
    world.change(
        json!({"createGroup": {"id": "sg-odd", "name": "odd one", "type": "enterprise", "serviceManaged": true, "vpcId": "vpc-odd"}}),
    );
    for (what, key, filter) in [
        ("instances", "InstanceId", ("InstanceName", "web-*")),
        ("instances", "InstanceId", ("ImageId", "m-odd")),
        (
            "instances",
            "InstanceId",
            ("InstanceType", "ecs.odd.xlarge"),
        ),
        ("instances", "InstanceId", ("InstanceTypeFamily", "ecs.odd")),
        ("instances", "InstanceId", ("ZoneId", "cn-hangzhou-b")),
        ("instances", "InstanceId", ("VSwitchId", "vsw-odd")),
        ("instances", "InstanceId", ("LockReason", "financial")),
        (
            "instances",
            "InstanceId",
            ("InstanceNetworkType", "classic"),
        ),
        (
            "instances",
            "InstanceId",
            ("PrivateIpAddresses", r#"["10.9.9.9"]"#),
        ),
        ("statuses", "InstanceId", ("ZoneId", "cn-hangzhou-b")),
        (
            "interfaces",
            "NetworkInterfaceId",
            ("VSwitchId", "vsw-odder"),
        ),
        (
            "interfaces",
            "NetworkInterfaceId",
            ("NetworkInterfaceName", "odd interface"),
        ),
        ("interfaces", "NetworkInterfaceId", ("Status", "Available")),
        (
            "interfaces",
            "NetworkInterfaceId",
            ("ServiceManaged", "true"),
        ),
        (
            "interfaces",
            "NetworkInterfaceId",
            ("PrimaryIpAddress", "11.9.9.9"),
        ),
        (
            "interfaces",
            "NetworkInterfaceId",
            ("PrivateIpAddress.1", "11.9.9.9"),
        ),
        (
            "groups",
            "SecurityGroupId",
            ("SecurityGroupName", "odd one"),
        ),
        (
            "groups",
            "SecurityGroupId",
            ("SecurityGroupType", "enterprise"),
        ),
        ("groups", "SecurityGroupId", ("ServiceManaged", "true")),
        ("groups", "SecurityGroupId", ("VpcId", "vpc-odd")),
    ] {
        let (rows, answer) = world.rows(what, &[filter]);
        let ids: Vec<&str> = rows.iter().map(|row| row[key].as_str().unwrap()).collect();
        assert!(
            matches!(ids[..], [id] if id.ends_with("-odd")),
            "{what} {filter:?}: {answer}"
        );
    }
}

#[test]
fn invalid_filter_values_have_their_codes() {
    let world = World::generated(1, 1, 1);
    for (what, parameters, code) in [
        (
            "instances",
            vec![("LockReason", "rust")],
            "InvalidLockReason.NotFound",
        ),
        (
            "instances",
            vec![("InstanceNetworkType", "5g")],
            "InvalidNetworkType.NotFound",
        ),
        (
            "instances",
            vec![("PrivateIpAddresses", "10.0.0.1")],
            "InvalidParameter",
        ),
        (
            "instances",
            vec![("Tag.1.Value", "web")],
            "InvalidTag.Mismatch",
        ),
        ("instances", vec![("Tag.21.Key", "team")], "InvalidTagCount"),
        ("interfaces", vec![("Type", "Member")], "InvalidParameter"),
        (
            "interfaces",
            vec![("ServiceManaged", "perhaps")],
            "InvalidParameter",
        ),
        (
            "groups",
            vec![("SecurityGroupType", "basic")],
            "InvalidParameter.SecurityGroupType",
        ),
        (
            "groups",
            vec![("SecurityGroupId", "sg_1")],
            "InvalidSecurityGroupId.Malformed",
        ),
        (
            "groups",
            vec![("SecurityGroupName", "x")],
            "InvalidSecurityGroupName.Malformed",
        ),
        (
            "groups",
            vec![("MaxResults", "10"), ("PageNumber", "1")],
            "NotSupported.PageNumberAndPageSize",
        ),
    ] {
        assert_eq!(
            world.rows(what, &parameters).1["Code"],
            code,
            "{parameters:?}"
        );
    }
    for (action, code) in [
        ("DescribeInstances", "MissingParameter"),
        ("DescribeInstanceStatus", "MissingParameter"),
        ("DescribeNetworkInterfaces", "MissingParameter"),
        ("DescribeSecurityGroups", "MissingParameter.RegionId"),
    ] {
        assert_eq!(world.call(action, &[])["Code"], code, "{action}");
    }
}

#[test]
fn group_counts_are_returned_on_request() {
    let world = World::generated(3, 0, 0);
    world.change(json!({"createGroup": {"id": "sg-big", "type": "enterprise"}}));
    let count = |group: &str| {
        let (rows, _) = world.rows(
            "groups",
            &[("SecurityGroupId", group), ("IsQueryEcsCount", "true")],
        );
        (
            rows[0]["EcsCount"].clone(),
            rows[0]["AvailableInstanceAmount"].clone(),
        )
    };
    assert_eq!(count("sg-base"), (json!(3), json!(1_000)));
    assert_eq!(count("sg-big"), (json!(0), json!(65_536)));
}

#[test]
fn group_filter_works_for_instances_and_interfaces() {
    let world = World::generated(3, 1, 2);
    world.change(json!({"join": {"target": "i-sim000001", "securityGroupId": "sg-sim0000"}}));
    world.change(json!({"join": {"target": "eni-sim000000", "securityGroupId": "sg-sim0000"}}));
    let (instances, _) = world.rows("instances", &[("SecurityGroupId", "sg-sim0000")]);
    assert_eq!(
        (instances.len(), &instances[0]["InstanceId"]),
        (1, &json!("i-sim000001"))
    );
    assert_eq!(
        instances[0]["SecurityGroupIds"]["SecurityGroupId"],
        json!(["sg-base", "sg-sim0000"])
    );
    let (interfaces, _) = world.rows("interfaces", &[("SecurityGroupId", "sg-sim0000")]);
    assert_eq!(
        (interfaces.len(), &interfaces[0]["NetworkInterfaceId"]),
        (1, &json!("eni-sim000000"))
    );
    let listed = instances[0]["NetworkInterfaces"]["NetworkInterface"]
        .as_array()
        .unwrap();
    let attached: Vec<(&Value, &Value)> = listed
        .iter()
        .map(|row| (&row["NetworkInterfaceId"], &row["Type"]))
        .collect();
    assert_eq!(
        attached,
        [
            (&json!("eni-primarysim000001"), &json!("Primary")),
            (&json!("eni-sim000001"), &json!("Secondary"))
        ]
    );
    let (primary, _) = world.rows(
        "interfaces",
        &[("InstanceId", "i-sim000001"), ("Type", "Primary")],
    );
    assert_eq!(
        primary[0]["SecurityGroupIds"]["SecurityGroupId"],
        json!(["sg-base", "sg-sim0000"])
    );
}

#[test]
fn vpc_status_and_tag_filters_combine() {
    let world = World::generated(2, 0, 0);
    world.change(json!({"createInstance": {"id": "i-tagged", "status": "Stopped", "vpcId": "vpc-two", "tags": {"team": "web", "env": "prod"}}}));
    for (parameters, count) in [
        (vec![("VpcId", "vpc-two")], 1),
        (vec![("VpcId", "vpc-sim"), ("Status", "Stopped")], 0),
        (vec![("Status", "Running")], 2),
        (
            vec![
                ("Tag.1.Key", "team"),
                ("Tag.1.Value", "web"),
                ("Tag.2.Key", "env"),
            ],
            1,
        ),
        (vec![("Tag.1.Key", "team"), ("Tag.1.Value", "db")], 0),
    ] {
        assert_eq!(
            world.count("instances", &parameters),
            count,
            "{parameters:?}"
        );
    }
    assert_eq!(
        world.rows("instances", &[("Status", "Sleeping")]).1["Code"],
        "InvalidStatus.NotFound"
    );
    assert_eq!(
        world.call("DescribeInstances", &[("RegionId", "cn-nowhere")])["Code"],
        "InvalidRegionId.NotFound"
    );
    assert_eq!(
        world.call("DescribeInstances", &[("RegionId", "cn-beijing")])["Instances"]["Instance"],
        json!([])
    );
}

#[test]
fn start_and_stop_pass_through_transitional_states() {
    let mut world = World::generated(1, 0, 0);
    let instance = [("InstanceId", "i-sim000000")];
    assert!(world.call("StopInstance", &instance)["Code"].is_null());
    assert_eq!(status(&world, "i-sim000000"), "Stopping");
    assert_eq!(
        world.call("StartInstance", &instance)["Code"],
        "IncorrectInstanceStatus"
    );
    world.now += SignedDuration::from_secs(10);
    assert_eq!(status(&world, "i-sim000000"), "Stopped");
    assert!(world.call("StartInstance", &instance)["Code"].is_null());
    assert_eq!(status(&world, "i-sim000000"), "Starting");
    world.now += SignedDuration::from_secs(10);
    assert_eq!(status(&world, "i-sim000000"), "Running");
}

#[test]
fn transition_time_can_be_set() {
    let mut world = World::generated(1, 0, 0);
    world.change(json!({"set": {"transition": "90s"}}));
    assert!(world.call("StopInstance", &[("InstanceId", "i-sim000000")])["Code"].is_null());
    world.now += SignedDuration::from_millis(89_999);
    assert_eq!(status(&world, "i-sim000000"), "Stopping");
    world.now += SignedDuration::from_millis(1);
    assert_eq!(status(&world, "i-sim000000"), "Stopped");
    world.change(json!({"set": {"transition": "0s"}}));
    assert!(world.call("StartInstance", &[("InstanceId", "i-sim000000")])["Code"].is_null());
    assert_eq!(status(&world, "i-sim000000"), "Running");
}

#[test]
fn start_instance_has_its_error_codes() {
    let world = World::generated(1, 0, 0);
    world.change(
        json!({"createInstance": {"id": "i-locked", "status": "Stopped", "locks": ["security"]}}),
    );
    for (parameters, code) in [
        (vec![], "MissingParameter"),
        (vec![("InstanceId", "web")], "InvalidInstanceId.Malformed"),
        (
            vec![("InstanceId", "i-nowhere")],
            "InvalidInstanceId.NotFound",
        ),
        (
            vec![("InstanceId", "i-locked")],
            "InstanceLockedForSecurity",
        ),
        (
            vec![("InstanceId", "i-sim000000")],
            "IncorrectInstanceStatus",
        ),
    ] {
        assert_eq!(world.call("StartInstance", &parameters)["Code"], code);
    }
}

#[test]
fn new_instance_is_pending_first() {
    let mut world = World::generated(0, 0, 0);
    world.change(json!({"createInstance": {"id": "i-new", "securityGroupIds": ["sg-base"]}}));
    assert_eq!(status(&world, "i-new"), "Pending");
    world.now += SignedDuration::from_secs(10);
    assert_eq!(status(&world, "i-new"), "Running");
}

#[test]
fn lag_delays_describe_but_not_changes() {
    let mut world = World::generated(1, 1, 0);
    world.change(json!({"set": {"lag": "3s"}}));
    let edge = [
        ("InstanceId", "i-sim000000"),
        ("SecurityGroupId", "sg-sim0000"),
    ];
    assert!(world.call("JoinSecurityGroup", &edge)["Code"].is_null());
    assert_eq!(
        world.count("instances", &[("SecurityGroupId", "sg-sim0000")]),
        0
    );
    assert_eq!(
        world.call("JoinSecurityGroup", &edge)["Code"],
        "InvalidInstanceId.AlreadyExists"
    );
    world.now += SignedDuration::from_secs(3);
    assert_eq!(
        world.count("instances", &[("SecurityGroupId", "sg-sim0000")]),
        1
    );
    world.change(json!({"delete": {"id": "i-sim000000"}}));
    assert_eq!(
        world.count("instances", &[]),
        1,
        "a released instance lingers"
    );
    assert_eq!(
        world.call("LeaveSecurityGroup", &edge)["Code"],
        "InvalidInstanceId.NotFound"
    );
    world.now += SignedDuration::from_secs(3);
    assert_eq!(world.count("instances", &[]), 0);
}

#[test]
fn deleting_interface_is_listed_until_deleted() {
    let mut world = World::generated(1, 1, 1);
    world.change(json!({"setStatus": {"id": "eni-sim000000", "status": "Deleting", "for": "5s"}}));
    let statuses = |world: &World| -> Vec<Value> {
        let (rows, _) = world.rows("interfaces", &[("NetworkInterfaceId.1", "eni-sim000000")]);
        rows.iter().map(|row| row["Status"].clone()).collect()
    };
    assert_eq!(statuses(&world), ["Deleting"]);
    // Another status ends that, and what has gone does not come back.
    world.change(json!({"setStatus": {"id": "eni-sim000000", "status": "Available"}}));
    world.now += SignedDuration::from_secs(5);
    assert_eq!(statuses(&world), ["Available"]);
    let deleting = json!({"setStatus": {"id": "eni-sim000000", "status": "Deleting", "for": "5s"}});
    world.change(deleting.clone());
    world.now += SignedDuration::from_secs(5);
    assert_eq!(statuses(&world), [""; 0]);
    assert!(world.try_change(deleting).is_err());
}

#[test]
fn deleting_a_group_removes_its_memberships() {
    let world = World::generated(1, 1, 0);
    world.change(json!({"join": {"target": "i-sim000000", "securityGroupId": "sg-sim0000"}}));
    world.change(json!({"delete": {"id": "sg-sim0000"}}));
    let state = world.simulator.snapshot(world.now);
    assert_eq!(
        state["instances"]["i-sim000000"]["securityGroupIds"],
        json!(["sg-base"])
    );
    assert!(state["securityGroups"]["sg-sim0000"].is_null());
}

#[test]
fn deleted_objects_cannot_be_changed() {
    let world = World::generated(1, 1, 1);
    for id in ["i-sim000000", "eni-sim000000", "sg-sim0000"] {
        world.change(json!({"delete": {"id": id}}));
    }
    for change in [
        json!({"delete": {"id": "i-sim000000"}}),
        json!({"setStatus": {"id": "i-sim000000", "status": "Stopped"}}),
        json!({"lock": {"id": "i-sim000000"}}),
        json!({"unlock": {"id": "i-sim000000"}}),
        json!({"setQuota": {"id": "sg-sim0000", "quota": 1}}),
        json!({"setManaged": {"id": "sg-sim0000", "managed": true}}),
        json!({"setManaged": {"id": "eni-sim000000", "managed": true}}),
        json!({"setRules": {"id": "sg-sim0000", "rules": 1}}),
    ] {
        let refused = world.try_change(change.clone());
        assert!(
            refused
                .as_ref()
                .is_err_and(|said| said.starts_with("id: there is no ")),
            "{change}: {refused:?}"
        );
    }
}

#[test]
fn other_account_sees_only_shared_instances() {
    let world = World::generated(2, 1, 0);
    world.change(json!({"addKey": {"id": "other", "secret": "s", "account": "2"}}));
    world.change(json!({"createInstance": {"id": "i-shared", "shared": true}}));
    let region = [("RegionId", "cn-hangzhou")];
    let (_, answer) = world.call_as(("other", "s"), "DescribeInstances", &region);
    assert_eq!(answer["Instances"]["Instance"].as_array().unwrap().len(), 1);
}
