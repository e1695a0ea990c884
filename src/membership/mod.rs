//! The loop over `SecurityGroupMembership`: wires watch, pass and requeue together. Decides nothing itself.
//!
//! ```text
//! watch ─▶ observe ─▶ decide ─▶ act ─▶ … until nothing is left to do ─▶ status ─▶ requeue
//!          reads      pure      one effect                              one patch, if it differs
//! ```
//!
//! A pass runs until [`decide::decide`] says [`Step::Rest`], so that a new edge needs one pass and not four round trips of
//! the watch. Our own writes start no pass: the watch is filtered by what a user can change.

mod act;
pub mod decide;
pub mod edge;
pub mod event;
mod memory;
pub mod observe;
pub mod poke;
pub mod scan;
pub mod status;
pub mod turn;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::account::directory::Directory;
use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::{
    PAUSED_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION, STATUS_MANAGER, SecurityGroupMembership,
    reason,
};
use crate::clock::Clock;
use crate::condition::{self, Draft, Status};
use crate::kubernetes::{self, QueueLog, bounded};
use crate::telemetry::Telemetry;

use self::act::ActError;
use self::decide::{Attempt, Release, Step, Target, Verdict, decide};
use self::edge::{AccountKey, Edge, Edges, resource_version};
use self::event::Events;
use self::memory::Memory;
use self::observe::Pass;
use self::poke::Pokes;
use self::scan::Picture;
use self::status::{Facts, Note};
use self::turn::Turns;

/// What is watched: one object that this version cannot read does not stop the others.
pub type Object = DeserializeGuard<SecurityGroupMembership>;

/// Writes to the API server in flight.
const WRITES_IN_FLIGHT: usize = 8;
/// When a pass over an object is made anew whose watch lags behind our own writes.
const OLD_VIEW_PERIOD: Duration = Duration::from_secs(30);
/// Steps of a pass: claim, join, correct the claim, and the reads between; more would be a fault of `decide`.
const STEPS: usize = 10;

/// What every pass shares.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Who names which edge.
    pub edges: Arc<Edges>,
    /// Who may call as whom.
    pub directory: Arc<Directory>,
    /// How passes ask for passes.
    pub pokes: Pokes,
    /// Where transitions are told.
    pub events: Events,
    /// Where passes are counted.
    pub telemetry: Arc<Telemetry>,
    /// What time it is.
    pub clock: Clock,
    /// Whose turn it is.
    pub turns: Arc<Turns>,
    writes: Semaphore,
    memory: Memory,
    unlisted_scopes: AtomicUsize,
}

impl Context {
    /// The context for controllers of `scopes` scopes.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing, named by its type"
    )]
    pub fn new(
        client: kube::Client,
        edges: Arc<Edges>,
        directory: Arc<Directory>,
        pokes: Pokes,
        events: Events,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        scopes: usize,
    ) -> Self {
        Self {
            client,
            edges,
            directory,
            turns: Arc::new(Turns::new(pokes.clone())),
            pokes,
            events,
            telemetry,
            writes: Semaphore::new(WRITES_IN_FLIGHT),
            memory: Memory::new(clock.clone()),
            clock,
            unlisted_scopes: AtomicUsize::new(scopes),
        }
    }

    /// Whether every object has been listed once: before that nobody knows who shares an edge.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.unlisted_scopes.load(Ordering::SeqCst) == 0
    }

    fn publish(&self, pass: &Pass, note: Note) {
        self.events.publish(pass.object(), note);
    }

    fn scope_listed(&self) {
        if self.unlisted_scopes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.telemetry.set_ready();
            for object in self.edges.deleting() {
                self.pokes.poke(&object);
            }
        }
    }
}

/// Runs the controller of one scope (one namespace, or all) until `shutdown` resolves.
pub async fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    pokes: impl Stream<Item = ObjectRef<Object>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<Object> = match &namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let (reader, writer) = reflector::store();
    let keeper = Arc::clone(&context);
    let mut scope = Scope {
        namespace,
        listing: HashSet::new(),
        listed: false,
    };
    let objects = watcher(api, kubernetes::watch_config())
        .modify(|object| object.meta_mut().managed_fields = None)
        .inspect_ok(move |event| scope.keep_index(&keeper, event))
        // Before the filter, so that the store also has what starts no pass.
        .reflect(writer)
        .applied_objects()
        .predicate_filter(user_change, PredicateConfig::default());
    let log = QueueLog::new("SecurityGroupMembership");
    Controller::for_stream(objects, reader)
        .reconcile_on(pokes)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, on_error, context)
        .for_each(|result| {
            log.note(result);
            std::future::ready(())
        })
        .await;
}

