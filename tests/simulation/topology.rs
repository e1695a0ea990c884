//! What there is in a world to act on: targets of both kinds in two regions, accounts, keys, names of objects. Tables, and the
//! cloud that is made of them.

use std::sync::OnceLock;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::simulator::cloud::Cloud;
use security_group_operator::simulator::inventory::Inventory;
use serde_json::{Value, json};

pub const NAMESPACE: &str = "team";
pub const GUESTS: &str = "guest";
pub const OPERATOR_NAMESPACE: &str = "operator";

/// Names of objects: of [`NAMESPACE`], unless they say another one.
pub const NAMES: [&str; 5] = ["a", "b", "guest/c", "d", "guest/e"];

/// The namespace and the name of an object.
pub fn place(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or((NAMESPACE, name))
}

/// What an object may name: an instance or a network interface, where it looks for it, and two groups.
pub struct SimTarget {
    pub id: &'static str,
    pub region: &'static str,
    pub groups: [&'static str; 2],
}

pub const TARGETS: [SimTarget; 9] = [
    in_hangzhou("i-0"),
    in_hangzhou("i-1"),
    in_hangzhou("i-2"),
    in_hangzhou("eni-0"),
    in_hangzhou("eni-1"),
    in_beijing("i-3"),
    in_beijing("eni-2"),
    // Not there: like the first one, and yet never to be mistaken for it.
    SimTarget {
        region: "cn-beijing",
        ..in_hangzhou("i-0")
    },
    in_hangzhou("eni-primary0"),
];
/// How many targets the first draw of a schedule knows.
pub const DRAWN: usize = 8;
/// The interface that is attached (to i-0), and the one that is not.
pub const INTERFACE: usize = 3;
pub const FREE_INTERFACE: usize = 4;
pub const MISPLACED: usize = 7;
/// The primary interface of i-0: another name for the same membership, which the cloud refuses.
pub const PRIMARY: usize = 8;

/// What an ID is a name for: a primary interface has the groups of its instance.
pub fn member_of(id: &str) -> &str {
    if id == TARGETS[PRIMARY].id {
        TARGETS[0].id
    } else {
        id
    }
}

const fn in_hangzhou(id: &'static str) -> SimTarget {
    SimTarget {
        id,
        region: "cn-hangzhou",
        groups: ["sg-a", "sg-b"],
    }
}

const fn in_beijing(id: &'static str) -> SimTarget {
    SimTarget {
        id,
        region: "cn-beijing",
        groups: ["sg-c", "sg-d"],
    }
}

/// The region that something is in.
pub fn home(id: &str) -> &'static str {
    let found = TARGETS.iter().find(|target| target.id == id);
    match found {
        Some(target) => target.region,
        None => bulk_home(id),
    }
}

/// The regions of instances that are many: `i-bulk<city><number>`. One that names no city is in the first.
pub const BULK_REGIONS: [&str; 4] = ["cn-hangzhou", "cn-beijing", "cn-shanghai", "cn-shenzhen"];

fn bulk_home(id: &str) -> &'static str {
    let Some(rest) = id.strip_prefix("i-bulk") else {
        return "";
    };
    let named = |region: &&&str| rest.starts_with(city(region));
    BULK_REGIONS.iter().find(named).unwrap_or(&BULK_REGIONS[0])
}

/// A region without its country: an ID has no dash but its first.
pub fn city(region: &str) -> &str {
    region.trim_start_matches("cn-")
}

impl SimTarget {
    pub fn is_interface(&self) -> bool {
        self.id.starts_with("eni-")
    }

    /// The field of a spec that names it.
    pub fn field(&self) -> &'static str {
        if self.is_interface() {
            "networkInterfaceID"
        } else {
            "instanceID"
        }
    }

    pub fn statuses(&self) -> &'static [&'static str] {
        if self.is_interface() {
            &[
                "Available",
                "InUse",
                "Attaching",
                "Detaching",
                "Creating",
                "Deleting",
            ]
        } else {
            &["Running", "Stopped", "Starting", "Stopping", "Pending"]
        }
    }
}

