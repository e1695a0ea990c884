//! The tags of the groups that grants by tags are about, as the cloud has last shown them. In memory only: makes no call.
//!
//! A group is read from the first question about it on, for as long as an object names it and a grant by tags covers the object.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ecs::{Region, SecurityGroupId};

use super::super::key::{AccountKey, AccountRegion};

/// What is known of the tags of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupTags {
    /// They have not been read yet.
    Unread,
    /// The cloud has shown them. A group that it does not list has none.
    Known(BTreeMap<String, String>),
    /// They cannot be read.
    Unreadable(TagsUnread),
}

/// Why the tags of groups cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsUnread {
    /// Whether a person must act.
    pub stalled: bool,
    /// What failed, what to do, and what happens next.
    pub message: String,
}

/// Scan periods for which tags count that cannot be read again. As long as a target that cannot be read keeps its status.
const KEPT_PERIODS: u32 = 10;

/// How long a group is read that only sets name: a set that is refused asks again every 5 minutes.
const ASKED_FOR: Duration = Duration::from_secs(10 * 60);

/// How long what is known of groups is kept for the passes that follow a change of the grants.
const LET_GO_AFTER: Duration = Duration::from_secs(60);

/// The groups of all accounts.
#[derive(Debug, Default)]
pub struct Groups {
    known: Mutex<HashMap<AccountRegion, HashMap<SecurityGroupId, Seen>>>,
    asked: Notify,
}

/// What is known of one group.
#[derive(Debug)]
struct Seen {
    tags: Option<BTreeMap<String, String>>,
    /// Until when they count.
    tags_until: Instant,
    trouble: Option<TagsUnread>,
    asked: Instant,
    /// When the group is forgotten unless it is asked for again: the grants have changed.
    let_go_at: Option<Instant>,
    /// When the group is read again; `None` while it is read.
    next_read: Option<Instant>,
}

impl Seen {
    fn tags(&self) -> GroupTags {
        match (&self.tags, &self.trouble) {
            (Some(tags), _) if Instant::now() < self.tags_until => GroupTags::Known(tags.clone()),
            (_, Some(trouble)) => GroupTags::Unreadable(trouble.clone()),
            (_, None) => GroupTags::Unread,
        }
    }
}

impl Groups {
    /// What is known of a group. From now on it is read.
    pub(super) fn ask(&self, place: &AccountRegion, group: &SecurityGroupId) -> GroupTags {
        let now = Instant::now();
        let mut known = self.lock();
        if let Some(seen) = known.get_mut(place).and_then(|of| of.get_mut(group)) {
            seen.asked = now;
            seen.let_go_at = None;
            return seen.tags();
        }
        let seen = Seen {
            tags: None,
            tags_until: now,
            trouble: None,
            asked: now,
            let_go_at: None,
            next_read: Some(now),
        };
        let of_place = known.entry(place.clone()).or_default();
        of_place.insert(group.clone(), seen);
        self.asked.notify_one();
        GroupTags::Unread
    }

    /// What is known of a group.
    pub(super) fn peek(&self, place: &AccountRegion, group: &SecurityGroupId) -> GroupTags {
        let known = self.lock();
        let seen = known.get(place).and_then(|of| of.get(group));
        seen.map_or(GroupTags::Unread, Seen::tags)
    }

