//! Runs the controllers of all kinds and scopes, in the order in which they need each other.

use std::sync::Arc;

use futures::channel::mpsc::UnboundedReceiver;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use tokio::sync::oneshot;

use crate::account;
use crate::account::directory::AccountKinds;
use crate::api::{CloudAccount, ClusterCloudAccount, SecurityGroupMembership};
use crate::args::Settings;
use crate::kubernetes::WatchScope;
use crate::membership::object::Object;
use crate::membership::{self, housekeeping};
use crate::telemetry::Telemetry;
use crate::{nodes, set};

/// What the controllers of sets need.
pub(super) struct SetControllers {
    pub context: Arc<set::Context>,
    pub due: Vec<UnboundedReceiver<ObjectRef<set::SetObject>>>,
}

impl SetControllers {
    /// What keeps the memberships of all sets in step with the watch of one scope.
    fn tap(&self, scope: &WatchScope) -> impl FnMut(&watcher::Event<Object>) + Send + use<> {
        let set::Context { members, sets, .. } = &*self.context;
        let mut tap = set::Tap::new(Arc::clone(members), Arc::clone(sets), scope.clone());
        move |event| tap.take(event)
    }

    /// Runs one controller per scope until all have ended, and what goes on beside them until shutdown has begun.
    async fn run(self, scopes: Vec<WatchScope>, telemetry: Arc<Telemetry>) {
        let Self { context, due } = self;
        let controllers = scopes
            .into_iter()
            .zip(due)
            .map(|(scope, due)| set::run(Arc::clone(&context), scope, due).boxed());
        let controllers: Vec<_> = controllers.collect();
        let (sets, gather) = (Arc::clone(&context.sets), Arc::clone(&context.sets));
        let (nodes, wanted) = (Arc::clone(&context.nodes), sets.select_nodes());
        let client = context.client.clone();
        let nodes = nodes::watch(client, nodes, telemetry, wanted, move |news| {
            if news.selection {
                sets.of_nodes_now();
            }
            sets.conditions_soon();
        });
        let gather = async move { gather.run().await };
        let tags = Arc::clone(&context.tags).run();
        let conditions = set::write_node_conditions(Arc::clone(&context));
        let beside = all([
            nodes.boxed(),
            gather.boxed(),
            tags.boxed(),
            conditions.boxed(),
        ]);
        let beside = context.shutdown.unless_begun(beside);
        futures::future::join(all(controllers), beside).await;
    }
}

pub(super) async fn run_controllers(
    accounts: Arc<account::Context>,
    context: Arc<membership::Context>,
    sets: SetControllers,
    kinds: AccountKinds,
    namespaces: &Store<PartialObjectMeta<Namespace>>,
    queues: Vec<impl Stream<Item = ObjectRef<SecurityGroupMembership>> + Send + 'static>,
    settings: Settings,
) {
    let account_controllers = run_accounts(&accounts, kinds, &settings.scopes);
    let memberships = async {
        // Otherwise a pass would report an account or a grant missing that is only not listed yet.
        let known = async {
            account_controllers.listed.await;
            let _ = namespaces.wait_until_ready().await;
        };
        if context.shutdown.unless_begun(known).await.is_some() {
            let taps: Vec<_> = settings
                .scopes
                .iter()
                .map(|scope| sets.tap(scope))
                .collect();
            let telemetry = Arc::clone(&context.telemetry);
            let sets = sets.run(settings.scopes.clone(), telemetry);
            let memberships = run_memberships(&context, accounts, queues, taps, settings);
            futures::future::join(memberships, sets).await;
        }
    };
    futures::future::join(memberships, account_controllers.running).await;
}

/// Runs one controller per scope until all have ended, and what goes on beside them until shutdown has begun.
async fn run_memberships(
    context: &Arc<membership::Context>,
    accounts: Arc<account::Context>,
    queues: Vec<impl Stream<Item = ObjectRef<SecurityGroupMembership>> + Send + 'static>,
    taps: Vec<impl FnMut(&watcher::Event<Object>) + Send + 'static>,
    settings: Settings,
) {
    let scans = membership::scan::run(Arc::clone(context), settings.scan_period);
    let housekeeping = housekeeping::run(Arc::clone(context));
    let admission = Arc::clone(&context.admission);
    let scopes = settings.scopes.into_iter().zip(queues).zip(taps);
    let controllers = scopes.map(|((scope, queue), tap)| {
        membership::run(Arc::clone(context), scope, queue, tap).boxed()
    });
    let tags_of_groups = account::group_tags::run(accounts);
    let beside = [
        tags_of_groups.boxed(),
        scans.boxed(),
        housekeeping.boxed(),
        membership::unreleased::run(Arc::clone(context)).boxed(),
        async move { admission.run().await }.boxed(),
    ];
    let beside = context.shutdown.unless_begun(all(beside));
    futures::future::join(all(controllers), beside).await;
}

struct AccountControllers<L, R> {
    /// Resolves when every account has been listed once.
    listed: L,
    /// Resolves when all controllers have ended.
    running: R,
}

fn run_accounts(
    context: &Arc<account::Context>,
    kinds: AccountKinds,
    scopes: &[WatchScope],
) -> AccountControllers<impl Future<Output = ()> + use<>, impl Future<Output = ()> + use<>> {
    let mut listed = Vec::new();
    let mut running: Vec<BoxFuture<'static, ()>> = Vec::new();
    match kinds {
        AccountKinds::Both => {
            let (sender, receiver) = oneshot::channel();
            listed.push(receiver);
            running.push(
                account::run::<ClusterCloudAccount>(Arc::clone(context), WatchScope::All, sender)
                    .boxed(),
            );
        }
        AccountKinds::NamespacedOnly => {}
    }
    for scope in scopes {
        let (sender, receiver) = oneshot::channel();
        listed.push(receiver);
        running
            .push(account::run::<CloudAccount>(Arc::clone(context), scope.clone(), sender).boxed());
    }
    AccountControllers {
        listed: async {
            futures::future::join_all(listed).await;
        },
        running: all(running),
    }
}

/// Waits for all futures but polls only those that were woken: polling a controller or a watch is expensive.
pub(super) async fn all(parts: impl IntoIterator<Item = BoxFuture<'static, ()>>) {
    let mut parts: FuturesUnordered<_> = parts.into_iter().collect();
    while parts.next().await.is_some() {}
}
