//! Reads the instances with certain tags once per scan period, for all sets of one account that select by the same tags in the same
//! region. Reads only.
//!
//! A list is evidence of what it shows, and never of what it does not show. Targets of the sets that it does not show are read by ID.
//! Accounts do not share a list: their keys may have different rights.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::account::directory::Directory;
use crate::account::key::{AccountKey, CloudAccountId};
use crate::account::session::{AccountSession, CallError, Sighting, read_in_parts, until_admitted};
use crate::ecs::batch::Split;
use crate::ecs::{Action, Class, Error, Region, Target};
use crate::kubernetes::{LogDeduper, ObjectUid};

use super::known::Sets;
use super::member::Member;
use super::members::Members;
use super::refusal::{MOST_LISTED, Refusal};
use super::select::{PATIENCE, Tagged};

/// When a list is read again at the latest after the first answer without a target (a minute less than [`PATIENCE`]): a second one is
/// needed to call it gone, however long the scan period is.
const LOOK_AGAIN: Duration = PATIENCE.saturating_sub(Duration::from_secs(60));

/// Fewest rows of a page that the cloud knows.
const SMALLEST_PAGE: usize = 10;

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    /// Whose key reads.
    pub account: AccountKey,
    /// The cloud account that it is a key of, and the endpoints.
    pub cloud: Arc<CloudAccountId>,
    /// Where.
    pub region: Region,
    /// The tags that an instance must have.
    pub tags: BTreeMap<String, String>,
}

/// The sets that select by the same tags, and what the cloud has last shown.
#[derive(Debug, Default)]
struct Shared {
    /// Namespace and name of each.
    sets: HashMap<ObjectUid, (String, String)>,
    answer: Option<Arc<Tagged>>,
}

/// What the cloud has last shown of the instances with the tags of sets.
pub struct InstanceTags {
    directory: Arc<Directory>,
    members: Arc<Members>,
    sets: Arc<Sets>,
    period: Duration,
    queries: Mutex<HashMap<Query, Shared>>,
    changed: Notify,
    logged: LogDeduper,
}

impl InstanceTags {
    /// No set selects by tags yet. Each list is read once per `period`.
    #[must_use]
    pub fn new(
        directory: Arc<Directory>,
        members: Arc<Members>,
        sets: Arc<Sets>,
        period: Duration,
    ) -> Self {
        Self {
            directory,
            members,
            sets,
            period,
            queries: Mutex::default(),
            changed: Notify::new(),
            logged: LogDeduper::default(),
        }
    }

    /// What the cloud has last shown, if it has; from now on it is read for this set.
    pub(super) fn select(
        &self,
        set: &ObjectUid,
        key: (String, String),
        query: Query,
    ) -> Option<Arc<Tagged>> {
        let mut queries = self.lock();
        let mut is_news = !queries.contains_key(&query);
        let shared = queries.entry(query.clone()).or_default();
        let answer = shared.answer.clone();
        if shared.sets.insert(set.clone(), key).is_none() {
            is_news |= leave(&mut queries, set, |other| *other != query);
        }
        drop(queries);
        if is_news {
            self.changed.notify_one();
        }
        answer
    }

    /// Nothing is read for this set any more.
    pub(super) fn forget(&self, set: &ObjectUid) {
        if leave(&mut self.lock(), set, |_| true) {
            self.changed.notify_one();
        }
    }

    /// Reads until dropped, with one task for each list.
    pub async fn run(self: Arc<Self>) {
        let mut tasks: HashMap<Query, Task> = HashMap::new();
        loop {
            let wanted: HashSet<Query> = self.lock().keys().cloned().collect();
            tasks.retain(|query, _| wanted.contains(query));
            for query in wanted {
                tasks.entry(query).or_insert_with_key(|query| {
                    let (tags, query) = (Arc::clone(&self), query.clone());
                    let (running, handle) = abortable(async move { tags.follow(&query).await });
                    tokio::spawn(running);
                    Task(handle)
                });
            }
            self.changed.notified().await;
        }
    }

