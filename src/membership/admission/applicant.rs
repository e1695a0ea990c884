//! An object that asks for a pass, and the line in which it may have to wait.

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;

use crate::account::key::CloudAccountId;
use crate::api::SecurityGroupMembership;
use crate::ecs::{AccountUid, Region, Target};
use crate::kubernetes::ObjectUid;

use super::queue::Urgency;

/// The calls that share limits, and the passes that may make them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The cloud account of the edge; `None` while it is unknown.
    pub account_uid: Option<AccountUid>,
    /// Where the calls go; `None` while the account cannot be used. An endpoint that does not answer holds up no other.
    pub cloud: Option<Arc<CloudAccountId>>,
    /// The region of the edge.
    pub region: Region,
}

/// A cloud account and region. A target is of one of them, whatever the endpoints of the calls.
pub(super) type Place = (Option<AccountUid>, Region);

impl Line {
    pub(super) fn place(&self) -> Place {
        (self.account_uid.clone(), self.region.clone())
    }
}

/// An object that asks for a pass.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Its UID.
    pub uid: ObjectUid,
    /// Its name, for the queue of passes.
    pub object: ObjectRef<SecurityGroupMembership>,
    /// Whose calls it would use.
    pub line: Line,
    /// The target of its edge.
    pub target: Target,
    /// How urgent its pass is.
    pub urgency: Urgency,
}
