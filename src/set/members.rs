//! The memberships of all sets, in memory, by the set that controls them. They come from the watch of memberships, and from the
//! answers to the set's own writes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use tokio::time::Instant;

use crate::api::SecurityGroupMembership;
use crate::kubernetes::{ObjectUid, WatchScope, version_of};
use crate::membership::object::Object;

use super::known::Sets;
use super::member::{Member, Owner};

/// An answer to a write comes within this (2 minutes).
const LATEST_ANSWER: Duration = Duration::from_secs(120);

/// The memberships of all sets.
#[derive(Debug)]
pub struct Members {
    inner: Mutex<Inner>,
    unlisted: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    by_set: HashMap<ObjectUid, HashMap<ObjectUid, Arc<Member>>>,
    /// Which set, in which namespace, controls a membership.
    sets: HashMap<ObjectUid, ObjectUid>,
    namespaces: HashMap<ObjectUid, Arc<str>>,
    /// When the watch has shown that a membership is gone: an answer to a write that comes later does not bring it back.
    gone: HashMap<ObjectUid, Instant>,
    /// When the last list ended. The watch reports no deletion from before it. So the answer to a request that began earlier is dropped:
    /// the list or the watch reports what that request changed.
    listed: Option<Instant>,
}

impl Members {
    /// None, until this many scopes have been listed.
    #[must_use]
    pub fn new(scopes: usize) -> Self {
        Self {
            inner: Mutex::default(),
            unlisted: AtomicUsize::new(scopes),
        }
    }

    /// Whether every membership has been listed since the start.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.unlisted.load(Ordering::SeqCst) == 0
    }

    /// The memberships of a set, in no order. An object of another namespace that names it as its owner is none.
    #[must_use]
    pub fn of(&self, namespace: &str, set: &ObjectUid) -> Vec<Arc<Member>> {
        let inner = self.lock();
        let members = inner.by_set.get(set).into_iter();
        let members = members.flat_map(HashMap::values);
        let here = members.filter(|member| inner.is_in(namespace, &member.uid));
        here.cloned().collect()
    }

    /// The last version of a membership of a set that is known.
    #[must_use]
    pub fn get(&self, namespace: &str, set: &ObjectUid, uid: &ObjectUid) -> Option<Arc<Member>> {
        let inner = self.lock();
        let member = inner.by_set.get(set)?.get(uid)?;
        inner.is_in(namespace, uid).then(|| Arc::clone(member))
    }

    /// The names in a namespace of the memberships that other sets control: sets of the same name that are gone have such.
    pub(super) fn names_of_others(&self, namespace: &str, set: &ObjectUid) -> HashSet<String> {
        let inner = self.lock();
        let others = inner.by_set.iter().filter(|(of, _)| *of != set);
        let others = others.flat_map(|(_, members)| members.values());
        let here = others.filter(|member| inner.is_in(namespace, &member.uid));
        here.map(|member| member.name.clone()).collect()
    }

    /// Takes the answer of the API server to a request of a set that began at `began`: an object as it is stored.
    pub fn answered(&self, object: &SecurityGroupMembership, began: Instant) {
        let mut inner = self.lock();
        if inner.listed.is_some_and(|listed| began <= listed) {
            return;
        }
        if let Some((owner, member)) = Member::of(object) {
            let namespace = object.namespace().unwrap_or_default();
            if !inner.gone.contains_key(&member.uid) {
                inner.insert(&namespace, &owner, member);
            }
        } else if let Some(uid) = ObjectUid::of(object) {
            let version = version_of(&object.metadata);
            // A user has released it.
            if inner.get(&uid).is_some_and(|known| known.version < version) {
                inner.remove(&uid);
            }
        }
    }

    /// Forgets a membership that is gone.
    pub fn gone(&self, uid: &ObjectUid) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_in(&self, namespace: &str, uid: &ObjectUid) -> bool {
        let of = self.namespaces.get(uid);
        of.is_some_and(|of| **of == *namespace)
    }

    fn get(&self, uid: &ObjectUid) -> Option<&Arc<Member>> {
        self.by_set.get(self.sets.get(uid)?)?.get(uid)
    }

    /// Returns whether the set has to look again. An older version than the known one is passed over.
    fn insert(&mut self, namespace: &str, owner: &Owner, member: Member) -> bool {
        if self
            .sets
            .get(&member.uid)
            .is_some_and(|set| *set != owner.uid)
        {
            self.remove(&member.uid);
        }
        let members = self.by_set.entry(owner.uid.clone()).or_default();
        let known = members.get(&member.uid);
        if known.is_some_and(|known| known.version > member.version) {
            return false;
        }
        let is_news = known.is_none_or(|known| known.is_news(&member));
        let uid = member.uid.clone();
        members.insert(uid.clone(), Arc::new(member));
        self.sets.insert(uid.clone(), owner.uid.clone());
        self.namespaces.insert(uid, namespace.into());
        is_news
    }

    /// The watch has shown that a membership is gone.
    fn went(&mut self, uid: ObjectUid) {
        self.remove(&uid);
        self.gone.retain(|_, at| at.elapsed() < LATEST_ANSWER);
        self.gone.insert(uid, Instant::now());
    }

    /// Returns whether it was the membership of a set.
    fn remove(&mut self, uid: &ObjectUid) -> bool {
        self.namespaces.remove(uid);
        let Some(set) = self.sets.remove(uid) else {
            return false;
        };
        if let Some(members) = self.by_set.get_mut(&set) {
            members.remove(uid);
            if members.is_empty() {
                self.by_set.remove(&set);
            }
        }
        true
    }
}