    /// Reads one list once per period, for ever.
    async fn follow(&self, query: &Query) {
        loop {
            let started = Instant::now();
            let mut period = self.period;
            let session = self.directory.usable(&query.account);
            // Without a key the sets say what the account lacks.
            if let Some(session) = session.filter(|session| session.limits().id == query.cloud) {
                match self.read(query, &session).await {
                    Ok(answer) => {
                        if answer.absent.len() > answer.absent_twice.len() {
                            period = period.min(LOOK_AGAIN);
                        }
                        self.store(query, answer);
                    }
                    Err(CallError::Stopping) => return,
                    Err(error) => self.fail(query, &error),
                }
            }
            tokio::time::sleep_until(started + period).await;
        }
    }

    /// Lists the instances with the tags, then describes by ID the targets of the sets that the list does not show.
    async fn read(&self, query: &Query, session: &AccountSession) -> Result<Tagged, CallError> {
        let Listed { mut picked, is_all } = list(query, session).await?;
        let mut tagged = Tagged::default();
        let (instances, interfaces) = self.targets(query);
        // Tags select instances: the spec is the evidence against an interface of an earlier selector.
        tagged.other.extend(interfaces);
        let missing: Vec<Target> = instances.difference(&picked).cloned().collect();
        let pace = session
            .limits()
            .pace(&query.region, Action::DescribeInstances);
        let read = |part| session.scan(&query.region, part);
        let take = |part: &[Target], answer: Result<HashMap<Target, Sighting>, CallError>| {
            let found = match answer {
                Ok(found) => found,
                // It failed alone: that is no evidence.
                Err(error) if error.split() == Split::OneBadId => return Ok(()),
                Err(error) => return Err(error),
            };
            for target in part.iter().cloned() {
                match found.get(&target) {
                    None => tagged.absent.insert(target),
                    Some(found) if found.description.tags.include(&query.tags) => {
                        picked.insert(target)
                    }
                    Some(_) => tagged.other.insert(target),
                };
            }
            Ok(())
        };
        read_in_parts(&missing, &pace, read, take).await?;
        let before = self
            .lock()
            .get(query)
            .and_then(|shared| shared.answer.clone());
        if let Some(before) = before {
            let twice = tagged.absent.intersection(&before.absent).cloned();
            tagged.absent_twice = twice.collect();
        }
        let is_instance = |target: &Target| matches!(target, Target::Instance(_));
        let sees_one = !picked.is_empty() || tagged.other.iter().any(is_instance);
        tagged.trouble = (!is_all).then_some(Refusal::ManyTagged);
        if !sees_one && !tagged.absent.is_empty() && !sees_any(query, session).await? {
            (tagged.absent, tagged.absent_twice) = Default::default();
            tagged.trouble = Some(Refusal::NothingShown(query.region.clone()));
        }
        Ok(Tagged { picked, ..tagged })
    }

    /// The instances and the interfaces that memberships of the sets name. A target is left out if one of its memberships belongs to another
    /// cloud account: this account does not list the target, and that is no evidence against any of them.
    fn targets(&self, query: &Query) -> (BTreeSet<Target>, BTreeSet<Target>) {
        let queries = self.lock();
        let sets = queries.get(query).into_iter();
        let sets = sets.flat_map(|shared| &shared.sets);
        let members = sets.flat_map(|(set, (namespace, _))| self.members.of(namespace, set));
        let members: Vec<_> = members
            .filter(|member| member.region == query.region)
            .collect();
        let of_another = |member: &&Arc<Member>| {
            let uid = member.account_uid.as_ref();
            uid.is_some_and(|uid| *uid != query.cloud.uid)
        };
        let foreign = members.iter().filter(of_another);
        let foreign: HashSet<&Target> = foreign.map(|member| &member.target).collect();
        let targets = members.iter().map(|member| &member.target);
        targets
            .filter(|target| !foreign.contains(target))
            .cloned()
            .partition(|target| match target {
                Target::Instance(_) => true,
                Target::NetworkInterface(_) => false,
            })
    }