/// An account object; all are of one cloud account, while their Secrets say so.
pub struct AccountObject {
    pub plural: &'static str,
    pub namespace: &'static str,
    pub name: &'static str,
    /// Where its Secret is, which is called "key".
    pub secret_namespace: &'static str,
}

pub static ACCOUNTS: [AccountObject; 3] = [
    AccountObject {
        plural: "clustercloudaccounts",
        namespace: "",
        name: "default",
        secret_namespace: OPERATOR_NAMESPACE,
    },
    own(NAMESPACE),
    own(GUESTS),
];
/// The one that is always there; the others are the namespaces' own.
pub const CLUSTER: usize = 0;
pub const TEAMS: usize = 1;

const fn own(namespace: &'static str) -> AccountObject {
    AccountObject {
        plural: "cloudaccounts",
        namespace,
        name: "own",
        secret_namespace: namespace,
    }
}

/// Has a spec name the account of the object's own namespace.
pub fn name_own_account(spec: &mut Value) {
    spec["accountRef"] = json!({"kind": "CloudAccount", "name": "own"});
}

/// The account that an object names, if it is one of these.
pub fn account_of(object: &Value) -> Option<&'static AccountObject> {
    let reference = &object["spec"]["accountRef"];
    ACCOUNTS.iter().find(|account| {
        reference["name"] == account.name
            && (reference["kind"] == "ClusterCloudAccount"
                || object["metadata"]["namespace"] == account.namespace)
    })
}

/// The cloud account that owns all targets and groups.
pub const OWNER: &str = "1000000000000001";
/// Access keys: ID, secret, and the cloud account. The last one is of another account than the targets.
pub const KEYS: [(&str, &str, &str); 3] = [
    ("LTAI5tFirst", "first-secret-canary", OWNER),
    ("LTAI5tSecond", "second-secret-canary", OWNER),
    ("LTAI5tForeign", "foreign-secret-canary", "1000000000000002"),
];

/// The data of a Secret with this key.
pub fn secret_data(key: usize) -> Value {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (id, secret, _) = KEYS[key % KEYS.len()];
    json!({"accessKeyID": encode(id), "accessKeySecret": encode(secret)})
}

pub fn epoch() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

/// The cloud at the beginning; parsed once.
pub fn cloud() -> Cloud {
    static CLOUD: OnceLock<Cloud> = OnceLock::new();
    let build = || {
        let keys = KEYS
            .map(|(id, secret, account)| json!({"id": id, "secret": secret, "account": account}));
        let groups = |region: &str, ids: [&str; 3]| {
            ids.map(|id| json!({"id": id, "region": region})).to_vec()
        };
        let groups = [
            groups("cn-hangzhou", ["sg-base", "sg-a", "sg-b"]),
            groups("cn-beijing", ["sg-ground", "sg-c", "sg-d"]),
        ]
        .concat();
        let (mut instances, mut interfaces) = (Vec::new(), Vec::new());
        for target in TARGETS
            .iter()
            .filter(|target| target.region == home(target.id) && member_of(target.id) == target.id)
        {
            let base = if target.region == "cn-hangzhou" {
                "sg-base"
            } else {
                "sg-ground"
            };
            let mut row =
                json!({"id": target.id, "region": target.region, "securityGroupIds": [base]});
            if !target.is_interface() {
                instances.push(row);
                continue;
            }
            match target.id {
                "eni-0" => row["instanceId"] = json!("i-0"),
                "eni-2" => row["instanceId"] = json!("i-3"),
                _ => {}
            }
            interfaces.push(row);
        }
        let inventory = json!({
            "accessKeys": keys,
            "securityGroups": groups,
            "instances": instances,
            "networkInterfaces": interfaces,
        });
        Inventory::from_yaml(&inventory.to_string())
            .unwrap()
            .build(epoch())
            .unwrap()
    };
    CLOUD.get_or_init(build).clone()
}
