// The vendor's SDK for Node.js of yesterday (RPC 1.0, HMAC-SHA1) against the simulated cloud. Prints one JSON object a step; judges
// nothing.
"use strict";

const { RPCClient } = require("@alicloud/pop-core");

const { KEY, SECRET, ECS_ENDPOINT } = process.env;

function client(accessKeyId, accessKeySecret, apiVersion = "2014-05-26") {
  return new RPCClient({ accessKeyId, accessKeySecret, endpoint: `http://${ECS_ENDPOINT}`, apiVersion });
}

let ecs = client(KEY, SECRET);

// Changes by POST with a form, reads by GET with a query.
const read = (action, parameters) => ecs.request(action, { RegionId: "cn-hangzhou", ...parameters }, { method: "GET" });
const write = async (action, parameters) =>
  (await ecs.request(action, { RegionId: "cn-hangzhou", ...parameters }, { method: "POST" })).RequestId;

async function step(name, run) {
  try {
    console.log(JSON.stringify({ step: name, ok: await run() }));
  } catch (error) {
    if (!error.code) throw error;
    const { code, data, entry } = error;
    console.log(JSON.stringify({ step: name, code, status: entry.response.statusCode, requestId: data.RequestId }));
  }
}

async function instancesIn(SecurityGroupId) {
  const found = [];
  let NextToken = "";
  do {
    const body = await read("DescribeInstances", { SecurityGroupId, MaxResults: 10, NextToken });
    found.push(body.Instances.Instance.map((instance) => instance.InstanceId));
    NextToken = body.NextToken;
  } while (NextToken);
  return found;
}

async function main() {
  const instance = { InstanceId: "i-sim000000" };
  const networkInterface = { NetworkInterfaceId: "eni-sim000000" };
  const join = (target, SecurityGroupId) => write("JoinSecurityGroup", { ...target, SecurityGroupId });
  const leave = (target, SecurityGroupId) => write("LeaveSecurityGroup", { ...target, SecurityGroupId });

  await step("pages", () => instancesIn("sg-base"));
  await step("join", () => join(instance, "sg-sim0000"));
  await step("members", () => instancesIn("sg-sim0000"));
  await step("join again", () => join(instance, "sg-sim0000"));
  await step("leave", () => leave(instance, "sg-sim0000"));
  await step("members after", () => instancesIn("sg-sim0000"));
  await step("leave last", () => leave(instance, "sg-base"));
  await step("join interface", () => join(networkInterface, "sg-sim0001"));
  await step("groups of interface", async () => {
    const body = await read("DescribeNetworkInterfaces", { NetworkInterfaceId: ["eni-sim000000"] });
    return body.NetworkInterfaceSets.NetworkInterfaceSet[0].SecurityGroupIds.SecurityGroupId;
  });
  await step("no such group", () => join(instance, "sg-nowhere"));
  await step("groups", async () => {
    const body = await read("DescribeSecurityGroups", { SecurityGroupIds: JSON.stringify(["sg-base", "sg-sim0001"]) });
    return body.SecurityGroups.SecurityGroup.map((group) => group.SecurityGroupId);
  });
  await step("statuses", async () => {
    const body = await read("DescribeInstanceStatus", { InstanceId: ["i-sim000001", "i-sim000002"] });
    return body.InstanceStatuses.InstanceStatus.map(({ InstanceId, Status }) => [InstanceId, Status]);
  });
  await step("identity", async () => (await client(KEY, SECRET, "2015-04-01").request("GetCallerIdentity")).AccountId);
  ecs = client("nobody", SECRET);
  await step("wrong key", () => join(instance, "sg-sim0000"));
  ecs = client(KEY, "wrong");
  await step("wrong secret", () => join(instance, "sg-sim0000"));
}

main();