/// What only a user changes: the spec and deletion (both move the generation), and our two annotations for users.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature of a kube predicate"
)]
fn user_change(object: &Object) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let annotations = object.annotations();
    object.meta().generation.hash(&mut hasher);
    object.meta().deletion_timestamp.is_some().hash(&mut hasher);
    annotations.get(PAUSED_ANNOTATION).hash(&mut hasher);
    annotations
        .get(RECONCILE_REQUESTED_ANNOTATION)
        .hash(&mut hasher);
    Some(hasher.finish())
}

/// Keeps the index of one scope in step with its watch.
struct Scope {
    namespace: Option<String>,
    listing: HashSet<String>,
    listed: bool,
}

impl Scope {
    fn keep_index(&mut self, context: &Context, event: &watcher::Event<Object>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(object) => {
                self.listing.extend(object.uid());
                self.insert(context, object);
            }
            watcher::Event::Apply(object) => self.insert(context, object),
            watcher::Event::Delete(object) => {
                if let Some(uid) = object.uid() {
                    context.edges.remove(&uid);
                    context.memory.forget(&uid);
                }
            }
            watcher::Event::InitDone => {
                let gone = context.edges.retain(|record| {
                    let in_scope =
                        self.namespace.is_none() || record.object.namespace == self.namespace;
                    !in_scope || self.listing.contains(&record.uid)
                });
                for uid in gone {
                    context.memory.forget(&uid);
                }
                self.listing.clear();
                if !self.listed {
                    self.listed = true;
                    context.scope_listed();
                }
            }
        }
    }

    #[expect(clippy::unused_self, reason = "reads beside its siblings")]
    fn insert(&self, context: &Context, object: &Object) {
        if let Ok(object) = &object.0 {
            context.edges.insert(object);
        }
    }
}

async fn reconcile(object: Arc<Object>, context: Arc<Context>) -> Result<Action, ActError> {
    let readable = match &object.0 {
        Ok(readable) => readable,
        Err(invalid) => {
            let message = format!(
                "this version of the operator cannot read the object: {}",
                invalid.error
            );
            return invalid_spec(&invalid.metadata, None, message, &context).await;
        }
    };
    let edge = match Edge::try_from(&readable.spec) {
        Ok(edge) => edge,
        Err(error) => {
            return invalid_spec(
                &readable.metadata,
                readable.status.as_ref(),
                error.to_string(),
                &context,
            )
            .await;
        }
    };
    let namespace = readable.namespace().unwrap_or_default();
    let bucket = (
        AccountKey::of(&readable.spec, &namespace),
        edge.region.clone(),
    );
    let reference = ObjectRef::from_obj(readable);
    let Some(_turn) = context
        .turns
        .enter(bucket, &reference, !is_settled(readable))
    else {
        return Ok(Action::await_change());
    };
    let lock = context.edges.pass_lock(&edge);
    let _one_pass_a_target = lock.lock().await;
    let uid = readable.uid().unwrap_or_default();
    // The watch may lag behind our own writes; what they said is not to be decided again from an older view.
    let old_view = resource_version(readable) < context.edges.known_version(&uid);
    if old_view && context.memory.may_wait_for_watch(&uid) {
        return Ok(Action::requeue(Duration::from_millis(100)));
    }
    match pass(Arc::clone(&object), edge, &context).await {
        // What the pass took for said already may be what an older status said, and our own writes start no pass.
        Ok(_) if old_view => Ok(Action::requeue(OLD_VIEW_PERIOD)),
        Ok(action) => Ok(action),
        Err(ActError::ObjectGone) => Ok(Action::await_change()),
        // Not every change starts a pass by itself.
        Err(ActError::Changed) => Ok(Action::requeue(context.memory.after_error(&uid))),
        Err(error) => Err(error),
    }
}

