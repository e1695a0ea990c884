"""The vendor's SDK of yesterday (RPC 1.0, HMAC-SHA1) against the simulated cloud. Prints one JSON object a step; judges nothing."""

import json
import os

from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
from aliyunsdkecs.request.v20140526.DescribeInstancesRequest import DescribeInstancesRequest
from aliyunsdkecs.request.v20140526.DescribeInstanceStatusRequest import DescribeInstanceStatusRequest
from aliyunsdkecs.request.v20140526.DescribeNetworkInterfacesRequest import DescribeNetworkInterfacesRequest
from aliyunsdkecs.request.v20140526.DescribeSecurityGroupsRequest import DescribeSecurityGroupsRequest
from aliyunsdkecs.request.v20140526.JoinSecurityGroupRequest import JoinSecurityGroupRequest
from aliyunsdkecs.request.v20140526.LeaveSecurityGroupRequest import LeaveSecurityGroupRequest


def client(key, secret):
    return AcsClient(key, secret, "cn-hangzhou")


def call(request, **parameters):
    for name, value in parameters.items():
        getattr(request, "set_" + name)(value)
    request.set_endpoint(os.environ["ECS_ENDPOINT"])
    request.set_protocol_type("http")
    request.set_accept_format("json")
    return json.loads(acs.do_action_with_exception(request))


def step(name, run):
    try:
        print(json.dumps({"step": name, "ok": run()}))
    except ServerException as error:
        print(json.dumps({
            "step": name,
            "code": error.get_error_code(),
            "status": error.get_http_status(),
            "requestId": error.get_request_id(),
        }))


def instances_in(group):
    found, token = [], ""
    while True:
        body = call(DescribeInstancesRequest(), SecurityGroupId=group, MaxResults=10, **({"NextToken": token} if token else {}))
        found.append([instance["InstanceId"] for instance in body["Instances"]["Instance"]])
        token = body["NextToken"]
        if not token:
            return found


def groups_of_interface(interface):
    body = call(DescribeNetworkInterfacesRequest(), NetworkInterfaceIds=[interface])
    return body["NetworkInterfaceSets"]["NetworkInterfaceSet"][0]["SecurityGroupIds"]["SecurityGroupId"]


def identity():
    request = CommonRequest(domain=os.environ["ECS_ENDPOINT"], version="2015-04-01", action_name="GetCallerIdentity")
    request.set_protocol_type("http")
    return json.loads(acs.do_action_with_exception(request))["AccountId"]


def assumed(role):
    request = CommonRequest(domain=os.environ["ECS_ENDPOINT"], version="2015-04-01", action_name="AssumeRole")
    request.set_protocol_type("http")
    request.add_query_param("RoleArn", role)
    request.add_query_param("RoleSessionName", "sdk")
    keys = json.loads(acs.do_action_with_exception(request))["Credentials"]
    credential = StsTokenCredential(keys["AccessKeyId"], keys["AccessKeySecret"], keys["SecurityToken"])
    return AcsClient(region_id="cn-hangzhou", credential=credential)


acs = client(os.environ["KEY"], os.environ["SECRET"])
instance = {"InstanceId": "i-sim000000"}
interface = {"NetworkInterfaceId": "eni-sim000000"}
join = lambda target, group: call(JoinSecurityGroupRequest(), SecurityGroupId=group, **target)["RequestId"]
leave = lambda target, group: call(LeaveSecurityGroupRequest(), SecurityGroupId=group, **target)["RequestId"]


def join_interface():
    # This SDK's request has no RegionId of its own; the client adds it to every request.
    return join(interface, "sg-sim0001")


step("pages", lambda: instances_in("sg-base"))
step("join", lambda: join(instance, "sg-sim0000"))
step("members", lambda: instances_in("sg-sim0000"))
step("join again", lambda: join(instance, "sg-sim0000"))
step("leave", lambda: leave(instance, "sg-sim0000"))
step("members after", lambda: instances_in("sg-sim0000"))
step("leave last", lambda: leave(instance, "sg-base"))
step("join interface", join_interface)
step("groups of interface", lambda: groups_of_interface("eni-sim000000"))
step("no such group", lambda: join(instance, "sg-nowhere"))
step("groups", lambda: [
    group["SecurityGroupId"]
    for group in call(DescribeSecurityGroupsRequest(), SecurityGroupIds='["sg-base","sg-sim0001"]')["SecurityGroups"]["SecurityGroup"]
])
step("statuses", lambda: [
    [status["InstanceId"], status["Status"]]
    for status in call(DescribeInstanceStatusRequest(), InstanceIds=["i-sim000001", "i-sim000002"])["InstanceStatuses"]["InstanceStatus"]
])
step("identity", identity)
step("no such role", lambda: assumed("acs:ram::1000000000000001:role/none"))
acs = assumed("acs:ram::1000000000000001:role/reader")
step("identity of role", identity)
step("statuses of role", lambda: len(call(DescribeInstanceStatusRequest(), InstanceIds=["i-sim000001"])["InstanceStatuses"]["InstanceStatus"]))
step("join of role", lambda: join(instance, "sg-sim0000"))
acs = client("nobody", os.environ["SECRET"])
step("wrong key", lambda: join(instance, "sg-sim0000"))
acs = client(os.environ["KEY"], "wrong")
step("wrong secret", lambda: join(instance, "sg-sim0000"))
