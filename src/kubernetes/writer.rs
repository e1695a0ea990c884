//! The only way to write objects to the API server, but for the Lease: at most so many writes at a time, each with a deadline. Decides
//! nothing.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::STATUS_MANAGER;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use super::older_crds::OlderCrds;
use super::{DEADLINE, Error, with_deadline, within};

/// Writes to the API server. All clones share the bound.
#[derive(Clone, Debug)]
pub struct ApiWriter {
    permits: Arc<Semaphore>,
    in_flight: usize,
    telemetry: Arc<Telemetry>,
    /// `None`: writes begin after it too.
    shutdown: Option<Shutdown>,
    older_crds: Arc<OlderCrds>,
}

impl ApiWriter {
    /// A writer with at most `in_flight` writes at a time. After `shutdown` has begun it refuses every write with
    /// [`Error::Stopping`], also those that wait for their turn.
    #[must_use]
    pub fn new(in_flight: u16, shutdown: Shutdown, telemetry: Arc<Telemetry>) -> Self {
        let in_flight = usize::from(in_flight);
        Self {
            permits: Arc::new(Semaphore::new(in_flight)),
            in_flight,
            telemetry,
            shutdown: Some(shutdown),
            older_crds: Arc::default(),
        }
    }

    /// The same writer under the same bound, whose writes also begin after shutdown has begun: for the record of a call that the
    /// cloud has answered, and for events.
    #[must_use]
    pub fn for_records(&self) -> Self {
        Self {
            shutdown: None,
            ..self.clone()
        }
    }

    /// Makes the writes of one actor, as many at a time as the bound: the others that wait for a turn do not wait behind all of them.
    /// Returns what each gave, in the order in which they ended.
    pub async fn each<T, F: Future>(
        &self,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(T) -> F,
    ) -> Vec<F::Output> {
        let writes = stream::iter(items).map(write);
        writes.buffer_unordered(self.in_flight).collect().await
    }

    /// What the API server will store of a status, as far as it is known: an older CRD does not declare every field.
    #[must_use]
    pub fn storable<K, S>(&self, status: S) -> S
    where
        K: Resource<DynamicType = ()>,
        S: Serialize + DeserializeOwned,
    {
        self.older_crds.storable::<K, S>(status)
    }

    /// Changes fields of the metadata with a merge patch. The answer is the whole metadata, whatever `K` keeps of it.
    ///
    /// # Errors
    /// Every error of the API server.
    pub async fn merge_metadata<K>(
        &self,
        api: &Api<K>,
        name: &str,
        changes: &Value,
    ) -> Result<ObjectMeta, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = PatchParams::default();
        let patch = Patch::Merge(changes);
        let shown = self.write(DEADLINE, || api.patch_metadata(name, &params, &patch));
        Ok(shown.await?.metadata)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// Every error of the API server, and no answer within `deadline`.
    pub async fn create<K>(&self, api: &Api<K>, object: &K, deadline: Duration) -> Result<K, Error>
    where
        K: Serialize + Clone + Debug + DeserializeOwned + Sync,
    {
        let params = PostParams::default();
        self.write(deadline, || api.create(&params, object)).await
    }

    /// Creates an object as this field manager.
    ///
    /// # Errors
    /// 409 if there is one of the same name, and every other error of the API server.
    pub async fn create_as<K>(&self, api: &Api<K>, object: &K, manager: &str) -> Result<K, Error>
    where
        K: Serialize + Clone + Debug + DeserializeOwned + Sync,
    {
        let params = PostParams {
            field_manager: Some(manager.to_owned()),
            ..PostParams::default()
        };
        self.write(DEADLINE, || api.create(&params, object)).await
    }

