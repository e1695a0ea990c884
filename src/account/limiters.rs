//! What the account objects of one cloud account share: the limits of its calls, and which regions answer. The cloud limits the
//! calls of a cloud account, whichever key signs them and whichever account object names it: both outlive keys, Secrets and edits
//! of an account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::ecs::batch::Pace;
use crate::ecs::limit::CallLimiter;
use crate::ecs::{Action, Region};

use super::breaker::Breakers;
use super::change::Change;
use super::key::CloudAccountId;

/// The limits of the calls of one cloud account.
#[derive(Debug)]
pub struct CloudLimits {
    /// Whose calls they are.
    pub id: Arc<CloudAccountId>,
    /// How many calls the cloud admits.
    pub limiter: Arc<CallLimiter>,
    /// Which regions answer.
    pub breakers: Arc<Breakers>,
    /// How the reads go through each API in each region.
    paces: Mutex<HashMap<(Region, Action), Arc<Pace>>>,
    changes: UnboundedSender<Change>,
}

impl CloudLimits {
    /// No limit is known, and no region was called yet. `changes` receives the regions that answer again.
    #[must_use]
    pub fn new(id: CloudAccountId, clock: &Clock, changes: UnboundedSender<Change>) -> Self {
        Self {
            limiter: Arc::new(CallLimiter::new(clock.clone())),
            breakers: Arc::new(Breakers::new(id.endpoints.differ_by_region())),
            id: Arc::new(id),
            paces: Mutex::default(),
            changes,
        }
    }

    /// How the reads go through this API in this region.
    #[must_use]
    pub fn pace(&self, region: &Region, action: Action) -> Arc<Pace> {
        let mut paces = self.lock_paces();
        Arc::clone(paces.entry((region.clone(), action)).or_default())
    }

    fn lock_paces(&self) -> MutexGuard<'_, HashMap<(Region, Action), Arc<Pace>>> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that a region answers again, so that the objects which were refused a call try again.
    pub fn report_answer(&self, region: &Region) {
        // Closed only while the process shuts down.
        let _ = self.changes.send(Change::Answers {
            cloud: Arc::clone(&self.id),
            region: region.clone(),
        });
    }

    /// Reports that the cloud has refused a key, so that its Secret is read again at once.
    pub fn report_refusal(&self) {
        // Closed only while the process shuts down.
        let _ = self.changes.send(Change::KeyRefused);
    }

    /// Forgets what is known of the regions for which `keep` is false: no object names them any more.
    pub fn retain_regions(&self, keep: impl Fn(&Region) -> bool) {
        self.limiter.retain_regions(&keep);
        self.breakers.retain_regions(&keep);
        self.lock_paces().retain(|(region, _), _| keep(region));
    }
}

/// The limits of each cloud account. They go with the last session that uses them.
#[derive(Debug, Default)]
pub struct Limiters(Mutex<HashMap<CloudAccountId, Weak<CloudLimits>>>);

impl Limiters {
    /// The limits for the calls of a cloud account at its endpoints.
    #[must_use]
    pub fn of(
        &self,
        id: CloudAccountId,
        clock: &Clock,
        changes: &UnboundedSender<Change>,
    ) -> Arc<CloudLimits> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limits) = known.get(&id).and_then(Weak::upgrade) {
            return limits;
        }
        known.retain(|_, limits| limits.strong_count() > 0);
        let limits = Arc::new(CloudLimits::new(id.clone(), clock, changes.clone()));
        known.insert(id, Arc::downgrade(&limits));
        limits
    }
}

/// The limits of a cloud account that nothing else uses.
#[cfg(test)]
impl CloudLimits {
    pub(crate) fn of_test(uid: &str) -> Arc<Self> {
        let id = CloudAccountId {
            uid: uid.into(),
            endpoints: crate::ecs::Endpoints::default(),
        };
        let changes = tokio::sync::mpsc::unbounded_channel().0;
        Arc::new(Self::new(id, &Clock::system(), changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::Endpoints;

    #[test]
    fn cloud_account_has_one_limiter_while_it_is_used() {
        let limiters = Limiters::default();
        let changes = tokio::sync::mpsc::unbounded_channel().0;
        let of = |uid: &str, ecs, sts| {
            let endpoints = Endpoints::parse(ecs, sts, false).unwrap();
            let uid = uid.into();
            limiters.of(
                CloudAccountId { uid, endpoints },
                &Clock::system(),
                &changes,
            )
        };
        let first = of("1", None, None);
        assert!(Arc::ptr_eq(&first, &of("1", None, None)));
        let default = Some("https://sts.aliyuncs.com");
        assert!(Arc::ptr_eq(&first, &of("1", None, default)));
        assert!(!Arc::ptr_eq(&first, &of("2", None, None)));
        let elsewhere = Some("https://ecs.example.com");
        assert!(!Arc::ptr_eq(&first, &of("1", elsewhere, None)));
        let another = Some("https://sts.example.com");
        assert!(!Arc::ptr_eq(&first, &of("1", None, another)));
        assert_eq!(
            limiters.0.lock().unwrap().len(),
            2,
            "unused limiters are dropped"
        );
    }
}
