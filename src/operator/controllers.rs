//! Runs the controllers of all kinds and scopes, in the order in which they need each other.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::oneshot;

use crate::account;
use crate::account::directory::AccountKinds;
use crate::api::{CloudAccount, ClusterCloudAccount};
use crate::args::Settings;
use crate::kubernetes::WatchScope;
use crate::membership::object::Object;
use crate::membership::{self, housekeeping};

pub(super) async fn run_controllers(
    accounts: Arc<account::Context>,
    context: Arc<membership::Context>,
    kinds: AccountKinds,
    namespaces: &Store<PartialObjectMeta<Namespace>>,
    queues: Vec<impl Stream<Item = ObjectRef<Object>> + Send + 'static>,
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
            run_memberships(&context, queues, settings).await;
        }
    };
    futures::future::join(memberships, account_controllers.running).await;
}

/// Runs one controller per scope until all have ended, and what goes on beside them until shutdown has begun.
async fn run_memberships(
    context: &Arc<membership::Context>,
    queues: Vec<impl Stream<Item = ObjectRef<Object>> + Send + 'static>,
    settings: Settings,
) {
    let scans = membership::scan::run(Arc::clone(context), settings.scan_period);
    let housekeeping = housekeeping::run(Arc::clone(context));
    let admission = Arc::clone(&context.admission);
    let scopes = settings.scopes.into_iter().zip(queues);
    let controllers =
        scopes.map(|(scope, queue)| membership::run(Arc::clone(context), scope, queue).boxed());
    let beside = [
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
