//! Descriptions of targets, from the rows of the Describe actions: pure. An unreadable row rejects the page.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Error;
use super::id::{InstanceId, NetworkInterfaceId, SecurityGroupId};
use super::response::ApiResponse;

/// A target as the cloud describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDescription {
    /// State of the target.
    pub state: TargetState,
    /// VPC of the target; `None` in the classic network.
    pub vpc_id: Option<String>,
    /// Lock reasons: `financial`, `security`, `Recycling`, … Only `security` blocks Join and Leave.
    pub lock_reasons: Vec<String>,
    /// The target's security groups; for an instance, those of its primary interface.
    pub security_group_ids: BTreeSet<SecurityGroupId>,
    /// Whether another cloud service manages this network interface; the account cannot change it then.
    pub service_managed: bool,
}

/// The state of an instance (`Pending` to `Stopped`) or of a network interface (`Available` to `Deleting`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// The instance is being created.
    Pending,
    /// The instance is starting.
    Starting,
    /// The instance runs: Join and Leave are allowed.
    Running,
    /// The instance is stopping.
    Stopping,
    /// The instance is off: Join and Leave are allowed.
    Stopped,
    /// The interface belongs to no instance.
    Available,
    /// The interface is being attached.
    Attaching,
    /// The interface is attached.
    InUse,
    /// The interface is being detached.
    Detaching,
    /// The interface is being deleted.
    Deleting,
    /// A state unknown to this version, as the cloud spells it.
    Other(String),
}

impl TargetState {
    /// Whether the state ends without outside action and the cloud rejects Join and Leave until then.
    #[must_use]
    pub fn is_transitional(&self) -> bool {
        match self {
            Self::Pending
            | Self::Starting
            | Self::Stopping
            | Self::Attaching
            | Self::Detaching
            | Self::Deleting => true,
            Self::Running | Self::Stopped | Self::Available | Self::InUse | Self::Other(_) => false,
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "Pending" => Self::Pending,
            "Starting" => Self::Starting,
            "Running" => Self::Running,
            "Stopping" => Self::Stopping,
            "Stopped" => Self::Stopped,
            "Available" => Self::Available,
            "Attaching" => Self::Attaching,
            "InUse" => Self::InUse,
            "Detaching" => Self::Detaching,
            "Deleting" => Self::Deleting,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Available => "Available",
            Self::Attaching => "Attaching",
            Self::InUse => "InUse",
            Self::Detaching => "Detaching",
            Self::Deleting => "Deleting",
            Self::Other(text) => text,
        })
    }
}

/// One page of a Describe action.
pub(super) struct Page<Id> {
    pub rows: Vec<(Id, TargetDescription)>,
    pub next_token: Option<String>,
}

pub(super) fn instances(response: &ApiResponse) -> Result<Page<InstanceId>, Error> {
    let rows = response.rows("Instances", "Instance")?;
    page(response, rows, |row: InstanceRow| {
        let id = row
            .instance_id
            .parse()
            .map_err(|_| response.bad_row("an InstanceId is none"))?;
        let locks = row.operation_locks.unwrap_or_default().lock_reason;
        let description = TargetDescription {
            state: state(response, &row.status)?,
            vpc_id: row
                .vpc_attributes
                .and_then(|vpc| vpc.vpc_id)
                .map(|text| short(response, text))
                .transpose()?
                .filter(|text| !text.is_empty()),
            lock_reasons: locks
                .into_iter()
                .map(|lock| short(response, lock.lock_reason))
                .collect::<Result<_, _>>()?,
            security_group_ids: groups(response, row.security_group_ids.security_group_id)?,
            service_managed: false,
        };
        Ok((id, description))
    })
}