    /// Deletes the object of this name if it has this UID and version. Returns it as it is stored while finalizers keep it.
    ///
    /// # Errors
    /// 404 if there is no such object, 409 if it has another UID or version, and every other error of the API server.
    pub async fn delete<K>(
        &self,
        api: &Api<K>,
        name: &str,
        (uid, version): (&str, &str),
    ) -> Result<Option<K>, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
        });
        let answer = self.write(DEADLINE, || api.delete(name, &params)).await?;
        Ok(answer.left())
    }

    /// [`WriteTurn::apply_status`] when it is this write's turn.
    ///
    /// # Errors
    /// The same.
    pub async fn apply_status<K>(
        &self,
        api: &Api<K>,
        metadata: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<K, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.turn().await?.apply_status(api, metadata, status).await
    }

    /// Waits until there are fewer writes than the bound.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn turn(&self) -> Result<WriteTurn<'_>, Error> {
        let permit = self.permits.acquire();
        let permit = match &self.shutdown {
            Some(shutdown) => {
                let permit = shutdown.unless_begun(permit).await;
                permit.ok_or(Error::Stopping)?
            }
            None => permit.await,
        };
        Ok(WriteTurn {
            writer: self,
            // The semaphore is never closed.
            _permit: permit.ok(),
        })
    }

    /// The call is made when there is a permit, so that a write that waits for one is small.
    async fn write<T, F>(&self, deadline: Duration, call: impl FnOnce() -> F) -> Result<T, Error>
    where
        F: Future<Output = kube::Result<T>> + Send,
    {
        let _turn = self.turn().await?;
        within(deadline, call()).await
    }
}

/// Permission for one write now.
#[derive(Debug)]
#[must_use]
pub struct WriteTurn<'a> {
    writer: &'a ApiWriter,
    _permit: Option<SemaphorePermit<'a>>,
}

