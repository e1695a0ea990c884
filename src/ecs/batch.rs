//! Group commit of reads: callers ask for one target each, one call reads up to 100 targets. Reads only.
//!
//! The first request is sent at once. Requests that arrive during a call are sent together afterwards, at most
//! [`MAX_IDS_PER_CALL`] per call, or fewer where an answer was too large ([`Pace`]). A full batch is sent at once, up to `CALLS`
//! calls in flight. Under load (at least `BURST_THRESHOLD` requests arrived during one call, or arrived or were sent within
//! `AFTER_LOAD`, or another call is in flight) a partial batch waits for more: until none has come for `GAP`, but not longer than
//! `LONGEST`. Answers are matched by ID, never by position. The calls run in a task of their own: a cancelled caller does not cancel the
//! call for the others.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::action::MAX_IDS_PER_CALL;

/// Calls in flight at most, while there are full batches to send.
const CALLS: usize = 4;

/// So many IDs in one batch are load, and so many that follow another one within [`AFTER_LOAD`]: more than 10 per second.
const BURST_THRESHOLD: usize = 5;
/// How long after load a batch is under load, too (500 ms).
const AFTER_LOAD: Duration = Duration::from_millis(500);
/// Under load, a partial batch is sent when no further ID has come for this long (200 ms).
const GAP: Duration = Duration::from_millis(200);
/// How long a partial batch waits for more IDs under load at most (1 s).
const LONGEST: Duration = Duration::from_secs(1);

/// How long fewer IDs than [`MAX_IDS_PER_CALL`] are read per call after an answer was too large (1 hour).
const SMALL_CALLS: Duration = Duration::from_secs(60 * 60);

/// How a cloud account reads through one API in a region, whichever of its account objects asks: how many IDs a call may name, and
/// when there was load.
#[derive(Debug, Default)]
pub struct Pace(Mutex<PaceState>);

#[derive(Debug, Default)]
struct PaceState {
    /// How many IDs the last answer had that was not too large, and since when that counts.
    fits: Option<(usize, Instant)>,
    /// When the last IDs arrived, [`BURST_THRESHOLD`] at most.
    arrived: VecDeque<Instant>,
    /// When there was load: a batch of [`BURST_THRESHOLD`] IDs or more was sent, or as many arrived in a short time.
    load: Option<Instant>,
}

impl Pace {
    /// Most IDs of a call.
    #[must_use]
    pub fn most(&self) -> usize {
        let fits = self.lock().fits;
        fits.filter(|(_, since)| since.elapsed() < SMALL_CALLS)
            .map_or(MAX_IDS_PER_CALL, |(fits, _)| fits)
    }

    /// The answer for so many IDs was too large: from now on a call has half as many at most.
    pub fn was_too_large(&self, ids: usize) {
        let most = self.most().min((ids / 2).max(1));
        self.lock().fits = Some((most, Instant::now()));
    }

    /// An ID arrives. A short time for many of them is load, even if each call before found few of them waiting.
    fn arrives(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        state.arrived.push_back(now);
        if state.arrived.len() > BURST_THRESHOLD
            && let Some(first) = state.arrived.pop_front()
            && now - first < AFTER_LOAD
        {
            state.load = Some(now);
        }
    }

    /// A batch of so many IDs is sent.
    fn sends(&self, ids: usize) {
        if ids >= BURST_THRESHOLD {
            self.lock().load = Some(Instant::now());
        }
    }

    fn is_under_load(&self) -> bool {
        let load = self.lock().load;
        load.is_some_and(|at| at.elapsed() < AFTER_LOAD)
    }

    fn lock(&self) -> MutexGuard<'_, PaceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the halves of a batch are read after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// No ID of the batch has caused the failure: a throttle, a server error.
    No,
    /// One ID may have caused it: halved until that ID is alone.
    OneBadId,
    /// The answer was too large.
    TooLarge,
}

/// The result of a call for a batch of IDs: a value per existing ID. An ID without a value does not exist.
pub type BatchResult<Id, Value, Failure> = Result<HashMap<Id, Value>, Failure>;