/// Keeps [`Members`] in step with the watch of memberships in one scope.
pub struct Tap {
    members: Arc<Members>,
    sets: Arc<Sets>,
    scope: WatchScope,
    listing: HashSet<ObjectUid>,
    /// What was known when the list began, each with its version.
    before: HashMap<ObjectUid, u64>,
    listed: bool,
}

impl Tap {
    /// For the watch of this scope.
    #[must_use]
    pub fn new(members: Arc<Members>, sets: Arc<Sets>, scope: WatchScope) -> Self {
        Self {
            members,
            sets,
            scope,
            listing: HashSet::new(),
            before: HashMap::new(),
            listed: false,
        }
    }

    /// Takes an event of the watch.
    pub fn take(&mut self, event: &watcher::Event<Object>) {
        match event {
            watcher::Event::Init => self.begin_list(),
            watcher::Event::InitApply(object) => {
                self.forget_if_put_back(object);
                self.listing.extend(ObjectUid::of(object));
                self.insert(object);
            }
            watcher::Event::Apply(object) => self.insert(object),
            watcher::Event::Delete(object) => self.delete(object),
            watcher::Event::InitDone => self.end_list(),
        }
    }

    fn begin_list(&mut self) {
        self.listing.clear();
        let inner = self.members.lock();
        let members = inner.by_set.values().flatten();
        let known = members.map(|(uid, member)| (uid.clone(), member.version));
        self.before = known.collect();
    }

    /// A list shows what was stored when it began. An older version than was known by then is of a store that was put back to an earlier
    /// state: what is known is not stored any more.
    fn forget_if_put_back(&mut self, object: &Object) {
        let Some(uid) = ObjectUid::of(object) else {
            return;
        };
        let known = self.before.remove(&uid);
        if known.is_some_and(|known| version_of(object.meta()) < known) {
            self.members.lock().remove(&uid);
        }
    }

    fn insert(&self, object: &Object) {
        let namespace = object.namespace().unwrap_or_default();
        let Some((owner, member)) = Member::watched(object) else {
            // Somebody has taken its set off. The set whose it was may need it.
            let uid = ObjectUid::of(object);
            if uid.is_some_and(|uid| self.members.lock().remove(&uid)) {
                self.sets.soon_in(&namespace);
            }
            return;
        };
        let mut members = self.members.lock();
        let former = members.sets.get(&member.uid);
        let is_moved = former.is_some_and(|set| *set != owner.uid);
        let is_news = members.insert(&namespace, &owner, member);
        drop(members);
        if is_moved {
            self.sets.soon_in(&namespace);
        } else if is_news {
            self.sets.soon(&namespace, &owner.name);
        }
    }

    fn delete(&self, object: &Object) {
        let Some(uid) = ObjectUid::of(object) else {
            return;
        };
        self.members.lock().went(uid);
        if let Some((owner, _)) = Member::watched(object) {
            let namespace = object.namespace().unwrap_or_default();
            self.sets.soon(&namespace, &owner.name);
        }
    }

    /// What a new list does not show is gone.
    fn end_list(&mut self) {
        let listing = std::mem::take(&mut self.listing);
        self.before = HashMap::new();
        let mut inner = self.members.lock();
        let gone = inner
            .namespaces
            .iter()
            .filter(|(uid, namespace)| self.scope.contains(namespace) && !listing.contains(*uid));
        let gone: Vec<ObjectUid> = gone.map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            inner.remove(&uid);
        }
        inner.listed = Some(Instant::now());
        drop(inner);
        if !self.listed {
            self.listed = true;
            self.members.unlisted.fetch_sub(1, Ordering::SeqCst);
        }
        self.sets.all_now();
    }
}
