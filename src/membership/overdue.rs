//! Finds what no read has shown for long: requests a pass over its objects, which says so, and counts it for the metrics and for
//! the accounts. Enqueues only: makes no calls and writes nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::account::key::{AccountKey, AccountRegion};
use crate::api::SecurityGroupMembership;

use super::context::Context;

/// Scan periods after which a target that no read has shown is counted.
const LATE_PERIODS: u32 = 3;

/// Longest time between two searches (10 s). A search looks at every object.
const SEARCH_PERIOD: Duration = Duration::from_secs(10);

/// Objects that are enqueued per second: when a whole region cannot be read, their statuses are written at this pace.
const PER_SECOND: usize = 50;

/// The search for what is overdue.
#[derive(Debug, Default)]
pub(super) struct Search {
    found: VecDeque<ObjectRef<SecurityGroupMembership>>,
    last: Option<Instant>,
}

impl Search {
    /// To be called once per second.
    pub fn go_on(&mut self, context: &Context) {
        let period = SEARCH_PERIOD.min(context.read_periods.scan);
        let is_due = self.last.is_none_or(|last| last.elapsed() >= period);
        if is_due && self.found.is_empty() {
            self.last = Some(Instant::now());
            self.search(context);
        }
        for object in self.found.drain(..self.found.len().min(PER_SECOND)) {
            context.queue.enqueue(&object);
        }
    }

    fn search(&mut self, context: &Context) {
        let periods = &context.read_periods;
        let late = periods.scan * LATE_PERIODS;
        let overdue = context.table.overdue(periods.not_observed_after(), late);
        self.found.extend(overdue.objects);
        let sessions = context.directory.sessions();
        let mut late = HashMap::<AccountKey, usize>::new();
        for (AccountRegion { account, region }, targets) in overdue.late {
            // A user may have invented the region: that says nothing of the account.
            let exists = region.known_name().is_some()
                || sessions
                    .get(&account)
                    .is_some_and(|session| session.limits().breakers.has_answered(&region));
            *late.entry(account).or_default() += if exists { targets } else { 0 };
        }
        for (account, session) in sessions {
            session.report_unread(late.get(&account).is_some_and(|targets| *targets > 0));
        }
        *context.late_targets() = late;
    }
}
