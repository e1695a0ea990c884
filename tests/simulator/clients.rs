//! What clients of other people meet: the vendor's command line, its SDKs, Terraform's provider. They ask for more than the
//! operator does, and they believe every field.

use serde_json::{Value, json};

use crate::world::{KEY, World, answer, signed};

/// `x-ratelimit-user-api` and `x-acs-retry-after` of a throttled DescribeInstances.
fn throttled(world: &World) -> (Option<String>, Option<String>) {
    let region = [("RegionId", "cn-hangzhou")];
    let refused = world.send(&signed(KEY, "DescribeInstances", &region, world.now));
    assert_eq!(
        (refused.response.status().as_u16(), refused.outcome.as_str()),
        (400, "Throttling.User")
    );
    let header = |name: &str| {
        let value = refused.response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    (header("x-ratelimit-user-api"), header("x-acs-retry-after"))
}

/// A client that believes an invented limit calls as rarely as that says, long after the fault.
#[test]
fn throttle_fault_names_the_limit_that_is_configured_and_no_other() {
    let throttle = json!({"count": 1, "fault": {"throttle": {"retryAfter": "2s"}}});
    let world = World::generated(1, 1, 0);
    world.fault(throttle.clone());
    assert_eq!(throttled(&world), (None, Some("2000".to_owned())));
    world.change(json!({"set": {"limits": {"DescribeInstances": 300, "JoinSecurityGroup": 7}}}));
    world.fault(throttle);
    let reset = world.now.as_second() + 2;
    let named = format!("Limit:300,Remain:0,TimeLeft:2000,Reset:{reset}");
    assert_eq!(throttled(&world), (Some(named), Some("2000".to_owned())));
    world.fault(json!({"count": 1, "fault": {"throttle": {}}}));
    assert_eq!(throttled(&world), (None, None), "no time, no header");
}

#[test]
fn total_count_is_the_number_of_matches_unless_paged_by_token() {
    let world = World::generated(29, 28, 0);
    for (what, total) in [("instances", 29), ("interfaces", 29), ("groups", 29)] {
        let (rows, answer) = world.rows(what, &[]);
        assert_eq!(
            (rows.len(), &answer["TotalCount"]),
            (10, &json!(total)),
            "{what}"
        );
        assert!(!answer["NextToken"].as_str().unwrap().is_empty(), "{what}");
    }
    let (_, answer) = world.rows("instances", &[("SecurityGroupId", "sg-base")]);
    assert_eq!(answer["TotalCount"], 29);
    let (_, answer) = world.rows("groups", &[("SecurityGroupName", "sg-base")]);
    assert_eq!(answer["TotalCount"], 1);
    let (_, answer) = world.rows("instances", &[("MaxResults", "20")]);
    assert_eq!(answer["TotalCount"], 20, "the vendor calls it meaningless");
}

/// The actions whose page has `DryRun`, each with a call that passes.
const DRY_RUNS: &[(&str, &[(&str, &str)])] = &[
    ("DescribeInstances", &[("RegionId", "cn-hangzhou")]),
    ("DescribeSecurityGroups", &[("RegionId", "cn-hangzhou")]),
    ("DescribeDisks", &[("RegionId", "cn-hangzhou")]),
    ("StopInstance", &[("InstanceId", "i-sim000000")]),
    ("StartInstance", &[("InstanceId", "i-stopped")]),
];

#[test]
fn dry_run_checks_the_call_and_changes_nothing() {
    let world = World::generated(1, 1, 0);
    world.change(json!({"createInstance": {"id": "i-stopped", "status": "Stopped"}}));
    let before = world.simulator.snapshot(world.now);
    let with = |parameters: &[(&'static str, &'static str)], value| {
        [parameters, &[("DryRun", value)]].concat()
    };
    for (action, parameters) in DRY_RUNS {
        let (status, body) = world.call_as(KEY, action, &with(parameters, "true"));
        assert_eq!(
            (status, &body["Code"], &body["Message"]),
            (
                400,
                &json!("DryRunOperation"),
                &json!("Request validation has been passed with DryRun flag set.")
            ),
            "{action}"
        );
        assert!(body["Instances"].is_null(), "{body}");
        let wrong = world.call(action, &with(parameters, "perhaps"));
        assert_eq!(wrong["Code"], "InvalidParameter", "{action}");
        assert_eq!(world.simulator.snapshot(world.now), before, "{action}");
        assert_eq!(
            world.simulator.stats()["effects"][action],
            Value::Null,
            "{action}"
        );
    }
    let refused = world.call(
        "StartInstance",
        &with(&[("InstanceId", "i-sim000000")], "true"),
    );
    assert_eq!(refused["Code"], "IncorrectInstanceStatus");
    for (action, parameters) in DRY_RUNS {
        let (status, body) = world.call_as(KEY, action, &with(parameters, "false"));
        assert_eq!(status, 200, "{action}: {body}");
    }
    assert_ne!(world.simulator.snapshot(world.now), before);
}

#[test]
fn unknown_action_is_counted_by_its_name() {
    let world = World::generated(1, 1, 0);
    let long = "X".repeat(1_000);
    for action in [
        "RunInstances",
        "RunInstances",
        "",
        "Run\n\"Instances",
        &long,
    ] {
        let request = signed(KEY, action, &[], world.now);
        assert!(world.send(&request).outcome.contains("NotFound") || action.is_empty());
    }
    let calls = world.simulator.stats()["calls"].clone();
    assert_eq!(
        calls,
        json!({
            "RunInstances": {"InvalidApi.NotFound": 2},
            "Unknown": {"MissingParameter": 1},
            "Run__Instances": {"InvalidApi.NotFound": 1},
            "X".repeat(64): {"InvalidApi.NotFound": 1},
        })
    );
    for number in 0..1_000 {
        world.send(&signed(KEY, &format!("Do{number}"), &[], world.now));
    }
    let calls = world.simulator.stats()["calls"].clone();
    assert_eq!(calls.as_object().unwrap().len(), 101);
    assert!(calls["Unknown"]["InvalidApi.NotFound"].as_u64().unwrap() > 900);
}

#[test]
fn interface_row_has_every_field_of_the_vendors_page() {
    let world = World::generated(1, 1, 2);
    world.change(json!({"createInterface": {"id": "eni-free", "name": "free one"}}));
    let row = |id: &str| {
        let (rows, _) = world.rows("interfaces", &[("NetworkInterfaceId.1", id)]);
        rows[0].clone()
    };
    for (id, attachment) in [
        ("eni-primarysim000000", Some(0)),
        ("eni-sim000000", Some(1)),
        ("eni-sim000001", Some(2)),
        ("eni-free", None),
    ] {
        let row = row(id);
        for (field, value) in [
            ("Ipv4PrefixSets", json!({"Ipv4PrefixSet": []})),
            ("Ipv6PrefixSets", json!({"Ipv6PrefixSet": []})),
            ("Ipv6Sets", json!({"Ipv6Set": []})),
            ("Description", json!("")),
            ("DeleteOnRelease", json!(true)),
            ("NetworkInterfaceTrafficMode", json!("Standard")),
            ("QueueNumber", json!(1)),
            ("ResourceGroupId", json!("")),
            ("SourceDestCheck", json!(false)),
        ] {
            assert_eq!(row[field], value, "{id} {field}");
        }
        let attached = attachment.map_or(json!({}), |device| {
            json!({"InstanceId": "i-sim000000", "DeviceIndex": device, "NetworkCardIndex": 0, "TrunkNetworkInterfaceId": ""})
        });
        assert_eq!(row["Attachment"], attached, "{id}");
    }
    assert_eq!(row("eni-free")["NetworkInterfaceName"], "free one");
    world.change(json!({"setManaged": {"id": "eni-sim000000", "managed": true}}));
    assert_eq!(row("eni-sim000000")["Attachment"], json!({}), "hidden");
}

/// A world with one of everything that the reads below show.
fn varied() -> World {
    World::of(
        "
securityGroups: [{id: sg-base, tags: {team: web}, rules: 3}, {id: sg-web}]
instances:
- {id: i-one, securityGroupIds: [sg-base], tags: {team: web, env: prod}}
- {id: i-two, securityGroupIds: [sg-base], zoneId: cn-hangzhou-b, tags: {team: db}}
- {id: i-hidden, account: '2'}
- {id: i-far, region: cn-beijing}
networkInterfaces:
- {id: eni-one, instanceId: i-one, securityGroupIds: [sg-base], tags: {team: web}}
",
    )
}

const REGION: (&str, &str) = ("RegionId", "cn-hangzhou");

fn without_request_id(mut answer: Value) -> Value {
    assert!(answer["RequestId"].take().is_string(), "{answer}");
    answer.as_object_mut().unwrap().remove("RequestId");
    answer
}

#[test]
fn attributes_of_one_instance_are_flat() {
    let world = varied();
    let answer = world.call("DescribeInstanceAttribute", &[("InstanceId", "i-one")]);
    assert_eq!(
        (&answer["InstanceId"], &answer["Status"], &answer["ZoneId"]),
        (&json!("i-one"), &json!("Running"), &json!("cn-hangzhou-a"))
    );
    assert_eq!(
        answer["SecurityGroupIds"]["SecurityGroupId"],
        json!(["sg-base"])
    );
    assert_eq!(answer["VpcAttributes"]["VpcId"], "vpc-sim");
    assert_eq!(answer["OperationLocks"], json!({"LockReason": []}));
    for not_there in ["Tags", "NetworkInterfaces", "InstanceTypeFamily"] {
        assert!(answer[not_there].is_null(), "{not_there}");
    }
    let data = world.call("DescribeUserData", &[REGION, ("InstanceId", "i-one")]);
    assert_eq!(
        without_request_id(data),
        json!({"RegionId": "cn-hangzhou", "InstanceId": "i-one", "UserData": ""})
    );
    for action in ["DescribeInstanceAttribute", "DescribeUserData"] {
        let code = |id: &str| world.call(action, &[REGION, ("InstanceId", id)])["Code"].clone();
        assert_eq!(code(""), "MissingParameter", "{action}");
        assert_eq!(code("one"), "InvalidInstanceId.Malformed", "{action}");
        assert_eq!(code("i-nowhere"), "InvalidInstanceId.NotFound", "{action}");
        assert_eq!(code("i-hidden"), "InvalidInstanceId.NotFound", "{action}");
    }
    let far = world.call("DescribeUserData", &[REGION, ("InstanceId", "i-far")]);
    assert_eq!(far["Code"], "InvalidInstanceId.NotFound");
}

#[test]
fn attributes_of_one_group_have_its_place_and_no_rules() {
    let world = varied();
    let ask = |id| {
        world.call(
            "DescribeSecurityGroupAttribute",
            &[REGION, ("SecurityGroupId", id)],
        )
    };
    assert_eq!(
        without_request_id(ask("sg-base")),
        json!({
            "RegionId": "cn-hangzhou", "SecurityGroupId": "sg-base", "SecurityGroupName": "sg-base", "Description": "",
            "VpcId": "vpc-sim", "InnerAccessPolicy": "Accept", "Permissions": {"Permission": []}, "NextToken": "",
        })
    );
    assert_eq!(ask("")["Code"], "MissingParameter");
    assert_eq!(ask("sg-nowhere")["Code"], "InvalidSecurityGroupId.NotFound");
    let no_region = world.call(
        "DescribeSecurityGroupAttribute",
        &[("SecurityGroupId", "sg-base")],
    );
    assert_eq!(no_region["Code"], "MissingParameter");
}

#[test]
fn lists_of_attributes_have_one_row_for_each_instance() {
    let world = varied();
    let numbered = [
        REGION,
        ("InstanceId.1", "i-one"),
        ("InstanceId.2", "i-hidden"),
    ];
    let maintenance = world.call("DescribeInstanceMaintenanceAttributes", &numbered);
    assert_eq!(
        without_request_id(maintenance),
        json!({
            "MaintenanceAttributes": {"MaintenanceAttribute": [{
                "InstanceId": "i-one", "NotifyOnMaintenance": false, "MaintenanceWindows": {"MaintenanceWindow": []},
                "ActionOnMaintenance": {"Value": "AutoRecover", "DefaultValue": "AutoRecover",
                    "SupportedValues": {"SupportedValue": ["Stop", "AutoRecover"]}},
            }]},
            "TotalCount": 1, "PageNumber": 1, "PageSize": 10,
        })
    );
    let listed = [REGION, ("InstanceIds", r#"["i-one","i-two","i-far"]"#)];
    let attachment = world.call("DescribeInstanceAttachmentAttributes", &listed);
    let row = |id| json!({"InstanceId": id, "PrivatePoolOptionsId": "", "PrivatePoolOptionsMatchCriteria": "None"});
    assert_eq!(
        without_request_id(attachment),
        json!({
            "Instances": {"Instance": [row("i-one"), row("i-two")]},
            "TotalCount": 2, "PageNumber": 1, "PageSize": 10,
        })
    );
    let roles = world.call("DescribeInstanceRamRole", &listed);
    assert_eq!(
        without_request_id(roles),
        json!({"RegionId": "cn-hangzhou", "InstanceRamRoleSets": {"InstanceRamRoleSet": []}, "TotalCount": 0})
    );
    for action in [
        "DescribeInstanceAttachmentAttributes",
        "DescribeInstanceRamRole",
    ] {
        assert_eq!(
            world.call(action, &[REGION])["Code"],
            "MissingParameter",
            "{action}"
        );
    }
    let role = world.call("DescribeInstanceRamRole", &[REGION, ("RamRoleName", "web")]);
    assert_eq!(role["TotalCount"], 0);
}

#[test]
fn every_instance_has_one_system_disk() {
    let world = varied();
    let disks = |parameters: &[(&str, &str)]| -> Vec<String> {
        let (rows, _) = world.rows("disks", parameters);
        let id = |row: &Value| row["DiskId"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect()
    };
    assert_eq!(disks(&[]), ["d-one", "d-two"]);
    assert_eq!(disks(&[("InstanceId", "i-two")]), ["d-two"]);
    assert_eq!(disks(&[("DiskIds", r#"["d-one","d-hidden"]"#)]), ["d-one"]);
    assert_eq!(
        disks(&[("DiskIds", r#"["d-one"]"#), ("InstanceId", "i-two")]),
        [""; 0]
    );
    assert_eq!(disks(&[("ZoneId", "cn-hangzhou-b")]), ["d-two"]);
    assert_eq!(disks(&[("DiskType", "system")]).len(), 2);
    assert_eq!(disks(&[("DiskType", "all")]).len(), 2);
    assert_eq!(disks(&[("DiskType", "data")]), [""; 0]);
    assert_eq!(
        world.rows("disks", &[("DiskType", "round")]).1["Code"],
        "InvalidParameter"
    );
    let (rows, answer) = world.rows("disks", &[("InstanceId", "i-one")]);
    assert_eq!(answer["TotalCount"], 1);
    for (field, value) in [
        ("InstanceId", "i-one"),
        ("Type", "system"),
        ("Status", "In_use"),
        ("RegionId", "cn-hangzhou"),
        ("ZoneId", "cn-hangzhou-a"),
    ] {
        assert_eq!(rows[0][field], value, "{field}");
    }
    assert!(rows[0]["Size"].is_u64());
    assert_eq!(rows[0]["Tags"], json!({"Tag": []}));
}

#[test]
fn tags_are_listed_by_resource_and_by_tag() {
    let world = varied();
    let ask = |parameters: &[(&str, &str)]| {
        world.call("ListTagResources", &[&[REGION], parameters].concat())
    };
    let listed = |parameters: &[(&str, &str)]| -> Vec<String> {
        let answer = ask(parameters);
        // Terraform's provider asks on until this is empty, and needs it as a text.
        assert_eq!(answer["NextToken"], "", "{answer}");
        let rows = answer["TagResources"]["TagResource"].as_array().unwrap();
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        let row = |row: &Value| {
            ["ResourceType", "ResourceId", "TagKey", "TagValue"]
                .map(|field| text(row, field))
                .join(" ")
        };
        rows.iter().map(row).collect()
    };
    let instance = ("ResourceType", "instance");
    assert_eq!(
        listed(&[
            instance,
            ("ResourceId.1", "i-one"),
            ("ResourceId.2", "i-two")
        ]),
        [
            "instance i-one env prod",
            "instance i-one team web",
            "instance i-two team db"
        ]
    );
    assert_eq!(
        listed(&[instance, ("Tag.1.Key", "team"), ("Tag.1.Value", "db")]),
        ["instance i-two team db"]
    );
    assert_eq!(
        listed(&[("ResourceType", "eni"), ("ResourceId.1", "eni-one")]),
        ["eni eni-one team web"]
    );
    assert_eq!(
        listed(&[
            ("ResourceType", "securitygroup"),
            ("ResourceId.1", "sg-base")
        ]),
        ["securitygroup sg-base team web"]
    );
    assert_eq!(
        listed(&[("ResourceType", "eni"), ("ResourceId.1", "eni-nowhere")]),
        [""; 0]
    );
    assert_eq!(
        listed(&[("ResourceType", "disk"), ("ResourceId.1", "d-one")]),
        [""; 0]
    );
    for (parameters, code) in [
        (
            vec![("ResourceId.1", "i-one")],
            "MissingParameter.ResourceType",
        ),
        (vec![instance], "MissingParameter.ResourceIds"),
        (
            vec![("ResourceType", "teapot"), ("ResourceId.1", "i-one")],
            "InvalidResourceType.NotFound",
        ),
    ] {
        let answer = ask(&parameters);
        assert_eq!(answer["Code"], code, "{parameters:?}");
    }
}

#[test]
fn long_list_of_tags_has_pages() {
    let world = World::generated(0, 0, 0);
    for number in 0..60 {
        let id = format!("i-{number:02}");
        world.change(json!({"createInstance": {"id": id, "tags": {"team": "web"}}}));
    }
    let mut token = String::new();
    let mut pages = Vec::new();
    loop {
        let parameters = [
            REGION,
            ("ResourceType", "instance"),
            ("Tag.1.Key", "team"),
            ("NextToken", &token),
        ];
        let answer = world.call("ListTagResources", &parameters);
        pages.push(
            answer["TagResources"]["TagResource"]
                .as_array()
                .unwrap()
                .len(),
        );
        token = answer["NextToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [50, 10]);
}

const INTERFACES: &str = "
accessKeys: [{id: denied, secret: testsecret, deny: [{resource: 'acs:ecs:*:*:securitygroup/sg-web'}]}]
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-db}
- {id: sg-1}
- {id: sg-2}
- {id: sg-3}
- {id: sg-full, quota: 0}
- {id: sg-rules, rules: 1001}
- {id: sg-other, vpcId: vpc-other}
- {id: sg-managed, serviceManaged: true}
- {id: sg-enterprise, type: enterprise}
- {id: sg-fullenterprise, type: enterprise, quota: 0}
- {id: sg-theirs, account: '2', shared: true}
instances: [{id: i-web, securityGroupIds: [sg-base]}, {id: i-locked, locks: [security]}]
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base, sg-db]}
- {id: eni-locked, instanceId: i-locked, securityGroupIds: [sg-base]}
- {id: eni-creating, status: Creating, securityGroupIds: [sg-base]}
- {id: eni-managed, serviceManaged: true, securityGroupIds: [sg-base]}
";

fn modify(world: &World, key: (&str, &str), interface: &str, groups: &str) -> (u16, String) {
    let names: Vec<String> = (1..=9).map(|n| format!("SecurityGroupId.{n}")).collect();
    let mut parameters = vec![REGION, ("NetworkInterfaceId", interface)];
    let groups = groups.split_whitespace();
    parameters.extend(names.iter().map(String::as_str).zip(groups));
    let (status, body) = world.call_as(key, "ModifyNetworkInterfaceAttribute", &parameters);
    (status, body["Code"].as_str().unwrap_or("OK").to_owned())
}

/// Terraform's provider changes the groups of an interface by this call only.
#[test]
fn modified_interface_is_in_exactly_the_named_groups() {
    let world = World::of(INTERFACES);
    assert_eq!(modify(&world, KEY, "eni-web", "sg-web sg-base").1, "OK");
    let groups = |world: &World| {
        let state = world.simulator.snapshot(world.now);
        state["networkInterfaces"]["eni-web"]["securityGroupIds"].clone()
    };
    assert_eq!(groups(&world), json!(["sg-base", "sg-web"]));
    let entries = |world: &World| -> Vec<String> {
        let journal = world.simulator.journal();
        let entry = |entry: &Value| {
            ["action", "target", "securityGroupId", "by"]
                .map(|field| entry[field].as_str().unwrap().to_owned())
                .join(" ")
        };
        journal.as_array().unwrap().iter().map(entry).collect()
    };
    let changed = [
        "JoinSecurityGroup eni-web sg-web testid",
        "LeaveSecurityGroup eni-web sg-db testid",
    ];
    assert_eq!(entries(&world), changed, "each change is one entry");
    assert_eq!(modify(&world, KEY, "eni-web", "").1, "OK", "nothing to set");
    assert_eq!(modify(&world, KEY, "eni-web", "sg-web sg-base").1, "OK");
    assert_eq!(entries(&world), changed);
}

#[test]
fn modified_interface_has_the_codes_of_that_call() {
    for (interface, groups, status, code) in [
        ("", "sg-web", 400, "MissingParameter"),
        ("eni-web!", "sg-web", 400, "InvalidParams.EniId"),
        ("eni-nowhere", "sg-web", 404, "InvalidEniId.NotFound"),
        (
            "eni-web",
            "sg-nowhere",
            404,
            "InvalidSecurityGroupId.NotFound",
        ),
        (
            "eni-web",
            "sg-web sg-web",
            404,
            "InvalidParameter.SecurityGroupIdRepeated",
        ),
        (
            "eni-primaryweb",
            "sg-web",
            404,
            "InvalidOperation.PrimaryEniOnlySupportModifyNameAndDesc",
        ),
        (
            "eni-managed",
            "sg-web",
            403,
            "InvalidOperation.EniServiceManaged",
        ),
        (
            "eni-web",
            "sg-managed",
            403,
            "InvalidOperation.ResourceManagedByCloudProduct",
        ),
        (
            "eni-web",
            "sg-theirs",
            400,
            "InvalidOperation.EniAndGroupNotBelongSameUser",
        ),
        ("eni-locked", "sg-web", 403, "InstanceLockedForSecurity"),
        (
            "eni-creating",
            "sg-web",
            400,
            "InvalidOperation.InvalidEniState",
        ),
        ("eni-web", "sg-other", 403, "InvalidOperation.VpcMismatch"),
        (
            "eni-web",
            "sg-base sg-enterprise",
            403,
            "InvalidOperation.MultiGroupType",
        ),
        (
            "eni-web",
            "sg-base sg-web sg-db sg-1 sg-2 sg-3",
            400,
            "JoinedGroupLimitExceed",
        ),
        (
            "eni-web",
            "sg-full",
            403,
            "SecurityGroupInstanceLimitExceed",
        ),
        (
            "eni-web",
            "sg-fullenterprise",
            403,
            "InvalidOperation.EniCountExceeded",
        ),
        ("eni-web", "sg-rules", 403, "AclLimitExceed"),
        // All groups at once may be of the other type.
        ("eni-web", "sg-enterprise", 200, "OK"),
        ("eni-web", "sg-base sg-web sg-db sg-1 sg-2", 200, "OK"),
    ] {
        let world = World::of(INTERFACES);
        let before = world.simulator.snapshot(world.now);
        assert_eq!(
            modify(&world, KEY, interface, groups),
            (status, code.to_owned()),
            "{interface} {groups}"
        );
        assert_eq!(world.simulator.snapshot(world.now) == before, status != 200);
    }
    let world = World::of(INTERFACES);
    let denied = ("denied", "testsecret");
    assert_eq!(
        modify(&world, denied, "eni-web", "sg-web").1,
        "Forbidden.RAM"
    );
    assert_eq!(modify(&world, denied, "eni-web", "sg-1").1, "OK");
    world.change(json!({"set": {"latency": "30ms"}}));
    assert_eq!(modify(&world, KEY, "eni-web", "sg-1 sg-2").1, "OK");
    assert_eq!(
        modify(&world, KEY, "eni-web", "sg-1").1,
        "InvalidOperation.Conflict"
    );
}

/// Each of these reads can be forbidden, and hides what belongs to others.
#[test]
fn reads_ask_ram() {
    let world = varied();
    world.change(json!({"deny": {"id": "testid", "deny": [{"action": "ecs:*"}]}}));
    for (action, parameters) in [
        ("DescribeInstanceAttribute", vec![("InstanceId", "i-one")]),
        ("DescribeUserData", vec![("InstanceId", "i-one")]),
        (
            "DescribeSecurityGroupAttribute",
            vec![("SecurityGroupId", "sg-base")],
        ),
        ("DescribeInstanceMaintenanceAttributes", vec![]),
        (
            "DescribeInstanceAttachmentAttributes",
            vec![("InstanceIds", "[]")],
        ),
        ("DescribeInstanceRamRole", vec![("InstanceIds", "[]")]),
        ("DescribeDisks", vec![]),
        (
            "ListTagResources",
            vec![("ResourceType", "eni"), ("ResourceId.1", "eni-one")],
        ),
    ] {
        let mut all = vec![REGION];
        all.extend(parameters);
        let request = signed(KEY, action, &all, world.now);
        let (status, body) = answer(&world.send(&request));
        assert_eq!(
            (status, &body["Code"]),
            (403, &json!("Forbidden.RAM")),
            "{action}"
        );
    }
}
