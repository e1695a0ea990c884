//! Requests a pass over an object for reasons outside its own watch: its account changed, a sibling was deleted, a scan
//! found a difference. Sends only; never blocks.

use futures::Stream;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;

use crate::api::SecurityGroupMembership;
use crate::kubernetes::WatchScope;

/// One queue per controller. A controller watches one namespace or all.
#[derive(Clone, Debug)]
pub struct ReconcileQueue {
    queues: Vec<(
        WatchScope,
        UnboundedSender<ObjectRef<SecurityGroupMembership>>,
    )>,
}

impl ReconcileQueue {
    /// The queues for these scopes, and the receiving end of each.
    #[must_use]
    pub fn new(
        scopes: &[WatchScope],
    ) -> (
        Self,
        Vec<impl Stream<Item = ObjectRef<SecurityGroupMembership>> + Send + 'static + use<>>,
    ) {
        let mut queues = Vec::new();
        let mut receivers: Vec<UnboundedReceiver<ObjectRef<SecurityGroupMembership>>> = Vec::new();
        for scope in scopes {
            let (sender, receiver) = unbounded();
            queues.push((scope.clone(), sender));
            receivers.push(receiver);
        }
        (Self { queues }, receivers)
    }

    /// Requests a pass over `object` from every controller that watches its namespace.
    pub fn enqueue(&self, object: &ObjectRef<SecurityGroupMembership>) {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        for (scope, queue) in &self.queues {
            if scope.contains(namespace) {
                // Closed only while the process shuts down.
                let _ = queue.unbounded_send(object.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[test]
    fn enqueue_reaches_only_watches_of_the_namespace() {
        let one = |namespace: &str| WatchScope::Namespace(namespace.to_owned());
        let scopes = [WatchScope::All, one("team"), one("other")];
        let (queue, mut queues) = ReconcileQueue::new(&scopes);
        queue.enqueue(&ObjectRef::new("m").within("team"));
        let asked = queues.iter_mut().map(|queue| {
            let object = queue.next().now_or_never()??;
            Some((object.namespace?, object.name))
        });
        let m = Some(("team".to_owned(), "m".to_owned()));
        assert_eq!(asked.collect::<Vec<_>>(), [m.clone(), m, None]);
    }
}
