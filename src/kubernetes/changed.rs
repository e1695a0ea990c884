//! Picks the objects of a watch that a user has changed since the watch showed them last. No I/O.

use std::collections::HashMap;

use futures::{Stream, TryStreamExt as _};
use kube::ResourceExt;
use kube::runtime::watcher::{Error, Event};

use super::{ObjectUid, trigger_hash};

/// The objects of a watch whose [`trigger_hash`] differs from the one that the watch showed last.
///
/// Not kube's `predicate_filter`: it remembers an object that has gone for an hour, and after etcd was put back the watch may show
/// the very same object again.
pub fn changed<K: ResourceExt>(
    events: impl Stream<Item = Result<Event<K>, Error>>,
) -> impl Stream<Item = Result<K, Error>> {
    let mut shown = Shown::default();
    events.try_filter_map(move |event| std::future::ready(Ok(shown.take(event))))
}

/// The hash of each object that the watch has shown, and in which list.
#[derive(Default)]
struct Shown {
    lists: u64,
    objects: HashMap<ObjectUid, (u64, u64)>,
}

impl Shown {
    fn take<K: ResourceExt>(&mut self, event: Event<K>) -> Option<K> {
        match event {
            Event::Init => self.lists += 1,
            Event::InitApply(object) | Event::Apply(object) => {
                let hash = trigger_hash(&object);
                let before = ObjectUid::of(&object)
                    .and_then(|uid| self.objects.insert(uid, (hash, self.lists)));
                return (before.map(|(hash, _)| hash) != Some(hash)).then_some(object);
            }
            Event::Delete(object) => {
                if let Some(uid) = ObjectUid::of(&object) {
                    self.objects.remove(&uid);
                }
            }
            Event::InitDone => self.objects.retain(|_, (_, list)| *list == self.lists),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    use super::*;

    fn node(uid: &str, generation: i64) -> Node {
        let metadata = json!({"name": "a", "uid": uid, "generation": generation});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn object_is_shown_when_a_user_has_changed_it_and_when_it_has_come_back() {
        let mut shown = Shown::default();
        let mut take = |event| shown.take(event).is_some();
        assert!(!take(Event::Init));
        assert!(take(Event::InitApply(node("u-1", 1))));
        assert!(!take(Event::InitDone));
        assert!(!take(Event::Apply(node("u-1", 1))));
        assert!(take(Event::Apply(node("u-1", 2))));

        assert!(!take(Event::Delete(node("u-1", 2))));
        assert!(take(Event::Apply(node("u-1", 2))), "deleted, and back");

        assert!(!take(Event::Init));
        assert!(!take(Event::InitApply(node("u-1", 2))), "a new list");
        assert!(!take(Event::InitDone));
        assert!(!take(Event::Init));
        assert!(!take(Event::InitDone));
        assert!(take(Event::Apply(node("u-1", 2))), "not listed, and back");
    }
}
