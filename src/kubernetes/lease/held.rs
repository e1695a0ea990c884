//! The Lease as it is stored: its name, its holder, and the note of calls that are still under way.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

/// Name of the Lease: one for each namespace that an operator is installed in.
pub const NAME: &str = "security-group-operator";

/// On the Lease: the process whose Joins and Leaves may still be under way, although it holds the Lease no more.
pub const CALLS_ANNOTATION: &str = "security-group-operator.io/calls-under-way-of";

/// The default of `--lease-duration` (15 s).
pub const DEFAULT_DURATION: Duration = Duration::from_secs(15);

/// The Lease while this process holds it.
#[derive(Debug)]
pub struct Held {
    pub(super) lease: Lease,
    /// When the last renewal that was answered had not been sent yet.
    pub(super) renewed: Instant,
}

impl Held {
    pub(super) const fn new(lease: Lease, renewed: Instant) -> Self {
        Self { lease, renewed }
    }

    /// Whether Joins or Leaves of a process that held the Lease before may still be under way.
    #[must_use]
    pub fn others_may_call(&self) -> bool {
        calls_of(&self.lease).is_some()
    }

    /// Whether a process held the Lease before, and no Join or Leave of it is under way any more.
    #[must_use]
    pub fn others_have_ended(&self) -> bool {
        let transitions = self
            .lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_transitions);
        !self.others_may_call() && transitions.is_some_and(|all| all > 0)
    }
}

pub(super) fn holder_of(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

pub(super) fn calls_of(lease: &Lease) -> Option<&str> {
    let annotations = lease.metadata.annotations.as_ref()?;
    annotations.get(CALLS_ANNOTATION).map(String::as_str)
}

pub(super) fn set_calls_of(lease: &mut Lease, process: Option<&str>) {
    match process {
        Some(process) => {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(CALLS_ANNOTATION.to_owned(), process.to_owned());
        }
        None => {
            if let Some(annotations) = &mut lease.metadata.annotations {
                annotations.remove(CALLS_ANNOTATION);
            }
        }
    }
}