impl WriteTurn<'_> {
    /// Applies the fields of one field manager with a server-side apply, by force.
    ///
    /// # Errors
    /// Every error of the API server.
    pub async fn apply<K>(
        self,
        api: &Api<K>,
        name: &str,
        manager: &str,
        fields: &Value,
    ) -> Result<K, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = PatchParams::apply(manager).force();
        let patch = Patch::Apply(fields);
        with_deadline(api.patch(name, &params, &patch)).await
    }

    /// Applies a status with one server-side apply, under the exact version that the status describes. The API server does not
    /// compare the UID on this subresource: without a version, the status of a deleted object could be written to a new object
    /// of the same name. Fields that the CRD does not declare are left out. The telemetry counts it.
    ///
    /// # Errors
    /// 404 if the object was deleted, 409 if another version is stored, and every other error of the API server.
    pub async fn apply_status<K>(
        self,
        api: &Api<K>,
        metadata: &ObjectMeta,
        status: &impl Serialize,
    ) -> Result<K, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let name = metadata.name.clone().unwrap_or_default();
        let mut fields = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let take_out = |fields: &mut Value| {
            let status = fields.get_mut("status");
            status.is_some_and(|status| self.writer.older_crds.take_out::<K>(status))
        };
        take_out(&mut fields);
        loop {
            let patch = Patch::Apply(&fields);
            let written = with_deadline(api.patch_status(&name, &params, &patch)).await;
            match written {
                // Each round leaves out at least one field more.
                Err(error)
                    if self.writer.older_crds.learn::<K>(&error) && take_out(&mut fields) => {}
                written => {
                    let refused = written.as_ref().err().map(Error::code);
                    self.writer.telemetry.count_status_write(refused);
                    return written;
                }
            }
        }
    }

    /// Changes the status with a strategic merge patch, which changes the items of a list that it names and no other.
    ///
    /// # Errors
    /// Every error of the API server.
    pub async fn merge_status<K>(
        self,
        api: &Api<K>,
        name: &str,
        manager: &str,
        changes: &Value,
    ) -> Result<K, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(changes);
        with_deadline(api.patch_status(name, &params, &patch)).await
    }

    /// Changes fields with a merge patch, also those of other field managers.
    ///
    /// # Errors
    /// Every error of the API server.
    pub async fn merge<K>(self, api: &Api<K>, name: &str, changes: &Value) -> Result<K, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = PatchParams::default();
        let patch = Patch::Merge(changes);
        with_deadline(api.patch(name, &params, &patch)).await
    }

    /// Changes the status with a JSON merge patch, which takes out what is null, whichever field manager owns it.
    ///
    /// # Errors
    /// Every error of the API server.
    pub async fn json_merge_status<K>(
        self,
        api: &Api<K>,
        name: &str,
        changes: &Value,
    ) -> Result<K, Error>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let params = PatchParams::default();
        let patch = Patch::Merge(changes);
        with_deadline(api.patch_status(name, &params, &patch)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    #[derive(Default)]
    struct Load {
        now: AtomicUsize,
        most: AtomicUsize,
        all: AtomicUsize,
    }

    /// An API server that takes one second per request.
    fn slow_server(load: &Arc<Load>) -> kube::Client {
        let load = Arc::clone(load);
        let answer = move |_: http::Request<kube::client::Body>| {
            let load = Arc::clone(&load);
            async move {
                let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
                load.most.fetch_max(now, Ordering::SeqCst);
                load.all.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                load.now.fetch_sub(1, Ordering::SeqCst);
                let body = kube::client::Body::from(br#"{"metadata":{}}"#.to_vec());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn writes_of_all_kinds_share_one_bound() {
        let load = Arc::<Load>::default();
        let api: Api<Namespace> = Api::all(slow_server(&load));
        let telemetry = Arc::<Telemetry>::default();
        let writer = ApiWriter::new(3, Shutdown::default(), Arc::clone(&telemetry));
        let (patch, mut object) = (json!({}), Namespace::default());
        object.metadata.name = Some("a".to_owned());
        let metadata = &object.metadata;
        let apply = async || {
            writer
                .turn()
                .await?
                .apply(&api, "a", "manager", &patch)
                .await
        };
        let merge = async || writer.turn().await?.merge(&api, "a", &patch).await;
        let calls = (0..4).flat_map(|_| {
            [
                apply().boxed(),
                writer.apply_status(&api, metadata, &patch).boxed(),
                merge().boxed(),
                writer.create(&api, &object, DEADLINE).boxed(),
            ]
        });
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(load.all.load(Ordering::SeqCst), 16);
        assert_eq!(load.most.load(Ordering::SeqCst), 3);
        let metrics = telemetry.render(false);
        let counted = "security_group_operator_status_writes_total{result=\"ok\"} 4";
        assert!(metrics.contains(counted), "{metrics}");
    }

    /// One actor with a hundred writes holds up the write of another by one turn, not by a hundred.
    #[tokio::test(start_paused = true)]
    async fn many_writes_of_one_actor_let_others_in() {
        let load = Arc::<Load>::default();
        let api: Api<Namespace> = Api::all(slow_server(&load));
        let writer = ApiWriter::new(2, Shutdown::default(), Arc::default());
        let object = Namespace::default();
        let create = || writer.create(&api, &object, DEADLINE);
        let many = writer.each(0..100, |_| create());
        let other = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let began = tokio::time::Instant::now();
            create().await.unwrap();
            began.elapsed()
        };
        let (many, waited) = tokio::join!(many, other);
        assert!(many.len() == 100 && many.iter().all(Result::is_ok));
        assert_eq!(load.most.load(Ordering::SeqCst), 2);
        assert!(waited <= Duration::from_secs(2), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_records_begin_after_shutdown() {
        let load = Arc::<Load>::default();
        let api: Api<Namespace> = Api::all(slow_server(&load));
        let shutdown = Shutdown::default();
        let writer = ApiWriter::new(1, shutdown.clone(), Arc::default());
        let records = writer.for_records();
        let object = Namespace::default();
        let under_way = writer.create(&api, &object, DEADLINE);
        let waits = writer.create(&api, &object, DEADLINE);
        let record = records.create(&api, &object, DEADLINE);
        let asked = tokio::time::sleep(Duration::from_millis(500));
        let ended = shutdown.begin_when(asked);
        let (under_way, waits, record, ()) = tokio::join!(under_way, waits, record, ended);
        assert!(under_way.is_ok() && record.is_ok());
        assert!(matches!(waits, Err(Error::Stopping)), "{waits:?}");
        let late = writer.create(&api, &object, DEADLINE).await;
        assert!(matches!(late, Err(Error::Stopping)), "{late:?}");
        assert_eq!(load.all.load(Ordering::SeqCst), 2);
        assert_eq!(load.most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_begins_with_the_call() {
        let load = Arc::<Load>::default();
        let api: Api<Namespace> = Api::all(slow_server(&load));
        let writer = ApiWriter::new(1, Shutdown::default(), Arc::default());
        let object = Namespace::default();
        let create = |deadline| writer.create(&api, &object, Duration::from_millis(deadline));
        let (first, second, late) = tokio::join!(create(1_500), create(1_500), create(500));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert!(matches!(late, Err(Error::Timeout { after }) if after.as_millis() == 500));
    }
}
