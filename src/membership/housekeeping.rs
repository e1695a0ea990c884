//! What is due once per second, and what follows from a changed account or namespace. Enqueues only: makes no calls and writes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::account::change::Change;
use crate::account::directory::Directory;
use crate::account::uses::Uses;

use super::context::Context;
use super::overdue::Search;
use super::queue::ReconcileQueue;
use super::table::ObjectTable;

/// Once per second until dropped: evicts what has expired, and enqueues the objects with a foreign status and those whose target no
/// read has shown for long. Counts every 5 seconds who uses each account.
pub async fn run(context: Arc<Context>) {
    let mut overdue = Search::default();
    let mut second = 0_u32;
    loop {
        context.telemetry.went_on("housekeeping");
        context.directory.evict_expired();
        context.table.drop_old();
        context.view.drop_old();
        for object in context.table.foreign_statuses() {
            context.queue.enqueue(&object);
        }
        overdue.go_on(&context);
        if second.is_multiple_of(USES_PERIOD) && context.is_listed() {
            context.directory.set_uses(Uses {
                by_account: context.table.account_uses(),
                of_all_namespaces: context.watches_all(),
            });
            let group_tags = &context.directory.group_tags;
            group_tags.retain(|account| context.table.groups_of(account));
        }
        second = second.wrapping_add(1);
        tokio::time::sleep(PERIOD).await;
    }
}

const PERIOD: Duration = Duration::from_secs(1);

/// Every how many seconds the users of all accounts are counted.
const USES_PERIOD: u32 = 5;

/// Enqueues the objects that each change concerns, until all senders are dropped. `access_changed` is called when an account or a
/// grant may have become usable.
pub async fn follow_accounts(
    table: Arc<ObjectTable>,
    directory: Arc<Directory>,
    queue: ReconcileQueue,
    mut changes: UnboundedReceiver<Change>,
    access_changed: impl Fn(),
) {
    while let Some(change) = changes.recv().await {
        if matches!(
            change,
            Change::Account(_) | Change::GroupTags(..) | Change::NamespaceLabels(_)
        ) {
            access_changed();
        }
        let concerned = match change {
            Change::Account(key) => table.of_account(&key),
            Change::Key(key) => table.unsettled_of_account(&key, None),
            Change::KeyRefused => {
                directory.read_secrets_again();
                Vec::new()
            }
            Change::Answers { cloud, region } => {
                let sessions = directory.sessions().into_iter();
                let accounts = sessions.filter(|(_, session)| session.limits().id == cloud);
                accounts
                    .flat_map(|(key, _)| table.unsettled_of_account(&key, Some(&region)))
                    .collect()
            }
            Change::GroupTags(place, groups) => table.of_groups(&place, &groups),
            Change::NamespaceLabels(namespace) => table.in_namespace(&namespace),
        };
        for object in concerned {
            queue.enqueue(&object);
        }
    }
}