    /// Waits until a group is asked for that was not known.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether no group is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns the groups that are due, and those that become due within half a period: they share calls. It returns a group again only
    /// after the read of the group was stored or postponed. A group of which nothing is known shares no call with the others: the cloud
    /// may refuse the key that group, and it refuses the whole call then.
    pub fn take_due(&self, period: Duration) -> Vec<(AccountRegion, Vec<SecurityGroupId>)> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (place, groups) in self.lock().iter_mut() {
            let is_due = |seen: &Seen, at: Instant| {
                seen.let_go_at.is_none() && seen.next_read.is_some_and(|next_read| next_read <= at)
            };
            if !groups.values().any(|seen| is_due(seen, now)) {
                continue;
            }
            let (mut known, mut unknown) = (Vec::new(), Vec::new());
            for (group, seen) in groups.iter_mut() {
                if is_due(seen, now + period / 2) {
                    seen.next_read = None;
                    let list = if seen.tags.is_some() {
                        &mut known
                    } else {
                        &mut unknown
                    };
                    list.push(group.clone());
                }
            }
            let lists = [known, unknown].into_iter().filter(|list| !list.is_empty());
            due.extend(lists.map(|list| (place.clone(), list)));
        }
        due
    }

    /// Stores what a read that began at `began` has shown. Returns the groups of which something else is known now.
    pub fn store(
        &self,
        place: &AccountRegion,
        groups: &[SecurityGroupId],
        (began, period): (Instant, Duration),
        result: &Result<HashMap<SecurityGroupId, BTreeMap<String, String>>, Failed>,
    ) -> HashSet<SecurityGroupId> {
        let mut known = self.lock();
        let mut changed = HashSet::new();
        let Some(of_place) = known.get_mut(place) else {
            return changed;
        };
        for group in groups {
            let Some(seen) = of_place.get_mut(group) else {
                continue;
            };
            let before = seen.tags();
            seen.next_read = Some(began + period);
            match result {
                Ok(shown) => {
                    seen.tags = Some(shown.get(group).cloned().unwrap_or_default());
                    seen.tags_until = began + period * KEPT_PERIODS;
                    seen.trouble = None;
                }
                Err(Failed { trouble, ends }) => {
                    if *ends {
                        seen.tags = None;
                    }
                    seen.trouble = Some(trouble.clone());
                }
            }
            if seen.tags() != before {
                changed.insert(group.clone());
            }
        }
        changed
    }

    /// Has groups that were not read be read at this time.
    pub fn postpone(&self, place: &AccountRegion, groups: &[SecurityGroupId], at: Instant) {
        let mut known = self.lock();
        let of_place = known.get_mut(place).into_iter().flatten();
        for (_, seen) in of_place.filter(|(group, _)| groups.contains(group)) {
            seen.next_read = Some(at);
        }
    }

    /// Forgets the groups that no object names any more.
    pub fn retain(&self, named: impl Fn(&AccountKey) -> HashSet<(Region, SecurityGroupId)>) {
        let now = Instant::now();
        self.lock().retain(|place, groups| {
            let named = named(&place.account);
            groups.retain(|group, seen| {
                let is_named = named.contains(&(place.region.clone(), group.clone()));
                let was_asked = now.saturating_duration_since(seen.asked) < ASKED_FOR;
                seen.let_go_at.map_or(is_named || was_asked, |at| now < at)
            });
            !groups.is_empty()
        });
    }

    /// Reads the groups of an account no more, unless they are asked for again: its grants have changed.
    pub(super) fn let_go(&self, account: &AccountKey) {
        let at = Instant::now() + LET_GO_AFTER;
        let mut known = self.lock();
        let of_account = known
            .iter_mut()
            .filter(|(place, _)| place.account == *account);
        for seen in of_account.flat_map(|(_, groups)| groups.values_mut()) {
            seen.let_go_at.get_or_insert(at);
        }
    }

    /// Forgets the groups of an account.
    pub(super) fn forget(&self, account: &AccountKey) {
        self.lock().retain(|place, _| place.account != *account);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountRegion, HashMap<SecurityGroupId, Seen>>> {
        // No code panics while it holds this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub trouble: TagsUnread,
    /// Whether it ends what was known: the cloud has refused the read.
    pub ends: bool,
}

#[cfg(test)]
mod tests {
    use crate::api::membership::AccountKind;

    use super::*;

    /// The cloud may refuse the key a group, and with it the whole call.
    #[tokio::test(start_paused = true)]
    async fn groups_of_which_nothing_is_known_share_no_call_with_others() {
        let period = Duration::from_secs(60);
        let groups = Groups::default();
        let place = AccountRegion {
            account: AccountKey {
                kind: AccountKind::CloudAccount,
                namespace: "team".to_owned(),
                name: "own".to_owned(),
            },
            region: "cn-hangzhou".parse().unwrap(),
        };
        let [known, unknown] = ["sg-known", "sg-new"].map(|id| id.parse().unwrap());
        let due = || {
            let lists = groups.take_due(period).into_iter();
            lists.map(|(_, list)| list).collect::<Vec<_>>()
        };
        assert_eq!(groups.ask(&place, &known), GroupTags::Unread);
        assert_eq!(due(), [vec![known.clone()]]);
        let times = (Instant::now(), period);
        let shown = Ok(HashMap::new());
        groups.store(&place, std::slice::from_ref(&known), times, &shown);
        tokio::time::advance(period).await;
        assert_eq!(groups.ask(&place, &unknown), GroupTags::Unread);
        assert_eq!(due(), [vec![known], vec![unknown]]);
        assert!(due().is_empty(), "they are being read");
    }
}
