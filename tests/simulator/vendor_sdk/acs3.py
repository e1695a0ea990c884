"""The vendor's SDK of today (ACS3-HMAC-SHA256) against the simulated cloud. Prints one JSON object a step; judges nothing."""

import json
import os

from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.models import Config
from Tea.exceptions import TeaException


def client(key, secret):
    return Client(Config(
        access_key_id=key,
        access_key_secret=secret,
        endpoint=os.environ["ECS_ENDPOINT"],
        protocol="http",
        region_id="cn-hangzhou",
    ))


def step(name, call):
    try:
        print(json.dumps({"step": name, "ok": call()}))
    except TeaException as error:
        print(json.dumps({
            "step": name,
            "code": error.code,
            "status": error.data.get("statusCode"),
            "requestId": error.data.get("RequestId"),
        }))


def instances_in(ecs, group):
    found, token = [], None
    while True:
        body = ecs.describe_instances(models.DescribeInstancesRequest(
            region_id="cn-hangzhou", security_group_id=group, max_results=10, next_token=token,
        )).body
        found.append([instance.instance_id for instance in body.instances.instance])
        token = body.next_token
        if not token:
            return found


def groups_of_interface(ecs, interface):
    body = ecs.describe_network_interfaces(models.DescribeNetworkInterfacesRequest(
        region_id="cn-hangzhou", network_interface_id=[interface], max_results=100,
    )).body
    return body.network_interface_sets.network_interface_set[0].security_group_ids.security_group_id


def edge(kind, group):
    return dict(security_group_id=group, region_id="cn-hangzhou", **kind)


ecs = client(os.environ["KEY"], os.environ["SECRET"])
instance = {"instance_id": "i-sim000000"}
interface = {"network_interface_id": "eni-sim000000"}
join = lambda **edge: ecs.join_security_group(models.JoinSecurityGroupRequest(**edge)).body.request_id
leave = lambda **edge: ecs.leave_security_group(models.LeaveSecurityGroupRequest(**edge)).body.request_id

step("pages", lambda: instances_in(ecs, "sg-base"))
step("join", lambda: join(**edge(instance, "sg-sim0000")))
step("members", lambda: instances_in(ecs, "sg-sim0000"))
step("join again", lambda: join(**edge(instance, "sg-sim0000")))
step("leave", lambda: leave(**edge(instance, "sg-sim0000")))
step("members after", lambda: instances_in(ecs, "sg-sim0000"))
step("leave last", lambda: leave(**edge(instance, "sg-base")))
step("join interface", lambda: join(**edge(interface, "sg-sim0001")))
step("groups of interface", lambda: groups_of_interface(ecs, "eni-sim000000"))
step("no such group", lambda: join(**edge(instance, "sg-nowhere")))
step("groups", lambda: [
    group.security_group_id for group in ecs.describe_security_groups(
        models.DescribeSecurityGroupsRequest(region_id="cn-hangzhou", security_group_ids='["sg-base","sg-sim0001"]')
    ).body.security_groups.security_group
])
step("statuses", lambda: [
    [status.instance_id, status.status] for status in ecs.describe_instance_status(
        models.DescribeInstanceStatusRequest(region_id="cn-hangzhou", instance_id=["i-sim000001", "i-sim000002"])
    ).body.instance_statuses.instance_status
])
ecs = client("nobody", os.environ["SECRET"])
step("wrong key", lambda: join(**edge(instance, "sg-sim0000")))
ecs = client(os.environ["KEY"], "wrong")
step("wrong secret", lambda: join(**edge(instance, "sg-sim0000")))