/// The call that reads a batch.
type Ask<Id, Value, Failure> =
    dyn Fn(Vec<Id>) -> BoxFuture<'static, BatchResult<Id, Value, Failure>> + Send + Sync;

/// One queue per API, account and region.
pub struct Batch<Id, Value, Failure> {
    shared: Arc<Shared<Id, Value, Failure>>,
}

struct Shared<Id, Value, Failure> {
    ask: Box<Ask<Id, Value, Failure>>,
    split: fn(&Failure) -> Split,
    pace: Arc<Pace>,
    queue: Mutex<Queue<Id, Value, Failure>>,
    full: Notify,
}

struct Queue<Id, Value, Failure> {
    /// IDs in order of arrival, and the waiters of each ID.
    order: VecDeque<Id>,
    waiting: HashMap<Id, Vec<Waiter<Value, Failure>>>,
    in_flight: usize,
    /// Whether one of those waits for more IDs.
    gathers: bool,
}

/// What a worker does next.
enum Turn {
    /// Sends what waits, if anything does.
    Send,
    /// Waits for more, and then sends it.
    Gather,
    /// Leaves it to the worker that waits for more.
    End,
}

type Waiter<Value, Failure> = oneshot::Sender<Result<Option<Value>, Failure>>;

impl<Id, Value, Failure> Batch<Id, Value, Failure>
where
    Id: Clone + Eq + Hash + Send + Sync + 'static,
    Value: Clone + Send + 'static,
    Failure: Clone + Send + 'static,
{
    /// A queue that calls `ask`. `split` tells after which failures the halves of a batch are read. `pace` is shared with
    /// other callers of the same API.
    pub fn new(
        ask: impl Fn(Vec<Id>) -> BoxFuture<'static, BatchResult<Id, Value, Failure>>
        + Send
        + Sync
        + 'static,
        split: fn(&Failure) -> Split,
        pace: Arc<Pace>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                ask: Box::new(ask),
                split,
                pace,
                queue: Mutex::new(Queue {
                    order: VecDeque::new(),
                    waiting: HashMap::new(),
                    in_flight: 0,
                    gathers: false,
                }),
                full: Notify::new(),
            }),
        }
    }

    /// The value for `id`; `None` if a complete answer does not list it.
    ///
    /// # Errors
    /// The failure of the call for this ID.
    pub async fn get(&self, id: Id) -> Result<Option<Value>, Failure> {
        let receiver = Shared::enqueue(&self.shared, id);
        match receiver.await {
            Ok(answer) => answer,
            // `work` answers every waiter that has not been dropped.
            Err(_) => {
                unreachable!("a request is dropped without an answer only when the runtime ends")
            }
        }
    }
}

