//! The garbage collector of Kubernetes, as far as sets need it: deletes what no owner is left of, and carries out deletions in the
//! foreground and those that orphan. It looks at the store itself, some time after each change.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::monitor::sets::SETS;
use crate::monitor::{MEMBERSHIPS, text};
use crate::world::User;

/// How memberships go with their set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    Background,
    Foreground,
    Orphan,
}

impl Cascade {
    /// The finalizer that tells the garbage collector of it.
    pub const fn finalizer(self) -> Option<&'static str> {
        match self {
            Self::Background => None,
            Self::Foreground => Some("foregroundDeletion"),
            Self::Orphan => Some("orphan"),
        }
    }
}

/// Looks once per `period` whether there is something to do, for ever.
pub async fn collect(user: User, period: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(period).await;
        let revision = user.server.state().revision;
        if std::mem::replace(&mut seen, revision) != revision {
            collect_once(&user, period).await;
        }
    }
}

async fn collect_once(user: &User, period: Duration) {
    let pause = (period / 20).min(Duration::from_millis(50));
    for set in user.server.objects(SETS) {
        let is_deleting = set["metadata"].get("deletionTimestamp").is_some();
        let has = |name| {
            let finalizers = set["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|all| all.iter().any(|one| one == name))
        };
        if is_deleting && has("orphan") {
            for object in owned(user, &set["metadata"]["uid"]) {
                let freed = json!({"metadata": {"ownerReferences": null}});
                write(user, Verb::Merge, MEMBERSHIPS, &object, freed);
                tokio::time::sleep(pause).await;
            }
            release(user, &set);
        }
        if is_deleting && has("foregroundDeletion") {
            let objects = owned(user, &set["metadata"]["uid"]);
            if objects.is_empty() {
                release(user, &set);
            }
            for object in objects {
                delete(user, &object);
                tokio::time::sleep(pause).await;
            }
        }
    }
    for object in user.server.objects(MEMBERSHIPS) {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let sets = user.server.objects(SETS);
        let is_there = |owner: &Value| {
            sets.iter()
                .any(|set| set["metadata"]["uid"] == owner["uid"])
        };
        if owners.is_some_and(|owners| !owners.is_empty() && !owners.iter().any(is_there)) {
            delete(user, &object);
            tokio::time::sleep(pause).await;
        }
    }
}

/// The memberships that name this UID as their owner.
fn owned(user: &User, uid: &Value) -> Vec<Arc<Value>> {
    let mut objects = user.server.objects(MEMBERSHIPS);
    objects.retain(|object| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
    });
    objects
}

fn release(user: &User, set: &Value) {
    let freed = json!({"metadata": {"finalizers": null}});
    write(user, Verb::Merge, SETS, set, freed);
}

fn delete(user: &User, object: &Value) {
    if object["metadata"].get("deletionTimestamp").is_some() {
        return;
    }
    let uid = text(object, "/metadata/uid");
    let condition = json!({"preconditions": {"uid": uid}});
    write(user, Verb::Delete, MEMBERSHIPS, object, condition);
    user.monitor.touched(&uid);
}

fn write(user: &User, verb: Verb, plural: &'static str, object: &Value, body: Value) {
    let metadata = |field| text(&object["metadata"], field);
    user.user(
        verb,
        plural,
        &metadata("/namespace"),
        &metadata("/name"),
        body,
    );
}