pub(super) fn network_interfaces(
    response: &ApiResponse,
) -> Result<Page<NetworkInterfaceId>, Error> {
    let rows = response.rows("NetworkInterfaceSets", "NetworkInterfaceSet")?;
    page(response, rows, |row: NetworkInterfaceRow| {
        let id = row
            .network_interface_id
            .parse()
            .map_err(|_| response.bad_row("a NetworkInterfaceId is none"))?;
        let description = TargetDescription {
            state: state(response, &row.status)?,
            vpc_id: row
                .vpc_id
                .map(|text| short(response, text))
                .transpose()?
                .filter(|text| !text.is_empty()),
            lock_reasons: Vec::new(),
            security_group_ids: groups(response, row.security_group_ids.security_group_id)?,
            service_managed: row.service_managed.unwrap_or(false),
        };
        Ok((id, description))
    })
}

/// Reads the rows one by one. If some rows are unreadable, the error is [`Error::BadRow`]: the other IDs can be read without
/// them. If all are unreadable, the answer itself is bad, and halving the batch would not help.
fn page<Row: DeserializeOwned, Id>(
    response: &ApiResponse,
    rows: &[Value],
    read: impl Fn(Row) -> Result<(Id, TargetDescription), Error>,
) -> Result<Page<Id>, Error> {
    let mut good = Vec::with_capacity(rows.len());
    let mut first_bad = None;
    for row in rows {
        match response.row(row).and_then(&read) {
            Ok(described) => good.push(described),
            Err(error) => first_bad = first_bad.or(Some(error)),
        }
    }
    match first_bad {
        Some(_) if good.is_empty() && rows.len() > 1 => {
            Err(response.bad("none of its rows can be read"))
        }
        Some(error) => Err(error),
        None => Ok(Page {
            rows: good,
            next_token: next_token(response)?,
        }),
    }
}

fn state(response: &ApiResponse, text: &str) -> Result<TargetState, Error> {
    if text.is_empty() {
        return Err(response.bad_row("a Status is empty"));
    }
    short(response, text.to_owned()).map(|text| TargetState::parse(&text))
}

/// A word of the cloud that is shown in a status: state, lock or VPC. A long, secret or unprintable text is rejected.
fn short(response: &ApiResponse, text: String) -> Result<String, Error> {
    if response.is_word(&text) {
        Ok(text)
    } else {
        Err(response.bad_row("a text of a row cannot be what it should be"))
    }
}

/// Skips IDs of an older form (`G…`, twelve hex digits): no object can name them. An ID that is almost spelled like ours is
/// an error. If it were skipped, a member would look like a non-member, and its finalizer would be removed without a Leave.
fn groups(response: &ApiResponse, texts: Vec<String>) -> Result<BTreeSet<SecurityGroupId>, Error> {
    let mut groups = BTreeSet::new();
    for text in texts {
        let old_shape = !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !text.to_ascii_lowercase().starts_with("sg");
        match text.parse() {
            Ok(group) => {
                groups.insert(group);
            }
            Err(_) if old_shape => {}
            Err(_) => return Err(response.bad_row("a SecurityGroupId is none")),
        }
    }
    Ok(groups)
}

fn next_token(response: &ApiResponse) -> Result<Option<String>, Error> {
    let Paging { next_token } = response.body()?;
    let token = next_token.filter(|token| !token.is_empty());
    if token.as_ref().is_some_and(|token| token.len() > 4096) {
        return Err(response.bad("its NextToken is longer than 4096 bytes"));
    }
    Ok(token)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Paging {
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceRow {
    instance_id: String,
    status: String,
    vpc_attributes: Option<VpcAttributes>,
    operation_locks: Option<OperationLocks>,
    security_group_ids: SecurityGroupIds,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VpcAttributes {
    vpc_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OperationLocks {
    #[serde(default)]
    lock_reason: Vec<Lock>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Lock {
    lock_reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecurityGroupIds {
    security_group_id: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInterfaceRow {
    network_interface_id: String,
    status: String,
    vpc_id: Option<String>,
    security_group_ids: SecurityGroupIds,
    service_managed: Option<bool>,
}