impl<Id, Value, Failure> Shared<Id, Value, Failure>
where
    Id: Clone + Eq + Hash + Send + Sync + 'static,
    Value: Clone + Send + 'static,
    Failure: Clone + Send + 'static,
{
    fn enqueue(shared: &Arc<Self>, id: Id) -> oneshot::Receiver<Result<Option<Value>, Failure>> {
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut queue = shared.lock();
            let waiters = queue.waiting.entry(id.clone()).or_default();
            let first = waiters.is_empty();
            waiters.push(sender);
            if first {
                queue.order.push_back(id);
                shared.pace.arrives();
            }
            let is_full = queue.order.len() >= shared.pace.most();
            let more = is_full && !queue.gathers && queue.in_flight < CALLS;
            let start = queue.in_flight == 0 || more;
            queue.in_flight += usize::from(start);
            if is_full {
                shared.full.notify_one();
            }
            start
        };
        if start {
            Self::start(shared);
        }
        receiver
    }

    fn start(shared: &Arc<Self>) {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { Self::work(&shared).await });
    }

    /// Calls until there are no waiters left.
    async fn work(shared: &Arc<Self>) {
        loop {
            match shared.turn() {
                Turn::Send => {}
                Turn::Gather => {
                    // Ends in any case.
                    let _ = tokio::time::timeout(LONGEST, shared.gather()).await;
                    shared.lock().gathers = false;
                }
                Turn::End => return,
            }
            let Some(batch) = shared.next_batch() else {
                return;
            };
            // More than one batch has come while it gathered.
            if shared.leaves_a_full_batch() {
                Self::start(shared);
            }
            let answers = shared.ask(batch).await;
            for (waiters, answer) in answers {
                for waiter in waiters {
                    // An error means that the caller was cancelled.
                    let _ = waiter.send(answer.clone());
                }
            }
        }
    }

    /// What a worker does with what waits. One worker at a time waits for more.
    fn turn(&self) -> Turn {
        let mut queue = self.lock();
        let waiting = queue.order.len();
        if !(1..self.pace.most()).contains(&waiting) {
            return Turn::Send;
        }
        if queue.gathers {
            queue.in_flight -= 1;
            return Turn::End;
        }
        let is_after_load = self.pace.is_under_load();
        queue.gathers = waiting >= BURST_THRESHOLD || is_after_load || queue.in_flight > 1;
        if queue.gathers {
            Turn::Gather
        } else {
            Turn::Send
        }
    }

    /// Waits until the batch is full, or no further ID has come for [`GAP`].
    async fn gather(&self) {
        let mut before = self.lock().order.len();
        loop {
            // It may also tell of a batch that was full earlier.
            let told = tokio::time::timeout(GAP, self.full.notified()).await;
            let waiting = self.lock().order.len();
            if waiting >= self.pace.most() || (told.is_err() && waiting <= before) {
                return;
            }
            before = waiting;
        }
    }

    /// Whether another batch is full that no call takes; a new call counts as in flight from now on.
    fn leaves_a_full_batch(&self) -> bool {
        let mut queue = self.lock();
        let more = queue.order.len() >= self.pace.most() && queue.in_flight < CALLS;
        queue.in_flight += usize::from(more);
        more
    }

    /// The next IDs with their waiters; `None`, and one worker less, if no waiter is left.
    fn next_batch(&self) -> Option<Block<Id, Value, Failure>> {
        let most = self.pace.most();
        let mut queue = self.lock();
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(id) = queue.order.pop_front() else {
                break;
            };
            let mut waiters = queue.waiting.remove(&id).unwrap_or_default();
            waiters.retain(|waiter| !waiter.is_closed());
            if !waiters.is_empty() {
                batch.push((id, waiters));
            }
        }
        if batch.is_empty() {
            queue.in_flight -= 1;
            return None;
        }
        self.pace.sends(batch.len());
        Some(batch)
    }

    /// Calls for a batch, and for its halves after a failure that smaller calls may not have.
    async fn ask(
        &self,
        batch: Block<Id, Value, Failure>,
    ) -> Vec<(Vec<Waiter<Value, Failure>>, Result<Option<Value>, Failure>)> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            let ids = batch.iter().map(|(id, _)| id.clone()).collect();
            match (self.ask)(ids).await {
                Ok(mut found) => {
                    answers.extend(
                        batch
                            .into_iter()
                            .map(|(id, waiters)| (waiters, Ok(found.remove(&id)))),
                    );
                }
                Err(failure) if batch.len() > 1 && (self.split)(&failure) != Split::No => {
                    if (self.split)(&failure) == Split::TooLarge {
                        self.pace.was_too_large(batch.len());
                    }
                    let other = batch.split_off(batch.len() / 2);
                    batches.push(other);
                    batches.push(batch);
                }
                Err(failure) => {
                    answers.extend(
                        batch
                            .into_iter()
                            .map(|(_, waiters)| (waiters, Err(failure.clone()))),
                    );
                }
            }
        }
        answers
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Id, Value, Failure>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Block<Id, Value, Failure> = Vec<(Id, Vec<Waiter<Value, Failure>>)>;

