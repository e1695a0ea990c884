//! How old the operator's view of the memberships may be. In memory only: no I/O, no decisions.
//!
//! A watch shows changes in the order in which the API server stored them. A change that it shows proves that it has shown all that
//! was stored before. So the view is not older than the newest change of which this process knows when it was made, and which every
//! watch has shown: a write of its own, a deletion (by its `deletionTimestamp`), or a list that began.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::kubernetes::{ObjectUid, WatchScope};

use super::object::version_of;
use super::table::ObjectView;

/// A view that is not older needs no list before a Leave (2 s).
pub const VIEW_AGE: Duration = Duration::from_secs(2);

/// How far the clock of the API server may be ahead of ours (1 s). A deletion from further in the future proves nothing.
const CLOCK_AHEAD: SignedDuration = SignedDuration::from_secs(1);

/// What a write has made of an object, as the watch shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// This version.
    Version(u64),
    /// The object is gone. The answer to the write that removed its last finalizer has the version before.
    Deletion,
}

/// The view of all watches. It is as old as the oldest of them.
#[derive(Debug)]
pub struct View(Mutex<Vec<ScopeView>>);

/// The view of one watch.
#[derive(Debug)]
struct ScopeView {
    scope: WatchScope,
    /// All that was stored before then has been shown.
    shown_until: Option<Instant>,
    /// The last write of ours to each object.
    writes: HashMap<ObjectUid, OwnWrite>,
}

/// A write that the watch has not shown yet, or that was not answered yet.
#[derive(Debug)]
struct OwnWrite {
    began: Instant,
    /// What the answer says.
    made: Option<Made>,
    /// What the watch has shown last of the object since.
    shown: Option<Made>,
}

/// A write to an object that has begun.
#[derive(Debug)]
#[must_use]
pub struct BegunWrite<'a> {
    uid: ObjectUid,
    namespace: &'a str,
    began: Instant,
}

impl View {
    /// Nothing was shown yet.
    #[must_use]
    pub fn new(scopes: &[WatchScope]) -> Self {
        let views = scopes.iter().map(|scope| ScopeView {
            scope: scope.clone(),
            shown_until: None,
            writes: HashMap::new(),
        });
        Self(Mutex::new(views.collect()))
    }

