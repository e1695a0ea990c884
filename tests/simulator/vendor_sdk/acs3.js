// The vendor's SDK for Node.js of today (ACS3-HMAC-SHA256) against the simulated cloud. Prints one JSON object a step; judges nothing.
"use strict";

const ecs20140526 = require("@alicloud/ecs20140526");
const { $OpenApiUtil } = require("@alicloud/openapi-core");

const { default: Client } = ecs20140526;
const { KEY, SECRET, ECS_ENDPOINT } = process.env;
const regionId = "cn-hangzhou";

function client(accessKeyId, accessKeySecret) {
  return new Client(
    new $OpenApiUtil.Config({ accessKeyId, accessKeySecret, endpoint: ECS_ENDPOINT, protocol: "http", regionId }),
  );
}

let ecs = client(KEY, SECRET);

/** Calls `method` with the fields of its request; the answer is of the SDK's own types. */
async function call(method, fields) {
  const name = method[0].toUpperCase() + method.slice(1);
  const request = new ecs20140526[`${name}Request`]({ regionId, ...fields });
  return (await ecs[method](request)).body;
}

async function step(name, run) {
  try {
    console.log(JSON.stringify({ step: name, ok: await run() }));
  } catch (error) {
    if (!error.code) throw error;
    const { code, statusCode, requestId } = error;
    console.log(JSON.stringify({ step: name, code, status: statusCode, requestId }));
  }
}

async function instancesIn(securityGroupId) {
  const found = [];
  let nextToken;
  do {
    const body = await call("describeInstances", { securityGroupId, maxResults: 10, nextToken });
    found.push(body.instances.instance.map((instance) => instance.instanceId));
    nextToken = body.nextToken;
  } while (nextToken);
  return found;
}

async function interfaceRow(id) {
  const body = await call("describeNetworkInterfaces", { networkInterfaceId: [id], maxResults: 100 });
  return body.networkInterfaceSets.networkInterfaceSet[0];
}

async function main() {
  const instance = { instanceId: "i-sim000000" };
  const networkInterface = { networkInterfaceId: "eni-sim000000" };
  const join = async (target, securityGroupId) => (await call("joinSecurityGroup", { ...target, securityGroupId })).requestId;
  const leave = async (target, securityGroupId) => (await call("leaveSecurityGroup", { ...target, securityGroupId })).requestId;

  await step("pages", () => instancesIn("sg-base"));
  await step("join", () => join(instance, "sg-sim0000"));
  await step("members", () => instancesIn("sg-sim0000"));
  await step("join again", () => join(instance, "sg-sim0000"));
  await step("leave", () => leave(instance, "sg-sim0000"));
  await step("members after", () => instancesIn("sg-sim0000"));
  await step("leave last", () => leave(instance, "sg-base"));
  await step("join interface", () => join(networkInterface, "sg-sim0001"));
  await step("groups of interface", async () => (await interfaceRow("eni-sim000000")).securityGroupIds.securityGroupId);
  await step("no such group", () => join(instance, "sg-nowhere"));
  await step("groups", async () => {
    const body = await call("describeSecurityGroups", { securityGroupIds: JSON.stringify(["sg-base", "sg-sim0001"]) });
    return body.securityGroups.securityGroup.map((group) => group.securityGroupId);
  });
  await step("statuses", async () => {
    const body = await call("describeInstanceStatus", { instanceId: ["i-sim000001", "i-sim000002"] });
    return body.instanceStatuses.instanceStatus.map(({ instanceId, status }) => [instanceId, status]);
  });

  // What Terraform's provider reads and changes, in the types of this SDK.
  await step("attachment", async () => {
    const { instanceId, deviceIndex } = (await interfaceRow("eni-sim000000")).attachment;
    return [instanceId, deviceIndex];
  });
  await step("disk", async () => {
    const body = await call("describeDisks", { instanceId: "i-sim000003", diskType: "system" });
    return body.disks.disk.map(({ diskId, type }) => [diskId, type]);
  });
  await step("attribute", async () => (await call("describeInstanceAttribute", instance)).securityGroupIds.securityGroupId);
  await step("maintenance", async () => {
    const body = await call("describeInstanceMaintenanceAttributes", { instanceId: ["i-sim000000"] });
    return body.maintenanceAttributes.maintenanceAttribute.map((row) => row.actionOnMaintenance.value);
  });
  await step("private pool", async () => {
    const body = await call("describeInstanceAttachmentAttributes", { instanceIds: JSON.stringify(["i-sim000000"]) });
    return body.instances.instance.map((row) => row.privatePoolOptionsMatchCriteria);
  });
  await step("tags", async () => {
    const body = await call("listTagResources", { resourceType: "eni", resourceId: ["eni-sim000000"] });
    return [body.tagResources.tagResource, body.nextToken];
  });
  await step("set groups", async () => {
    await call("modifyNetworkInterfaceAttribute", { ...networkInterface, securityGroupId: ["sg-sim0002", "sg-base"] });
    return (await interfaceRow("eni-sim000000")).securityGroupIds.securityGroupId;
  });
  await step("dry run", () => call("stopInstance", { ...instance, dryRun: true }));

  ecs = client("nobody", SECRET);
  await step("wrong key", () => join(instance, "sg-sim0000"));
  ecs = client(KEY, "wrong");
  await step("wrong secret", () => join(instance, "sg-sim0000"));
}

main();