impl<Id, Value, Failure> fmt::Debug for Batch<Id, Value, Failure> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Even numbers exist and have their double as value; `bad` fails with `Malformed`. Each call takes 30 ms.
    #[derive(Clone, Default)]
    struct Cloud {
        calls: Arc<AtomicUsize>,
        largest: Arc<AtomicUsize>,
        in_flight: Arc<AtomicUsize>,
        most_in_flight: Arc<AtomicUsize>,
        bad: Option<u32>,
        /// The call that names it takes 10 s.
        slow: Option<u32>,
        failing: bool,
        /// Most IDs of which the answer is not too large.
        fits: Option<usize>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Failure {
        Malformed,
        Throttled,
        TooLarge,
    }

    impl Cloud {
        fn batch(&self) -> Batch<u32, u32, Failure> {
            self.batch_with(Arc::default())
        }

        fn batch_with(&self, pace: Arc<Pace>) -> Batch<u32, u32, Failure> {
            let cloud = self.clone();
            Batch::new(
                move |ids: Vec<u32>| {
                    let cloud = cloud.clone();
                    async move {
                        let in_flight = cloud.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
                        cloud.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
                        let is_slow = cloud.slow.is_some_and(|slow| ids.contains(&slow));
                        let takes = if is_slow { 10_000 } else { 30 };
                        tokio::time::sleep(Duration::from_millis(takes)).await;
                        cloud.in_flight.fetch_sub(1, Ordering::SeqCst);
                        cloud.calls.fetch_add(1, Ordering::SeqCst);
                        cloud.largest.fetch_max(ids.len(), Ordering::SeqCst);
                        if cloud.fits.is_some_and(|fits| ids.len() > fits) {
                            return Err(Failure::TooLarge);
                        }
                        if cloud.failing {
                            return Err(Failure::Throttled);
                        }
                        if cloud.bad.is_some_and(|bad| ids.contains(&bad)) {
                            return Err(Failure::Malformed);
                        }
                        Ok(ids
                            .into_iter()
                            .filter(|id| id % 2 == 0)
                            .map(|id| (id, id * 2))
                            .collect())
                    }
                    .boxed()
                },
                |failure| match failure {
                    Failure::Malformed => Split::OneBadId,
                    Failure::Throttled => Split::No,
                    Failure::TooLarge => Split::TooLarge,
                },
                pace,
            )
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_ids_need_at_most_101_calls() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let answers = join_all((0..10_000).map(|id| batch.get(id))).await;
        for (id, answer) in (0..).zip(answers) {
            assert_eq!(answer, Ok((id % 2 == 0).then_some(id * 2)), "{id}");
        }
        assert!(cloud.calls() <= 101, "{} calls", cloud.calls());
        assert_eq!(cloud.largest.load(Ordering::SeqCst), MAX_IDS_PER_CALL);
    }

    #[tokio::test(start_paused = true)]
    async fn only_full_batches_are_sent_in_parallel() {
        for (requests, expected) in [(10_000, CALLS), (50, 1)] {
            let cloud = Cloud::default();
            let batch = cloud.batch();
            let answers = join_all((0..requests).map(|id| batch.get(id))).await;
            assert!(answers.iter().all(Result::is_ok));
            let most = cloud.most_in_flight.load(Ordering::SeqCst);
            assert_eq!(most, expected, "{requests} requests");
            // An idle queue works like a new one.
            assert_eq!(batch.get(4).await, Ok(Some(8)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_batch_is_sent_without_further_delay() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        // The first call starts with 1 request; 20 more arrive during it, which is load. At 50 ms another 80 fill the batch.
        let asks = (0..101).map(|id| async move {
            let at = if id < 21 { id.min(1) } else { 50 };
            tokio::time::sleep_until(start + Duration::from_millis(u64::from(at))).await;
            batch.get(id).await
        });
        let answers = join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(cloud.calls(), 2);
        assert_eq!(start.elapsed(), Duration::from_millis(80));
    }

    /// Requests every so many milliseconds, after 20 at once. Returns the calls, and how long the first 20 took.
    async fn load(requests: u32, every: u64) -> (usize, Duration) {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        let ask = |id: u32| async move {
            let later = u64::from(id.saturating_sub(20)) * every;
            let at = u64::from(id.min(1)) + later;
            tokio::time::sleep_until(start + Duration::from_millis(at)).await;
            let answer = batch.get(id).await;
            assert!(answer.is_ok());
            start.elapsed()
        };
        let took = join_all((0..requests).map(ask)).await;
        (
            cloud.calls(),
            took[..20].iter().copied().max().unwrap_or_default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn partial_batch_under_load_is_sent_when_none_has_come_for_200_ms() {
        let sent = Duration::from_millis(30 + 200 + 30);
        assert_eq!(load(20, 0).await, (2, sent));
    }

    #[tokio::test(start_paused = true)]
    async fn partial_batch_under_load_waits_one_second_at_most() {
        let (_, took) = load(60, 90).await;
        assert_eq!(took, Duration::from_millis(30 + 1_000 + 30));
    }

    #[tokio::test(start_paused = true)]
    async fn load_of_100_per_second_nearly_fills_batches() {
        let (calls, _) = load(2_000, 10).await;
        assert!(calls <= 22, "{calls} calls");
    }

    /// Each call ends before more than two wait: none of them is load on its own.
    #[tokio::test(start_paused = true)]
    async fn steady_load_without_a_burst_is_gathered() {
        for (every, most) in [(10, 22), (25, 56), (80, 180)] {
            let cloud = Cloud::default();
            let batch = cloud.batch();
            let (batch, start) = (&batch, tokio::time::Instant::now());
            let asks = (0..2_000).map(|id| async move {
                let at = start + Duration::from_millis(u64::from(id) * every);
                tokio::time::sleep_until(at).await;
                batch.get(id).await
            });
            let answers = join_all(asks).await;
            assert!(answers.iter().all(Result::is_ok));
            let calls = cloud.calls();
            assert!(calls <= most, "{calls} calls, one ID in {every} ms");
        }
    }

    /// Two account objects of one cloud account, of which each alone has no load.
    #[tokio::test(start_paused = true)]
    async fn load_of_two_account_objects_is_gathered() {
        let (cloud, pace) = (Cloud::default(), Arc::default());
        let batches = [0, 1].map(|_| cloud.batch_with(Arc::clone(&pace)));
        let (batches, start) = (&batches, tokio::time::Instant::now());
        let asks = (0..2_000).map(|id| async move {
            let at = start + Duration::from_millis(u64::from(id) * 80);
            tokio::time::sleep_until(at).await;
            batches[id as usize % 2].get(id).await
        });
        assert!(join_all(asks).await.iter().all(Result::is_ok));
        let calls = cloud.calls();
        assert!(calls <= 400, "{calls} calls");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_a_full_batch_wait_for_more() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        // 20 wait when another 85 come, and 10 more a little later.
        let asks = (0..116).map(|id: u32| async move {
            let at = match id {
                0..=20 => id.min(1),
                21..=105 => 50,
                _ => 60,
            };
            tokio::time::sleep_until(start + Duration::from_millis(u64::from(at))).await;
            batch.get(id).await
        });
        let answers = join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(cloud.calls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn full_batches_that_come_while_one_gathers_are_sent_in_parallel() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        // 20 wait when another 380 come at once.
        let asks = (0..401).map(|id: u32| async move {
            let at = if id > 20 { 50 } else { id.min(1) };
            tokio::time::sleep_until(start + Duration::from_millis(u64::from(at))).await;
            batch.get(id).await
        });
        let answers = join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(cloud.calls(), 5);
        assert_eq!(start.elapsed(), Duration::from_millis(80));
    }

    #[tokio::test(start_paused = true)]
    async fn call_that_hangs_holds_up_no_request_for_longer_than_a_second() {
        let cloud = Cloud {
            slow: Some(150),
            ..Cloud::default()
        };
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        // Of two full batches, one hangs. 50 more wait.
        let asks = (0..251).map(|id: u32| async move {
            let answer = batch.get(id).await;
            assert!(answer.is_ok());
            start.elapsed()
        });
        let took = join_all(asks).await;
        let hung = took.iter().filter(|took| **took >= Duration::from_secs(10));
        assert_eq!(hung.count(), 100);
        let others = took.iter().filter(|took| **took < Duration::from_secs(10));
        assert!(others.max().unwrap() <= &Duration::from_millis(30 + 30 + 1_000 + 30));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_requests_make_no_call() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let first = batch.get(2);
        let gave_up = async {
            let _ = tokio::time::timeout(Duration::from_millis(5), batch.get(4)).await;
        };
        let (answer, ()) = futures::future::join(first, gave_up).await;
        assert_eq!(answer, Ok(Some(4)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cloud.calls(), 1);
        assert_eq!(format!("{batch:?}"), "Batch");
    }

    #[tokio::test(start_paused = true)]
    async fn single_request_is_sent_at_once() {
        let started = tokio::time::Instant::now();
        assert_eq!(Cloud::default().batch().get(4).await, Ok(Some(8)));
        assert_eq!(started.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn burst_of_500_per_second_nearly_fills_batches() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        let asks = (0..2_000).map(|id| async move {
            tokio::time::sleep_until(start + Duration::from_millis(u64::from(id) * 2)).await;
            batch.get(id).await
        });
        let answers = join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok));
        assert!(cloud.calls() <= 22, "{} calls", cloud.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn few_requests_are_not_delayed() {
        let batch = Cloud::default().batch();
        let (batch, start) = (&batch, tokio::time::Instant::now());
        let _ = join_all((0..4).map(|id| batch.get(id))).await;
        assert!(
            start.elapsed() <= Duration::from_millis(60),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn size_of_answers_that_fit_is_remembered_for_an_hour() {
        let cloud = Cloud {
            fits: Some(30),
            ..Cloud::default()
        };
        let batch = cloud.batch();
        let read = async |batch: &Batch<u32, u32, Failure>| {
            let before = cloud.calls();
            let answers = join_all((0..400).map(|id| batch.get(id))).await;
            for (id, answer) in (0..).zip(answers) {
                assert_eq!(answer, Ok((id % 2 == 0).then_some(id * 2)), "{id}");
            }
            cloud.calls() - before
        };
        // The first one alone. Of those in flight each finds out: of 100, of 50 twice, and four times 25.
        let first = read(&batch).await;
        assert!(first <= 1 + 4 * 7, "{first} calls");
        tokio::time::advance(Duration::from_secs(50 * 60)).await;
        assert_eq!(read(&batch).await, 16, "25 each");
        tokio::time::advance(Duration::from_secs(10 * 60)).await;
        assert_eq!(batch.shared.pace.most(), MAX_IDS_PER_CALL);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_for_one_id_that_is_too_large_fails_that_id() {
        let cloud = Cloud {
            fits: Some(0),
            ..Cloud::default()
        };
        let batch = cloud.batch();
        let answers = join_all((0..4).map(|id| batch.get(id))).await;
        assert_eq!(answers, [Err(Failure::TooLarge); 4]);
        assert_eq!(batch.shared.pace.most(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn duplicate_requests_share_a_call() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let _ = join_all([batch.get(2), batch.get(4), batch.get(4), batch.get(4)]).await;
        assert!(cloud.calls() <= 2, "{} calls", cloud.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_id_fails_only_its_own_request() {
        let cloud = Cloud {
            bad: Some(41),
            ..Cloud::default()
        };
        let batch = cloud.batch();
        let answers = join_all((0..101).map(|id| batch.get(id))).await;
        for (id, answer) in (0..).zip(answers) {
            let expected = if id == 41 {
                Err(Failure::Malformed)
            } else {
                Ok((id % 2 == 0).then_some(id * 2))
            };
            assert_eq!(answer, expected, "{id}");
        }
        assert!(cloud.calls() <= 2 + 2 * 7, "{} calls", cloud.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_batch_is_not_split() {
        let cloud = Cloud {
            failing: true,
            ..Cloud::default()
        };
        let batch = cloud.batch();
        let answers = join_all((0..100).map(|id| batch.get(id))).await;
        assert!(
            answers
                .iter()
                .all(|answer| *answer == Err(Failure::Throttled))
        );
        assert!(cloud.calls() <= 2, "{} calls", cloud.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_caller_does_not_affect_others() {
        let cloud = Cloud::default();
        let batch = cloud.batch();
        let impatient = tokio::time::timeout(Duration::from_millis(1), batch.get(2));
        let patient = async {
            tokio::time::sleep(Duration::from_micros(500)).await;
            batch.get(2).await
        };
        let (gave_up, answer) = futures::future::join(impatient, patient).await;
        assert!(gave_up.is_err());
        assert_eq!(answer, Ok(Some(4)));
    }
}
