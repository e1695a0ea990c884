//! Descriptions of targets, from the rows of the Describe actions: pure. An unreadable row rejects the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::body::Text;
use super::error::Error;
use super::id::{InstanceId, NetworkInterfaceId, SecurityGroupId};
use super::response::ApiResponse;
use super::row::{InstanceRow, NetworkInterfaceRow, SecurityGroupRow, TagList};

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
    /// Whether it is the primary interface of an instance: its groups are those of the instance.
    pub primary: bool,
    /// Whether Karpenter has launched this instance. It does not look at interfaces other than the primary one.
    pub karpenter: bool,
    /// Its tags.
    pub tags: Tags,
}

/// The tags that the two Karpenter providers for Alibaba Cloud put on an instance. Each puts the first one on at launch.
const KARPENTER_TAGS: [&str; 3] = [
    "karpenter.sh/nodepool",
    "karpenter.sh/nodeclaim",
    "karpenter.sh/managed-by",
];

/// The tags of a target. A hash tells whether they have changed, also where they themselves were dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    by_key: BTreeMap<String, String>,
    hash: u64,
}

impl Default for Tags {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl Tags {
    /// These tags.
    #[must_use]
    pub fn new(by_key: BTreeMap<String, String>) -> Self {
        let mut hasher = DefaultHasher::new();
        by_key.hash(&mut hasher);
        let hash = hasher.finish();
        Self { by_key, hash }
    }

    /// Each value by its key.
    #[must_use]
    pub const fn by_key(&self) -> &BTreeMap<String, String> {
        &self.by_key
    }

    /// Whether these are among them, with these values.
    #[must_use]
    pub fn include(&self, wanted: &BTreeMap<String, String>) -> bool {
        let has = |(key, value)| self.by_key.get(key) == Some(value);
        wanted.iter().all(has)
    }

    /// A hash of the tags as they were read.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Frees the memory of the tags. The hash stays.
    pub fn drop_values(&mut self) {
        self.by_key = BTreeMap::new();
    }
}

impl TargetDescription {
    /// The code with which the cloud refuses to change the groups of this interface; `None` if it may be changed.
    #[must_use]
    pub const fn refusal(&self) -> Option<&'static str> {
        if self.primary {
            Some("InvalidOperation.InvalidEniType")
        } else if self.service_managed {
            Some("InvalidOperation.EniServiceManaged")
        } else {
            None
        }
    }
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
pub(super) struct Page<Id, Described = TargetDescription> {
    pub rows: Vec<(Id, Described)>,
    pub next_token: Option<String>,
}

pub(super) fn instances(response: &ApiResponse) -> Result<Page<InstanceId>, Error> {
    let rows = response.rows(&response.body().instances, "Instances.Instance")?;
    page(response, rows, |row: &InstanceRow| {
        let id = row
            .instance_id
            .parse()
            .map_err(|_| response.bad_row("an InstanceId is none"))?;
        let locks = row
            .operation_locks
            .iter()
            .flat_map(|locks| &locks.lock_reason);
        let tags = tags(row.tags.as_ref());
        let is_tagged = |key: &&str| tags.by_key().contains_key(*key);
        let description = TargetDescription {
            state: state(response, &row.status)?,
            vpc_id: row
                .vpc_attributes
                .as_ref()
                .and_then(|vpc| vpc.vpc_id.as_deref())
                .map(|text| short(response, text))
                .transpose()?
                .filter(|text| !text.is_empty()),
            lock_reasons: locks
                .map(|lock| short(response, &lock.lock_reason))
                .collect::<Result<_, _>>()?,
            security_group_ids: groups(response, &row.security_group_ids.security_group_id)?,
            service_managed: false,
            primary: false,
            karpenter: KARPENTER_TAGS.iter().any(is_tagged),
            tags,
        };
        Ok((id, description))
    })
}

pub(super) fn network_interfaces(
    response: &ApiResponse,
) -> Result<Page<NetworkInterfaceId>, Error> {
    let rows = response.rows(
        &response.body().network_interfaces,
        "NetworkInterfaceSets.NetworkInterfaceSet",
    )?;
    page(response, rows, |row: &NetworkInterfaceRow| {
        let id = row
            .network_interface_id
            .parse()
            .map_err(|_| response.bad_row("a NetworkInterfaceId is none"))?;
        let description = TargetDescription {
            state: state(response, &row.status)?,
            vpc_id: row
                .vpc_id
                .as_deref()
                .map(|text| short(response, text))
                .transpose()?
                .filter(|text| !text.is_empty()),
            lock_reasons: Vec::new(),
            security_group_ids: groups(response, &row.security_group_ids.security_group_id)?,
            service_managed: row.service_managed.unwrap_or(false),
            primary: row.kind.as_deref() == Some("Primary"),
            karpenter: false,
            tags: tags(row.tags.as_ref()),
        };
        Ok((id, description))
    })
}

pub(super) fn security_groups(
    response: &ApiResponse,
) -> Result<Page<SecurityGroupId, Tags>, Error> {
    let rows = response.rows(
        &response.body().security_groups,
        "SecurityGroups.SecurityGroup",
    )?;
    page(response, rows, |row: &SecurityGroupRow| {
        let id = row
            .security_group_id
            .parse()
            .map_err(|_| response.bad_row("a SecurityGroupId is none"))?;
        Ok((id, tags(row.tags.as_ref())))
    })
}

/// The tags of a row. One without a key is none, and one without a value has an empty one.
fn tags(list: Option<&TagList>) -> Tags {
    let tags = list.into_iter().flat_map(|list| &list.tag);
    let by_key = tags.filter_map(|tag| {
        let value = tag.tag_value.clone().unwrap_or_default();
        Some((tag.tag_key.clone()?, value))
    });
    Tags::new(by_key.collect())
}

/// Reads the rows one by one. If some rows are unreadable, the error is [`Error::BadRow`]: the other IDs can be read without
/// them. If all are unreadable, the answer itself is bad, and halving the batch would not help.
fn page<Row, Id, Described>(
    response: &ApiResponse,
    rows: &[Option<Row>],
    read: impl Fn(&Row) -> Result<(Id, Described), Error>,
) -> Result<Page<Id, Described>, Error> {
    let mut good = Vec::with_capacity(rows.len());
    let mut first_bad = None;
    for row in rows {
        let readable = row
            .as_ref()
            .ok_or_else(|| response.bad_row("a field is missing or has the wrong type"));
        match readable.and_then(&read) {
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
    short(response, text).map(|text| TargetState::parse(&text))
}

/// A word of the cloud that is shown in a status: state, lock or VPC. A long, secret or unprintable text is rejected.
fn short(response: &ApiResponse, text: &str) -> Result<String, Error> {
    if response.is_word(text) {
        Ok(text.to_owned())
    } else {
        Err(response.bad_row("a text of a row cannot be what it should be"))
    }
}

/// Skips IDs of an older form (`G…`, twelve hex digits): no object can name them. An ID that is almost spelled like ours is
/// an error. If it were skipped, a member would look like a non-member, and its finalizer would be removed without a Leave.
fn groups(response: &ApiResponse, texts: &[String]) -> Result<BTreeSet<SecurityGroupId>, Error> {
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
    match &response.body().next_token {
        Text::Absent => Ok(None),
        Text::Is(token) if token.is_empty() => Ok(None),
        Text::Is(token) if token.len() > 4096 => {
            Err(response.bad("its NextToken is longer than 4096 bytes"))
        }
        Text::Is(token) => Ok(Some(token.clone())),
        Text::Other => Err(response.bad("its NextToken is not a text")),
    }
}