    /// Whether the view is at most [`VIEW_AGE`] (2 s) old.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let fresh = |until: Instant| until.elapsed() <= VIEW_AGE;
        let views = self.lock();
        views.iter().all(|view| view.shown_until.is_some_and(fresh))
    }

    /// A write to an object begins.
    pub fn write_began<'a>(&self, uid: ObjectUid, namespace: &'a str) -> BegunWrite<'a> {
        let began = Instant::now();
        for view in self.lock().iter_mut() {
            if view.scope.contains(namespace) {
                let write = OwnWrite {
                    began,
                    made: None,
                    shown: None,
                };
                view.writes.insert(uid.clone(), write);
            }
        }
        BegunWrite {
            uid,
            namespace,
            began,
        }
    }

    /// The write was answered; `None` if it failed, or is not known to have changed the object.
    pub fn write_ended(&self, write: BegunWrite<'_>, made: Option<Made>) {
        let BegunWrite {
            uid,
            namespace,
            began,
        } = write;
        for view in self.lock().iter_mut() {
            if view.scope.contains(namespace) {
                view.update(&uid, |own| {
                    if own.began == began {
                        own.made = made;
                    }
                    made.is_some()
                });
            }
        }
    }

    /// The watch of `scope` has shown that an object was changed or deleted; the table knows it already.
    pub fn shown(&self, scope: &WatchScope, metadata: &ObjectMeta, made: Made, now: Timestamp) {
        let deleted_at = metadata.deletion_timestamp.as_ref();
        let age = deleted_at.map(|at| now.duration_since(at.0));
        for view in self.lock().iter_mut().filter(|view| view.scope == *scope) {
            if let Some(age) = age.filter(|age| *age >= -CLOCK_AHEAD) {
                let age = Duration::try_from(age).unwrap_or_default();
                view.show_until(Instant::now().checked_sub(age));
            }
            let uid = metadata.uid.as_deref().unwrap_or_default().into();
            view.update(&uid, |own| {
                own.shown = Some(made);
                true
            });
        }
    }

    /// A complete list of `scope` that began at `began` is in the table.
    pub fn listed(&self, scope: &WatchScope, began: Instant) {
        for view in self.lock().iter_mut().filter(|view| view.scope == *scope) {
            view.show_until(Some(began));
        }
    }

    /// Drops the writes that are too old to prove anything.
    pub fn drop_old(&self) {
        for view in self.lock().iter_mut() {
            view.writes
                .retain(|_, write| write.began.elapsed() <= VIEW_AGE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ScopeView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScopeView {
    fn show_until(&mut self, moment: Option<Instant>) {
        self.shown_until = self.shown_until.max(moment);
    }

    /// Changes what is known of the last write to an object, and keeps it if `change` says so. A write that was answered and shown
    /// is a proof.
    fn update(&mut self, uid: &ObjectUid, change: impl FnOnce(&mut OwnWrite) -> bool) {
        let Some(write) = self.writes.get_mut(uid) else {
            return;
        };
        let is_kept = change(write);
        let is_shown = write.made.is_some() && write.made == write.shown;
        let began = write.began;
        if is_shown {
            self.show_until(Some(began));
        }
        if is_shown || !is_kept {
            self.writes.remove(uid);
        }
    }
}

/// What a write under the version `before` has made of an object: `None` if it has changed nothing.
#[must_use]
pub fn made(before: Option<&str>, after: &ObjectMeta) -> Option<Made> {
    let version = version_of(after);
    let is_changed = before.is_some() && before != after.resource_version.as_deref();
    (is_changed && version > 0).then_some(Made::Version(version))
}

/// The objects on an edge, as the API server has listed them.
#[derive(Debug)]
pub struct EdgeList {
    objects: Vec<ObjectView>,
    answered: Instant,
}

impl EdgeList {
    /// A list that was answered now.
    #[must_use]
    pub fn new(objects: Vec<ObjectView>) -> Self {
        Self {
            objects,
            answered: Instant::now(),
        }
    }

    /// Whether it is new enough for a Leave.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.answered.elapsed() <= VIEW_AGE
    }

    /// Adds the objects that memory does not know, or knows in an older version.
    pub fn add_to(&self, known: &mut Vec<ObjectView>) {
        for listed in &self.objects {
            match known.iter_mut().find(|view| view.uid == listed.uid) {
                Some(view) if view.resource_version < listed.resource_version => {
                    *view = listed.clone();
                }
                Some(_) => {}
                None => known.push(listed.clone()),
            }
        }
        known.sort_by(|a, b| a.age().cmp(&b.age()));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn metadata(uid: &str, deleted: Option<i64>) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            deletion_timestamp: deleted.map(|second| Time(Timestamp::from_second(second).unwrap())),
            ..ObjectMeta::default()
        }
    }

    fn one(namespace: &str) -> WatchScope {
        WatchScope::Namespace(namespace.to_owned())
    }

    async fn after(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    /// A minute after its start.
    async fn view(scopes: &[WatchScope]) -> View {
        after(60_000).await;
        View::new(scopes)
    }

    #[tokio::test(start_paused = true)]
    async fn own_write_that_is_shown_proves_the_time_at_which_it_began() {
        for shown_first in [false, true] {
            let view = view(&[WatchScope::All]).await;
            let write = view.write_began("a".into(), "team");
            after(1_000).await;
            let show = || {
                view.shown(
                    &WatchScope::All,
                    &metadata("a", None),
                    Made::Version(7),
                    NOW,
                );
            };
            if shown_first {
                show();
                assert!(!view.is_fresh(), "no answer yet");
            }
            view.write_ended(write, Some(Made::Version(7)));
            if !shown_first {
                assert!(!view.is_fresh(), "not shown yet");
                show();
            }
            assert!(view.is_fresh());
            after(1_000).await;
            assert!(view.is_fresh());
            after(1).await;
            assert!(!view.is_fresh(), "2.001 s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_versions_other_objects_and_failed_writes_prove_nothing() {
        let view = view(&[WatchScope::All]).await;
        let all = &WatchScope::All;
        let write = view.write_began("a".into(), "team");
        view.shown(all, &metadata("a", None), Made::Version(6), NOW);
        view.shown(all, &metadata("b", None), Made::Version(7), NOW);
        view.write_ended(write, Some(Made::Version(7)));
        assert!(!view.is_fresh());
        for made in [None, Some(Made::Deletion)] {
            let write = view.write_began("a".into(), "team");
            view.shown(all, &metadata("a", None), Made::Version(8), NOW);
            view.write_ended(write, made);
            assert!(!view.is_fresh());
        }
        // A user's own deletion, before ours was refused.
        let write = view.write_began("a".into(), "team");
        view.shown(all, &metadata("a", None), Made::Deletion, NOW);
        view.write_ended(write, None);
        assert!(!view.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn answer_of_an_earlier_write_says_nothing_of_the_last() {
        let view = view(&[WatchScope::All]).await;
        let first = view.write_began("a".into(), "team");
        after(5_000).await;
        let second = view.write_began("a".into(), "team");
        view.write_ended(first, Some(Made::Version(7)));
        view.shown(
            &WatchScope::All,
            &metadata("a", None),
            Made::Version(7),
            NOW,
        );
        assert!(!view.is_fresh());
        view.write_ended(second, Some(Made::Version(8)));
        assert!(!view.is_fresh());
    }

    /// G1: a watch that was silent for 200 s shows a deletion.
    #[tokio::test(start_paused = true)]
    async fn deletion_proves_the_time_of_its_timestamp() {
        for (second, is_proof) in [
            (-200, false),
            (-3, false),
            (-2, true),
            (0, true),
            (1, true),
            (2, false),
        ] {
            let view = view(&[WatchScope::All]).await;
            let deleted = metadata("a", Some(second));
            view.shown(&WatchScope::All, &deleted, Made::Version(7), NOW);
            assert_eq!(view.is_fresh(), is_proof, "{second}");
        }
    }

    /// G7: the view is as old as the oldest watch.
    #[tokio::test(start_paused = true)]
    async fn every_watch_must_be_fresh() {
        let scopes = [one("a"), one("b")];
        let view = view(&scopes).await;
        view.shown(&scopes[0], &metadata("a", Some(0)), Made::Version(7), NOW);
        assert!(!view.is_fresh());
        let write = view.write_began("b".into(), "b");
        view.write_ended(write, Some(Made::Deletion));
        view.shown(&scopes[0], &metadata("b", None), Made::Deletion, NOW);
        assert!(!view.is_fresh(), "another watch");
        view.shown(&scopes[1], &metadata("b", None), Made::Deletion, NOW);
        assert!(view.is_fresh());
        after(3_000).await;
        view.listed(&scopes[0], Instant::now());
        assert!(!view.is_fresh());
        view.listed(&scopes[1], Instant::now());
        assert!(view.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn write_in_one_namespace_proves_nothing_of_another_watch() {
        let scopes = [one("a"), one("b")];
        let view = view(&scopes).await;
        view.listed(&scopes[0], Instant::now());
        let write = view.write_began("a".into(), "a");
        view.write_ended(write, Some(Made::Version(7)));
        view.shown(&scopes[1], &metadata("a", None), Made::Version(7), NOW);
        assert!(!view.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn list_proves_the_time_at_which_it_began() {
        let view = view(&[WatchScope::All]).await;
        let began = Instant::now();
        after(2_000).await;
        view.listed(&WatchScope::All, began);
        assert!(view.is_fresh());
        after(1).await;
        assert!(!view.is_fresh(), "2.001 s");
    }

    fn listed(uid: &str, version: u64, deleting: bool) -> ObjectView {
        let mut object = serde_json::json!({
            "apiVersion": "v1", "kind": "SecurityGroupMembership",
            "metadata": {"name": uid, "namespace": "team", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {
                "region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1",
                "accountRef": {"name": "default"},
            },
        });
        if deleting {
            object["metadata"]["deletionTimestamp"] = serde_json::json!("2026-01-01T00:00:00Z");
        }
        let object = crate::watched::Watched(Ok(serde_json::from_value(object).unwrap()));
        ObjectView::of_listed(&object).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn list_of_an_edge_counts_for_two_seconds_and_shows_what_memory_does_not_know() {
        let list = EdgeList::new(vec![
            listed("a", 5, true),
            listed("b", 5, true),
            listed("c", 1, false),
        ]);
        after(2_000).await;
        assert!(list.is_fresh());
        after(1).await;
        assert!(!list.is_fresh(), "2.001 s");
        let mut known = vec![listed("a", 4, false), listed("b", 6, false)];
        list.add_to(&mut known);
        let found: Vec<_> = known
            .iter()
            .map(|view| (view.uid.as_str(), view.deleting))
            .collect();
        assert_eq!(found, [("a", true), ("b", false), ("c", false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn write_that_changes_nothing_is_no_proof() {
        let answered = |version: &str| ObjectMeta {
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        assert_eq!(made(Some("7"), &answered("7")), None);
        assert_eq!(made(None, &answered("8")), None, "by whomever");
        assert_eq!(made(Some("7"), &answered("8")), Some(Made::Version(8)));
    }

    #[tokio::test(start_paused = true)]
    async fn old_writes_are_dropped() {
        let view = view(&[WatchScope::All]).await;
        let _old = view.write_began("a".into(), "team");
        after(2_001).await;
        let _new = view.write_began("b".into(), "team");
        view.drop_old();
        assert_eq!(view.lock()[0].writes.len(), 1);
    }
}