/// Whether the object was Ready for this generation: it can wait for those that were not.
fn is_settled(object: &SecurityGroupMembership) -> bool {
    object.metadata.deletion_timestamp.is_none()
        && object.status.as_ref().is_some_and(|status| {
            status.observed_generation == object.metadata.generation
                && condition::is_true(&status.conditions, reason::READY)
        })
}

fn on_error(object: Arc<Object>, error: &ActError, context: Arc<Context>) -> Action {
    let uid = object.uid().unwrap_or_default();
    let wait = context.memory.after_error(&uid);
    warn!(
        %error,
        namespace = object.namespace().unwrap_or_default(),
        name = object.name_any(),
        retry_seconds = wait.as_secs(),
        "pass failed"
    );
    Action::requeue(wait)
}

async fn pass(object: Arc<Object>, edge: Edge, context: &Context) -> Result<Action, ActError> {
    let uid = object.uid().unwrap_or_default();
    let Some(mut pass) = Pass::begin(object, edge, context.memory.repairs(&uid), context) else {
        return Ok(Action::await_change());
    };
    let verdict = walk(&mut pass, &uid, context).await?;
    debug!(edge = ?pass.edge, ?verdict, "pass");
    context.telemetry.count_pass(outcome(verdict));
    let previous = pass.object().status.clone().unwrap_or_default();
    let facts = Facts {
        edge: &pass.edge,
        verdict,
        seen: &pass.seen,
        deleting: pass.wanted.deleting,
        description: pass.description.as_ref(),
        failure: pass.failure.as_ref(),
        account_problem: &pass.account_problem,
    };
    let next = status::status(&previous, pass.generation, &facts, context.clock.now());
    let note = match verdict {
        Verdict::Ready { repaired: true, .. } => Some(Note {
            reason: "DriftRepaired",
            warning: false,
            text: format!("{} joined {} again", pass.edge.target, pass.edge.group),
        }),
        _ => next
            .as_ref()
            .and_then(|next| status::note(&previous, next, verdict)),
    };
    if let Some(next) = &next {
        write_status(&pass.object().metadata, next, context).await?;
    }
    context.edges.keep_picture(&uid, picture(&pass, verdict));
    let waits_for_its_turn = pass.stopped_until.is_some() && pass.failure.is_none();
    context
        .memory
        .hold(&uid, pass.description.take().filter(|_| waits_for_its_turn));
    if let Some(note) = note {
        context.publish(&pass, note);
    }
    Ok(context
        .memory
        .next_look(&uid, verdict, pass.failure.as_ref(), pass.stopped_until))
}

/// What a scan has to find for this object to have nothing to do; none where the pass did not look.
fn picture(pass: &Pass, verdict: Verdict) -> Option<Picture> {
    let ready = matches!(verdict, Verdict::Ready { .. });
    match pass.seen.target {
        Target::Unread | Target::Unreadable(_) => None,
        Target::Absent => Some(Picture::Absent),
        Target::Present { member, .. } => {
            Some(Picture::of(pass.description.as_ref(), |_| member || ready))
        }
    }
}

/// Does what `decide` says until it says rest.
async fn walk(pass: &mut Pass, uid: &str, context: &Context) -> Result<Verdict, ActError> {
    for _ in 0..STEPS {
        match decide(&pass.wanted, &pass.seen) {
            Step::Rest(verdict) => return Ok(verdict),
            Step::Read => pass.read(context).await,
            Step::Claim(origin) => pass.claim(origin, context).await?,
            Step::Join => {
                pass.join(uid).await;
                if pass.seen.was_ready {
                    note_drift(pass, uid, context);
                }
            }
            Step::Leave => pass.leave(uid, context).await,
            Step::HandOver => pass.hand_over(context).await?,
            Step::Release(why) => {
                pass.release(context).await?;
                if let Some(note) = release_note(pass, why) {
                    context.publish(pass, note);
                }
            }
        }
    }
    warn!(edge = ?pass.edge, "a pass did not come to rest; it starts anew");
    Ok(Verdict::Failed(crate::ecs::Class::Transient))
}

