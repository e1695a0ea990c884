//! Picks the objects of a watch that a user has changed since the watch showed them last. Emits an object once kube's store has it. No
//! I/O.

use std::collections::HashMap;

use futures::{Stream, TryStreamExt as _, stream};
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
    stored(events, move |event| shown.take(event))
}

/// What `pick` picks of the events of a watch, in the moment in which a store of kube that saw the events has their objects.
///
/// Not kube's `applied_objects`: it passes on an object of a list at once, and the store takes a list over at its end. A pass that began
/// between two pages of a list would go by the version from before the list, or find no object, and none would follow.
pub fn stored<K, T>(
    events: impl Stream<Item = Result<Event<K>, Error>>,
    mut pick: impl FnMut(Event<K>) -> Option<T>,
) -> impl Stream<Item = Result<T, Error>> {
    // Also of a list that failed half-way: the next one ends with all of them in the store.
    let mut listed = Vec::new();
    let ready = events.map_ok(move |event| {
        let (is_listed, is_end) = (
            matches!(event, Event::InitApply(_)),
            matches!(event, Event::InitDone),
        );
        let picked = pick(event);
        let now = if is_listed {
            listed.extend(picked);
            Vec::new()
        } else if is_end {
            std::mem::take(&mut listed)
        } else {
            picked.into_iter().collect()
        };
        stream::iter(now.into_iter().map(Ok))
    });
    ready.try_flatten()
}

/// The object of an event that shows one as it is stored.
pub fn applied<K>(event: Event<K>) -> Option<K> {
    match event {
        Event::Apply(object) | Event::InitApply(object) => Some(object),
        Event::Init | Event::InitDone | Event::Delete(_) => None,
    }
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
    use futures::StreamExt as _;
    use k8s_openapi::api::core::v1::Node;
    use kube::runtime::WatchStreamExt as _;
    use kube::runtime::reflector::{self, ObjectRef};
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

    #[tokio::test]
    async fn object_of_a_list_comes_when_the_store_has_it() {
        let (reader, writer) = reflector::store();
        let events = [
            Event::Init,
            Event::InitApply(node("u-1", 1)),
            Event::InitDone,
            // A list that fails, and the next one.
            Event::Init,
            Event::InitApply(node("u-1", 2)),
            Event::Init,
            Event::InitApply(node("u-1", 2)),
            Event::InitDone,
            Event::Apply(node("u-1", 3)),
            Event::Apply(node("u-1", 3)),
        ];
        let events = stream::iter(events.map(Ok)).reflect(writer);
        let stored = changed(events).map(|object| {
            let shown = object.unwrap().metadata.generation;
            let stored = reader.get(&ObjectRef::new("a"));
            assert_eq!(stored.unwrap().metadata.generation, shown);
            shown.unwrap()
        });
        assert_eq!(stored.collect::<Vec<_>>().await, [1, 2, 3]);
    }
}
