//! The order of objects that wait: one namespace after the other, in each by urgency, then first come, first served. What is settled or was
//! refused waits for all others. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::ecs::Action;
use crate::kubernetes::ObjectUid;

/// How urgent a pass is, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A user has changed something.
    User,
    /// Somebody else has changed something in the cloud.
    Repair,
    /// The object was Ready for its generation.
    Settled,
    /// The cloud has refused the call before.
    Refused,
}

impl Urgency {
    /// Which objects of all namespaces go before which. New objects of one namespace keep no repair of another one waiting.
    const fn rank(self) -> u8 {
        match self {
            Self::User | Self::Repair => 0,
            Self::Settled => 1,
            Self::Refused => 2,
        }
    }
}

/// The place of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// How urgent its pass is.
    pub urgency: Urgency,
    /// Number of its arrival: a lower one is served first.
    pub number: u64,
    /// The call that it waits for; `None` if it waits for a slot only.
    pub needs: Option<Action>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its UID.
    pub uid: ObjectUid,
}

/// Objects that wait for a slot, or for a call.
#[derive(Debug, Default)]
pub struct WaitingObjects {
    /// By call and rank.
    queues: BTreeMap<(Option<Action>, u8), RoundRobin>,
}

#[derive(Debug, Default)]
struct RoundRobin {
    namespaces: BTreeMap<Arc<str>, BTreeMap<(Urgency, u64), ObjectUid>>,
    /// The namespace that was served last.
    last: Option<Arc<str>>,
    len: usize,
}

impl WaitingObjects {
    /// Adds an object.
    pub fn insert(&mut self, order: Order) {
        let key = (order.needs, order.urgency.rank());
        let queue = self.queues.entry(key).or_default();
        let namespace = queue.namespaces.entry(order.namespace).or_default();
        let place = (order.urgency, order.number);
        queue.len += usize::from(namespace.insert(place, order.uid).is_none());
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, order: &Order) {
        let key = (order.needs, order.urgency.rank());
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        queue.remove(&order.namespace, (order.urgency, order.number));
        if queue.len == 0 {
            self.queues.remove(&key);
        }
    }

    /// Removes and returns the next object that needs this call.
    pub fn pop(&mut self, needs: Option<Action>) -> Option<Order> {
        let mut queues = self.queues.range_mut((needs, 0)..=(needs, u8::MAX));
        let (_, queue) = queues.next()?;
        let namespace = queue.next_namespace()?;
        let (place, uid) = queue.namespaces.get(&namespace)?.first_key_value()?;
        let (urgency, number) = *place;
        let order = Order {
            urgency,
            number,
            needs,
            namespace: Arc::clone(&namespace),
            uid: uid.clone(),
        };
        queue.last = Some(namespace);
        self.remove(&order);
        Some(order)
    }

    /// Number of objects that need this call.
    pub fn len_for(&self, needs: Option<Action>) -> usize {
        let all = self.queues.iter();
        all.filter(|((call, _), _)| *call == needs)
            .map(|(_, queue)| queue.len)
            .sum()
    }

    /// Whether no object waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The calls that objects need.
    pub fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = self.queues.keys().filter_map(|(needs, _)| *needs).collect();
        actions.dedup();
        actions
    }
}

impl RoundRobin {
    fn next_namespace(&self) -> Option<Arc<str>> {
        let after = match &self.last {
            Some(last) => Bound::Excluded(Arc::clone(last)),
            None => Bound::Unbounded,
        };
        let next = self.namespaces.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.namespaces.first_key_value());
        next.map(|(namespace, _)| Arc::clone(namespace))
    }

    fn remove(&mut self, namespace: &Arc<str>, place: (Urgency, u64)) {
        let Some(objects) = self.namespaces.get_mut(namespace) else {
            return;
        };
        self.len -= usize::from(objects.remove(&place).is_some());
        if objects.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(namespace: &str, number: u64, urgency: Urgency) -> Order {
        Order {
            urgency,
            number,
            needs: None,
            namespace: namespace.into(),
            uid: format!("{namespace}-{number}").as_str().into(),
        }
    }

    fn popped(waiting: &mut WaitingObjects) -> Vec<String> {
        std::iter::from_fn(|| waiting.pop(None))
            .map(|order| order.uid.as_str().to_owned())
            .collect()
    }

    #[test]
    fn namespaces_take_turns_and_urgent_objects_of_each_go_first() {
        let mut waiting = WaitingObjects::default();
        for number in 1..=3 {
            waiting.insert(order("a", number, Urgency::User));
        }
        waiting.insert(order("b", 4, Urgency::User));
        waiting.insert(order("c", 5, Urgency::Refused));
        waiting.insert(order("c", 6, Urgency::Repair));
        waiting.insert(order("c", 7, Urgency::User));
        waiting.remove(&order("a", 2, Urgency::User));
        // Not there.
        waiting.remove(&order("a", 2, Urgency::User));
        waiting.remove(&order("z", 9, Urgency::Settled));
        assert_eq!(waiting.len_for(None), 6);
        let served = ["a-1", "b-4", "c-7", "a-3", "c-6", "c-5"];
        assert_eq!(popped(&mut waiting), served);
        assert_eq!(waiting.len_for(None), 0);
        assert!(waiting.queues.is_empty());
    }

    #[test]
    fn each_call_has_a_queue_of_its_own() {
        let mut waiting = WaitingObjects::default();
        let join = Some(Action::JoinSecurityGroup);
        for needs in [None, join] {
            for urgency in [Urgency::Settled, Urgency::User] {
                waiting.insert(Order {
                    needs,
                    ..order("a", 1, urgency)
                });
            }
        }
        assert_eq!(waiting.actions(), [Action::JoinSecurityGroup]);
        assert_eq!(
            waiting.pop(join).map(|order| order.urgency),
            Some(Urgency::User)
        );
        assert_eq!((waiting.len_for(join), waiting.len_for(None)), (1, 2));
        assert_eq!(waiting.pop(Some(Action::LeaveSecurityGroup)), None);
    }
}
