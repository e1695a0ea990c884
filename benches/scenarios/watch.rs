//! The one watcher that measures times: when the creation or deletion of a membership was requested, when it became Ready or
//! not Ready, and when it was deleted. Not part of the operator; reads only the API server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::core::{ApiResource, Object};
use kube::runtime::watcher;
use kube::{Api, Client};
use security_group_operator::api::SecurityGroupMembership;
use serde::Deserialize;

use crate::cluster::NAMESPACE;
use crate::support::error::{Error, Result};

/// The observed times of one membership.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When its creation or deletion was requested, depending on the scenario.
    pub asked: Option<Instant>,
    /// Since when it has been Ready.
    pub ready: Option<Instant>,
    /// When it was deleted.
    pub gone: Option<Instant>,
    /// Its instance.
    pub instance: String,
    /// Its security group.
    pub group: String,
    /// The last observed reason of Ready.
    pub reason: String,
    /// The last observed code in `lastError`.
    pub code: String,
}

/// A watch over the memberships of the bench. Ends on drop.
pub struct Watch {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Starts the watch.
    pub fn start(client: Client) -> Self {
        let seen: Arc<Mutex<HashMap<String, Seen>>> = Arc::default();
        let keeper = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let resource = ApiResource::erase::<SecurityGroupMembership>(&());
            let api: Api<Thin> = Api::namespaced_with(client, NAMESPACE, &resource);
            let config = watcher::Config::default();
            let mut events = watcher(api, config).boxed();
            loop {
                match events.try_next().await {
                    Ok(Some(event)) => note(&mut locked(&keeper), &event, Instant::now()),
                    Ok(None) => return,
                    Err(error) => {
                        crate::progress::line(&format!("the watch broke: {error}"));
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// Records that a request for an object is sent now.
    pub fn ask(&self, name: &str) {
        let mut seen = locked(&self.seen);
        seen.entry(name.to_owned()).or_default().asked = Some(Instant::now());
    }

    /// Number of Ready memberships.
    pub fn ready(&self) -> usize {
        self.count(|seen| seen.ready.is_some() && seen.gone.is_none())
    }

    /// Number of memberships for which `of_kind` is true.
    pub fn count(&self, of_kind: impl Fn(&Seen) -> bool) -> usize {
        locked(&self.seen)
            .values()
            .filter(|seen| of_kind(seen))
            .count()
    }

    /// The memberships whose name matches, in their current state.
    pub fn filter(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Seen)> {
        locked(&self.seen)
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, seen)| (name.clone(), seen.clone()))
            .collect()
    }

    /// Returns when `holds` is true; shows the progress meanwhile. An error after `limit`.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> (usize, bool),
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            let (count, done) = holds(self);
            crate::progress::at(&format!(
                "{what}: {count} after {:.0} s",
                started.elapsed().as_secs_f64()
            ));
            if done {
                return Ok(());
            }
            if started.elapsed() > limit {
                return Err(Error::new(format!("{what}: only {count} after {limit:?}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns when this many are Ready.
    pub async fn until_ready(&self, count: usize, limit: Duration) -> Result<()> {
        self.until(&format!("Ready of {count}"), limit, |watch| {
            let ready = watch.ready();
            (ready, ready >= count)
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(seen: &mut HashMap<String, Seen>, event: &watcher::Event<Thin>, now: Instant) {
    let (object, gone) = match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, false),
        watcher::Event::Delete(object) => (object, true),
        watcher::Event::Init | watcher::Event::InitDone => return,
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    let entry = seen.entry(name).or_default();
    if gone {
        entry.gone = Some(now);
        return;
    }
    entry.instance.clone_from(&object.spec.instance_id);
    entry.group.clone_from(&object.spec.security_group_id);
    let status = object.status.as_ref();
    let ready = status.and_then(|status| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
    });
    entry.reason = ready.map_or_else(String::new, |ready| ready.reason.clone());
    entry.code = status
        .and_then(|status| status.last_error.as_ref()?.code.clone())
        .unwrap_or_default();
    match ready.is_some_and(|ready| ready.status == "True") {
        true if entry.ready.is_none() => entry.ready = Some(now),
        true => {}
        false => entry.ready = None,
    }
}

fn locked(seen: &Mutex<HashMap<String, Seen>>) -> MutexGuard<'_, HashMap<String, Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Only the fields that the watcher reads: the bench runs on the machine that it measures.
type Thin = Object<ThinSpec, ThinStatus>;

#[derive(Clone, Debug, Deserialize)]
struct ThinSpec {
    #[serde(rename = "instanceID", default)]
    instance_id: String,
    #[serde(rename = "securityGroupID")]
    security_group_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThinStatus {
    #[serde(default)]
    conditions: Vec<ThinCondition>,
    last_error: Option<ThinError>,
}

#[derive(Clone, Debug, Deserialize)]
struct ThinCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    reason: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ThinError {
    code: Option<String>,
}