/// Tells of a drift that a repair was tried for. `AlreadyMember` was none: the read lagged behind the cloud.
fn note_drift(pass: &Pass, uid: &str, context: &Context) {
    match pass.seen.attempt {
        Attempt::Joined => {}
        Attempt::Failed { .. } if pass.failure.is_some() => {}
        Attempt::Failed { .. }
        | Attempt::None
        | Attempt::AlreadyMember
        | Attempt::Left
        | Attempt::HandedOver
        | Attempt::Released => return,
    }
    if context.memory.drift_is_news(uid) {
        let note = Note {
            reason: "DriftDetected",
            warning: true,
            text: format!(
                "somebody else took {} out of {}",
                pass.edge.target, pass.edge.group
            ),
        };
        context.publish(pass, note);
    }
    if pass.seen.attempt == Attempt::Joined {
        context.memory.repaired(uid);
    }
}

fn release_note(pass: &Pass, why: Release) -> Option<Note> {
    let Edge { target, group, .. } = &pass.edge;
    let (reason, text) = match why {
        Release::Left => ("Left", format!("{target} is no member of {group} any more")),
        Release::Retained => ("Retained", format!("{target} stays a member of {group}")),
        Release::Shared => (
            "Retained",
            format!("{target} stays a member of {group}: another object holds it"),
        ),
        Release::Refused => return None,
    };
    Some(Note {
        reason,
        warning: false,
        text,
    })
}

const fn outcome(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Undecided => "undecided",
        Verdict::Gone => "gone",
        Verdict::Ready {
            repaired: false, ..
        } => "ready",
        Verdict::Ready { repaired: true, .. } => "repaired",
        Verdict::Paused => "paused",
        Verdict::Waiting => "waiting",
        Verdict::WouldJoin => "observed",
        Verdict::AdoptionRefused => "refused",
        Verdict::DriftReported | Verdict::RepairLoop => "drifted",
        Verdict::Absent => "absent",
        Verdict::AccountUnusable => "account",
        Verdict::Failed(_) => "failed",
    }
}

/// The spec names no edge: said once, and looked at again when it changes.
async fn invalid_spec(
    metadata: &kube::api::ObjectMeta,
    previous: Option<&SecurityGroupMembershipStatus>,
    message: String,
    context: &Context,
) -> Result<Action, ActError> {
    let empty = SecurityGroupMembershipStatus::default();
    let previous = previous.unwrap_or(&empty);
    let draft = |type_, status| Draft {
        type_,
        status,
        reason: reason::INVALID_SPEC.to_owned(),
        message: message.clone(),
    };
    let drafts = vec![
        draft(reason::READY, Status::False),
        draft(reason::STALLED, Status::True),
    ];
    let next = SecurityGroupMembershipStatus {
        observed_generation: metadata.generation,
        conditions: condition::merge(
            &previous.conditions,
            drafts,
            metadata.generation,
            context.clock.now(),
        ),
        ..previous.clone()
    };
    if next != *previous {
        match write_status(metadata, &next, context).await {
            Ok(()) | Err(ActError::ObjectGone) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Action::await_change())
}

async fn write_status(
    metadata: &kube::api::ObjectMeta,
    status: &SecurityGroupMembershipStatus,
    context: &Context,
) -> Result<(), ActError> {
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let patch = serde_json::json!({
        "apiVersion": SecurityGroupMembership::api_version(&()),
        "kind": SecurityGroupMembership::kind(&()),
        // The API server does not compare the UID on this subresource: without a version the status of an object that is gone
        // would be written to its successor of the same name.
        "metadata": {"name": name, "uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let written = {
        let _place = context.writes.acquire().await;
        bounded(api.patch_status(&name, &params, &Patch::Apply(&patch))).await
    };
    match written {
        Ok(Object { 0: Ok(written) }) => {
            context.edges.insert(&written);
            Ok(())
        }
        Ok(Object { 0: Err(_) }) => Ok(()),
        Err(error) if error.code() == Some(404) => Err(ActError::ObjectGone),
        Err(error) if error.code() == Some(409) => Err(ActError::Changed),
        Err(source) => Err(ActError::Kubernetes {
            what: "the status could not be written",
            source,
        }),
    }
}