    /// Keeps what is known: nothing is added, and nothing is evidence against a target.
    fn fail(&self, query: &Query, error: &CallError) {
        let (error, stalled) = match error {
            CallError::Failed(error) | CallError::NotAnswering(error) => {
                let class = error.class();
                let stalled = matches!(class, Class::Blocked | Class::Invalid | Class::Absent);
                (error.to_string(), stalled)
            }
            // Neither ends a read.
            CallError::RateLimited { .. } | CallError::Stopping => return,
        };
        let Query {
            account, region, ..
        } = query;
        if self.logged.is_first(&format!("{query:?} {error}")) {
            let reference = account.reference();
            let (kind, namespace, name) = (reference.kind, reference.namespace, reference.name);
            warn!(kind, namespace, name, %region, "the instances with the tags of a set could not be read; next try within one scan period: {error}");
        }
        let known = self
            .lock()
            .get(query)
            .and_then(|known| known.answer.clone());
        let answer = Tagged {
            picked: known.map(|known| known.picked.clone()).unwrap_or_default(),
            trouble: Some(Refusal::Tags { error, stalled }),
            ..Tagged::default()
        };
        self.store(query, answer);
    }

    /// Remembers an answer, and has the sets look at it if it says something else.
    fn store(&self, query: &Query, answer: Tagged) {
        let mut queries = self.lock();
        let Some(shared) = queries.get_mut(query) else {
            return;
        };
        if shared.answer.as_deref() == Some(&answer) {
            return;
        }
        shared.answer = Some(Arc::new(answer));
        for key in shared.sets.values() {
            self.sets.enqueue(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Query, Shared>> {
        // No code panics while it holds this lock.
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the set from the queries that `is_left`, and drops those that no set needs any more. Returns whether there are such.
fn leave(
    queries: &mut HashMap<Query, Shared>,
    set: &ObjectUid,
    is_left: impl Fn(&Query) -> bool,
) -> bool {
    let before = queries.len();
    queries.retain(|query, shared| {
        if is_left(query) {
            shared.sets.remove(set);
        }
        !shared.sets.is_empty()
    });
    queries.len() < before
}

/// A list that is read; no more when it is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The instances that a list shows, and whether they are certainly all.
struct Listed {
    picked: BTreeSet<Target>,
    is_all: bool,
}

/// Reads the pages of a list, as many rows on each as an answer can have. A page that fails makes the whole list fail.
async fn list(query: &Query, session: &AccountSession) -> Result<Listed, CallError> {
    let Query { region, tags, .. } = query;
    let pace = session.limits().pace(region, Action::DescribeInstances);
    let mut picked = BTreeSet::new();
    let mut token: Option<String> = None;
    // A cloud whose pages never end is not followed for ever.
    for _ in 0..MOST_PAGES {
        let most = pace.most().max(SMALLEST_PAGE);
        match until_admitted(|| session.tagged(region, tags, most, token.as_deref())).await {
            Ok((rows, next)) => {
                picked.extend(rows.into_iter().map(|(id, _)| Target::Instance(id)));
                token = next;
                if token.is_none() {
                    let is_all = picked.len() < MOST_LISTED;
                    return Ok(Listed { picked, is_all });
                }
            }
            Err(error) if error.split() == Split::TooLarge && most > SMALLEST_PAGE => {
                pace.was_too_large(most);
                // From the beginning: what a token means for pages of another size is not documented.
                (picked, token) = (BTreeSet::new(), None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Listed {
        picked,
        is_all: false,
    })
}

/// Whether the key sees any instance of the region. The cloud answers some keys without the right with an empty list: what such a key does
/// not see is not absent.
async fn sees_any(query: &Query, session: &AccountSession) -> Result<bool, CallError> {
    let (region, all) = (&query.region, BTreeMap::new());
    match until_admitted(|| session.tagged(region, &all, SMALLEST_PAGE, None)).await {
        Ok((rows, next)) => Ok(!rows.is_empty() || next.is_some()),
        // An instance of which something cannot be read is one.
        Err(CallError::Failed(Error::BadRow { .. })) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Pages that are read of one list.
const MOST_PAGES: usize = 200;

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use crate::account::directory::{AccountState, Grants};
    use crate::account::limiters::CloudLimits;
    use crate::api::SecurityGroupMembership;
    use crate::api::membership::AccountKind;
    use crate::ecs::{
        Client, Credential, Endpoints, Transport, TransportError, test_answer, test_parameters,
    };
    use crate::shutdown::Shutdown;

    use super::*;

    /// A cloud whose lists are scripted, a page a call, and whose descriptions by ID tell the truth.
    #[derive(Default)]
    struct Cloud {
        pages: Mutex<Vec<(u16, Value)>>,
        truth: Mutex<BTreeMap<String, Value>>,
        /// What each call asked for.
        asked: Mutex<Vec<String>>,
    }

    fn row(id: &str, tags: &Value) -> Value {
        let tags = tags.as_object().into_iter().flatten();
        let tags: Vec<_> = tags
            .map(|(key, value)| json!({"TagKey": key, "TagValue": value}))
            .collect();
        json!({
            "InstanceId": id, "Status": "Running", "Tags": {"Tag": tags},
            "SecurityGroupIds": {"SecurityGroupId": ["sg-a"]},
        })
    }

    fn page(rows: &[Value], next: &str) -> (u16, Value) {
        let answer = json!({"RequestId": "R", "Instances": {"Instance": rows}, "NextToken": next});
        (200, answer)
    }

    impl Transport for Cloud {
        fn send(
            &self,
            request: http::Request<bytes::Bytes>,
            _: Duration,
        ) -> BoxFuture<'_, Result<http::Response<bytes::Bytes>, TransportError>> {
            let asked = test_parameters(&request);
            let (status, body) = if let Some(ids) = asked.get("InstanceIds") {
                let ids: Vec<String> = serde_json::from_str(ids).unwrap();
                self.asked.lock().unwrap().push(ids.join(" "));
                let truth = self.truth.lock().unwrap();
                if ids
                    .iter()
                    .any(|id| truth.get(id) == Some(&json!("malformed")))
                {
                    let code = "InvalidInstanceId.Malformed";
                    (
                        400,
                        json!({"Code": code, "Message": "so it is", "RequestId": "R"}),
                    )
                } else {
                    let rows = ids.iter().filter_map(|id| Some(row(id, truth.get(id)?)));
                    page(&rows.collect::<Vec<_>>(), "")
                }
            } else {
                let field = |name| asked.get(name).map_or("", String::as_str);
                let (key, value) = (field("Tag.1.Key"), field("Tag.1.Value"));
                let asked = format!("{key}={value} {}", field("NextToken"));
                let asked = asked.trim_end().to_owned();
                self.asked.lock().unwrap().push(asked);
                self.pages.lock().unwrap().remove(0)
            };
            test_answer(status, body.to_string())
        }
    }

    struct Fixture {
        cloud: Arc<Cloud>,
        session: AccountSession,
        tags: InstanceTags,
        query: Query,
    }

    /// A set of `i-0`, `i-1` and `i-2`, which selects by `team: web`.
    fn fixture() -> Fixture {
        let cloud = Arc::<Cloud>::default();
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let transport = Arc::clone(&cloud) as Arc<dyn Transport>;
        let limits = CloudLimits::of_test("1");
        let session = AccountSession::new(
            Client::new(transport, credential, endpoints),
            Arc::clone(&limits),
            Arc::default(),
            Arc::default(),
            Shutdown::default(),
        );
        let members = Arc::new(Members::new(0));
        for number in 0..3 {
            let object: SecurityGroupMembership = serde_json::from_value(json!({
                "metadata": {
                    "name": format!("m{number}"), "namespace": "n", "uid": format!("m{number}"),
                    "ownerReferences": [{"apiVersion": "v1", "kind": "S", "name": "s", "uid": "s", "controller": true}],
                },
                "spec": {"region": "cn-hangzhou", "instanceID": format!("i-{number}"), "securityGroupID": "sg-a"},
            }))
            .unwrap();
            members.answered(&object, Instant::now());
        }
        let directory = Arc::new(Directory::new(reflector::store().0));
        let sets = Sets::new(&[]).0;
        let tags = InstanceTags::new(directory, members, sets, Duration::from_secs(60));
        let query = Query {
            account: AccountKey {
                kind: AccountKind::CloudAccount,
                namespace: "n".to_owned(),
                name: "own".to_owned(),
            },
            cloud: Arc::clone(&limits.id),
            region: "cn-hangzhou".parse().unwrap(),
            tags: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        };
        let key = ("n".to_owned(), "s".to_owned());
        assert!(tags.select(&"s".into(), key, query.clone()).is_none());
        Fixture {
            cloud,
            session,
            tags,
            query,
        }
    }

    fn web(id: &str) -> Value {
        row(id, &json!({"team": "web"}))
    }

    fn ids<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<String> {
        let mut ids: Vec<_> = targets.into_iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    }

    impl Fixture {
        /// The cloud's next list, and the true tags of the instances.
        fn cloud(&self, pages: Vec<(u16, Value)>, truth: &Value) {
            *self.cloud.pages.lock().unwrap() = pages;
            let truth = truth.as_object().into_iter().flatten();
            let truth = truth.map(|(id, tags)| (id.clone(), tags.clone()));
            *self.cloud.truth.lock().unwrap() = truth.collect();
        }

        async fn read(&self) -> [Vec<String>; 3] {
            let Tagged {
                picked,
                other,
                absent,
                trouble,
                ..
            } = self.tags.read(&self.query, &self.session).await.unwrap();
            assert_eq!(trouble, None);
            [ids(&picked), ids(&other), ids(&absent)]
        }

        /// What neither of the last two answers has shown.
        fn absent_twice(&self) -> Vec<String> {
            let key = ("n".to_owned(), "s".to_owned());
            let answer = self.tags.select(&"s".into(), key, self.query.clone());
            answer.map_or_else(Vec::new, |answer| ids(&answer.absent_twice))
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut *self.cloud.asked.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_list_leaves_out_is_asked_for_by_id() {
        let fixture = fixture();
        let truth = json!({"i-0": {"team": "web"}, "i-1": {"team": "db"}});
        fixture.cloud(vec![page(&[web("i-9")], "")], &truth);
        let [picked, other, absent] = fixture.read().await;
        // The list lies by omission about i-0; i-1 has another tag; i-2 is not there.
        assert_eq!(picked, ["i-0", "i-9"]);
        assert_eq!(
            (other, absent),
            (vec!["i-1".to_owned()], vec!["i-2".to_owned()])
        );
        assert_eq!(fixture.asked(), ["team=web", "i-0 i-1 i-2"]);
        assert_eq!(fixture.absent_twice(), [""; 0]);
        fixture.cloud(vec![page(&[web("i-0")], ""); 2], &truth);
        for twice in [&[][..], &["i-2"]] {
            let answer = fixture.tags.read(&fixture.query, &fixture.session).await;
            fixture.tags.store(&fixture.query, answer.unwrap());
            assert_eq!(fixture.absent_twice(), twice);
        }
        fixture.asked();
        let pages = vec![
            page(&[web("i-0"), web("i-1")], "more"),
            page(&[web("i-2")], ""),
        ];
        fixture.cloud(pages, &json!({}));
        let [picked, other, absent] = fixture.read().await;
        assert_eq!(picked, ["i-0", "i-1", "i-2"]);
        assert_eq!((&other[..], &absent[..]), (&[][..], &[][..]));
        assert_eq!(fixture.asked(), ["team=web", "team=web more"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_without_one_of_its_pages_says_nothing() {
        let untagged = page(&[row("i-0", &json!({}))], "");
        let malformed = page(&[json!({"InstanceId": 7})], "");
        let refused = (403, json!({"Code": "Forbidden.RAM", "Message": "No."}));
        let broken = (503, json!({"Code": "ServiceUnavailable", "Message": "No."}));
        for (bad, is_stalled) in [
            (untagged, false),
            (malformed, false),
            (refused, true),
            (broken, false),
        ] {
            let fixture = fixture();
            fixture.cloud(vec![page(&[web("i-0")], "")], &json!({"i-1": {}}));
            let answer = fixture.tags.read(&fixture.query, &fixture.session).await;
            fixture.tags.store(&fixture.query, answer.unwrap());
            let cut = vec![page(&[web("i-0"), web("i-9")], "more"), bad.clone()];
            fixture.cloud(cut, &json!({}));
            let error = fixture.tags.read(&fixture.query, &fixture.session).await;
            fixture.tags.fail(&fixture.query, &error.unwrap_err());
            let key = ("n".to_owned(), "s".to_owned());
            let told = fixture.tags.select(&"s".into(), key, fixture.query.clone());
            let told = told.unwrap();
            // Nothing is added, and there is no evidence against what was picked or not.
            assert_eq!(ids(&told.picked), ["i-0"], "{bad:?}");
            assert!(told.other.is_empty() && told.absent.is_empty(), "{bad:?}");
            let Some(Refusal::Tags { stalled, .. }) = told.trouble else {
                panic!("{bad:?}: {told:?}");
            };
            assert_eq!(stalled, is_stalled, "{bad:?}");
        }
    }

    /// The target of a membership from before the set selected by tags.
    #[tokio::test]
    async fn id_that_the_cloud_takes_for_none_hides_no_other() {
        let fixture = fixture();
        let truth = json!({"i-0": {"team": "db"}, "i-1": "malformed"});
        fixture.cloud(vec![page(&[], "")], &truth);
        let [picked, other, absent] = fixture.read().await;
        assert_eq!(
            (picked, other, absent),
            (vec![], vec!["i-0".to_owned()], vec!["i-2".to_owned()])
        );
    }

    /// Neither the list nor the reads by ID show anything: whatever the region shows then tells a key with the right from one without it.
    #[tokio::test]
    async fn any_instance_of_the_region_tells_that_the_key_sees_some() {
        let unreadable = page(&[json!({"InstanceId": 7})], "");
        for (region, is_evidence) in [
            (page(&[web("i-9")], ""), true),
            (page(&[], "more"), true),
            (unreadable, true),
            (page(&[], ""), false),
        ] {
            let fixture = fixture();
            fixture.cloud(vec![page(&[], ""), region.clone()], &json!({}));
            let answer = fixture.tags.read(&fixture.query, &fixture.session).await;
            let Tagged {
                absent, trouble, ..
            } = answer.unwrap();
            let (gone, refusal) = if is_evidence {
                (3, None)
            } else {
                let region = fixture.query.region.clone();
                (0, Some(Refusal::NothingShown(region)))
            };
            assert_eq!((absent.len(), trouble), (gone, refusal), "{region:?}");
            assert_eq!(fixture.asked(), ["team=web", "i-0 i-1 i-2", "="]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_target_is_looked_for_again_before_it_counts() {
        for (there, reads) in [(3, 1), (2, 2)] {
            let Fixture {
                cloud,
                session,
                mut tags,
                query,
            } = fixture();
            tags.period = Duration::from_secs(3_600);
            let directory = &tags.directory;
            directory.upsert(&query.account, Grants::OwnNamespace);
            directory.set_state(&query.account, AccountState::Ready(Arc::new(session)));
            let rows: Vec<_> = (0..there)
                .map(|number| web(&format!("i-{number}")))
                .collect();
            *cloud.pages.lock().unwrap() = vec![page(&rows, ""); reads];
            let followed = tokio::time::timeout(PATIENCE, tags.follow(&query)).await;
            assert!(followed.is_err());
            assert!(cloud.pages.lock().unwrap().is_empty(), "{there}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_not_certainly_all() {
        let fixture = fixture();
        for (number, trouble) in [(999, None), (1_000, Some(Refusal::ManyTagged))] {
            let rows: Vec<_> = (0..number)
                .map(|number| web(&format!("i-{number}")))
                .collect();
            let last = rows.len().div_ceil(100);
            let pages = (1..).zip(rows.chunks(100));
            let pages = pages.map(|(at, rows)| page(rows, if at == last { "" } else { "more" }));
            fixture.cloud(pages.collect(), &json!({}));
            let answer = fixture.tags.read(&fixture.query, &fixture.session).await;
            let answer = answer.unwrap();
            assert_eq!((answer.picked.len(), answer.trouble), (number, trouble));
            assert_eq!(fixture.asked().len(), 10);
        }
    }

    #[test]
    fn a_list_is_read_as_long_as_a_set_needs_it() {
        let Fixture { tags, query, .. } = fixture();
        let key = || ("n".to_owned(), "s".to_owned());
        let other = Query {
            tags: BTreeMap::from([("team".to_owned(), "db".to_owned())]),
            ..query.clone()
        };
        let queries = || tags.lock().len();
        assert!(tags.select(&"t".into(), key(), query.clone()).is_none());
        assert_eq!(queries(), 1, "two sets share a list");
        assert!(tags.select(&"t".into(), key(), other.clone()).is_none());
        assert_eq!(queries(), 2);
        tags.forget(&"t".into());
        assert_eq!(queries(), 1);
        assert!(tags.select(&"s".into(), key(), other).is_none());
        assert_eq!(queries(), 1, "a set has one list");
    }
}
