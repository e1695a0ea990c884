//! When calls of the operator may last have changed an edge. It tells whether a read of the edge counts. In memory only: no I/O,
//! no decisions.
//!
//! The cloud's answers may lag [`CLOUD_READ_LAG`] (10 s) behind a change. A call of unknown outcome may take effect until
//! [`CALL_DEADLINE`] (66 s) after it was sent. A process that has just begun to act knows of no call: to it every edge was changed
//! just now; or, if calls of the process before it may still be under way, is changed until they have ended.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ecs::{AccountUid, Action, Edge};
use crate::kubernetes::APPEARS_WITHIN;

use super::decide::ReadTrust;
use super::observation::CLOUD_READ_LAG;

/// How long after it was sent a Join or Leave of unknown outcome may take effect (66 s).
const CALL_DEADLINE: Duration = Action::JoinSecurityGroup.deadline();

/// How long a process that takes over waits for calls of the one before it (70 s): longer than a call takes, and as long as that
/// process may take to end.
const CALLS_OF_OTHERS: Duration = Duration::from_secs(70);

/// How much longer a call is remembered (16 s): the answer to a read that was sent before may still come.
const LONGEST_READ: Duration = Action::DescribeNetworkInterfaces.deadline();

/// How much longer an edge is remembered whose Leave got no answer (5 minutes): by then the scan has read it.
const LATE_READ: Duration = Duration::from_secs(5 * 60);

/// A call that may change an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeCall {
    /// `JoinSecurityGroup`.
    Join,
    /// `LeaveSecurityGroup`.
    Leave,
}

/// What the answer of a call tells of its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The edge is now as the call wanted it.
    Done,
    /// The call changed nothing.
    None,
    /// It may have had its effect, or may still have it.
    Unknown,
}

/// The calls of the last 92 s, by cloud account and edge.
#[derive(Debug)]
pub struct Ledger {
    /// The last moment at which a call of a process before this one can have its effect.
    others_end: Instant,
    /// When it became known that the calls of the process before this one have ended.
    others_ended: Option<Instant>,
    last: HashMap<(AccountUid, Edge), LastCall>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            others_end: Instant::now(),
            others_ended: None,
            last: HashMap::new(),
        }
    }
}

/// The last call on an edge, and earlier ones whose outcome is unknown.
#[derive(Clone, Copy, Debug)]
pub struct LastCall {
    call: EdgeCall,
    is_done: bool,
    /// The last moment at which the call can have had its effect.
    at: Instant,
    /// Until when a Join of unknown outcome may take effect.
    join_open_until: Option<Instant>,
    /// Until when a Leave of unknown outcome may take effect.
    leave_open_until: Option<Instant>,
    /// Until when a Join of another process may take effect.
    found_open_until: Option<Instant>,
}

impl LastCall {
    /// When a read that begins then shows the effect of every call.
    fn settles_at(&self) -> Instant {
        let open = self.join_open_until().max(self.leave_open_until);
        open.map_or(self.at, |open| open.max(self.at)) + CLOUD_READ_LAG
    }

    fn join_open_until(&self) -> Option<Instant> {
        self.join_open_until.max(self.found_open_until)
    }
}

/// Whether the effect of a call of unknown outcome may be missing from a read that begins at `moment`.
fn is_open(open_until: Option<Instant>, moment: Instant) -> bool {
    open_until.is_some_and(|open| moment < open + CLOUD_READ_LAG)
}

impl Ledger {
    /// Records that a call begins. Returns what was recorded before, for [`Ledger::ended`].
    pub fn began(&mut self, account: &AccountUid, edge: &Edge, call: EdgeCall) -> Option<LastCall> {
        let now = Instant::now();
        let may_arrive_until = now + CALL_DEADLINE;
        let key = (account.clone(), edge.clone());
        let before = self.last.get(&key).copied();
        let still_open = |open: Option<Instant>| open.filter(|_| is_open(open, now));
        let mut last = LastCall {
            call,
            is_done: false,
            at: may_arrive_until,
            join_open_until: still_open(before.and_then(|before| before.join_open_until)),
            leave_open_until: still_open(before.and_then(|before| before.leave_open_until)),
            found_open_until: still_open(before.and_then(|before| before.found_open_until)),
        };
        match call {
            EdgeCall::Join => last.join_open_until = Some(may_arrive_until),
            EdgeCall::Leave => last.leave_open_until = Some(may_arrive_until),
        }
        self.last.insert(key, last);
        before
    }

    /// Records how a call ended. A call of unknown outcome stays as it began.
    pub fn ended(
        &mut self,
        account: &AccountUid,
        edge: &Edge,
        before: Option<LastCall>,
        effect: Effect,
    ) {
        let key = (account.clone(), edge.clone());
        let now = Instant::now();
        match (effect, before) {
            (Effect::Unknown, _) => {}
            (Effect::Done, _) => {
                if let Some(last) = self.last.get_mut(&key) {
                    last.is_done = true;
                    last.at = now;
                    let (open, earlier) = match last.call {
                        EdgeCall::Join => (
                            &mut last.join_open_until,
                            before.and_then(|before| before.join_open_until),
                        ),
                        EdgeCall::Leave => (
                            &mut last.leave_open_until,
                            before.and_then(|before| before.leave_open_until),
                        ),
                    };
                    *open = earlier.filter(|_| is_open(earlier, now));
                }
            }
            (Effect::None, Some(before)) => {
                self.last.insert(key, before);
            }
            (Effect::None, None) => {
                self.last.remove(&key);
            }
        }
    }

    /// Records that the last object on the edge has gone and left the membership there: from now on it is others', whatever becomes of a
    /// Join of unknown outcome.
    pub fn retained(&mut self, account: &AccountUid, edge: &Edge) {
        let Some(last) = self.last.get_mut(&(account.clone(), edge.clone())) else {
            return;
        };
        last.join_open_until = None;
        last.found_open_until = None;
        if last.call == EdgeCall::Join {
            last.is_done = true;
            last.at = last.at.min(Instant::now());
        }
    }

    /// Records that another process may have sent a Join: an object with an intent appeared at `found_at`.
    pub fn found_intent(&mut self, account: &AccountUid, edge: &Edge, found_at: Instant) {
        let mut may_arrive_until = found_at + CALL_DEADLINE;
        if let Some(ended) = self.others_ended
            && found_at <= ended
        {
            may_arrive_until = may_arrive_until.min(ended);
        }
        let may_arrive_until = Some(may_arrive_until);
        if !is_open(may_arrive_until, Instant::now()) {
            return;
        }
        let key = (account.clone(), edge.clone());
        let last = self.last.entry(key).or_insert(LastCall {
            call: EdgeCall::Join,
            is_done: false,
            at: found_at,
            join_open_until: None,
            leave_open_until: None,
            found_open_until: None,
        });
        last.found_open_until = last.found_open_until.max(may_arrive_until);
    }

    /// Records that the process begins to act now. With `others_may_call`, calls that a process before it sent may still be under way.
    pub fn begins_to_act(&mut self, others_may_call: bool) {
        let open = if others_may_call {
            CALLS_OF_OTHERS
        } else {
            Duration::ZERO
        };
        self.others_end = Instant::now() + open;
    }

    /// Records that the calls of the process before this one have ended by now.
    pub fn others_have_ended(&mut self) {
        let now = Instant::now();
        self.others_end = self.others_end.min(now);
        self.others_ended = Some(now);
        for last in self.last.values_mut() {
            last.found_open_until = last.found_open_until.min(Some(now));
        }
    }

    /// Whether a call of a process before this one may still have its effect.
    #[must_use]
    pub fn others_may_be_calling(&self) -> bool {
        Instant::now() < self.others_end
    }

    /// Whether the process before this one has been silent for so long that nothing it did appears any more.
    #[must_use]
    pub fn acts_alone(&self) -> bool {
        Instant::now() > self.others_end + APPEARS_WITHIN
    }

    /// Whether any call, of this process or one before it, may still have an effect.
    #[must_use]
    pub fn has_open_calls(&self) -> bool {
        let now = Instant::now();
        let open = |last: &LastCall| last.join_open_until().max(last.leave_open_until);
        self.others_may_be_calling() || self.last.values().any(|last| open(last) > Some(now))
    }

    /// Whether a read of the edge that began at `began` counts. `member` is what it shows: what agrees with the answer of our last
    /// call needs no second proof, unless an earlier call may still change it.
    #[must_use]
    pub fn trust(
        &self,
        account: &AccountUid,
        edge: &Edge,
        began: Instant,
        member: bool,
    ) -> ReadTrust {
        let Some(last) = self.last.get(&(account.clone(), edge.clone())) else {
            return if began < self.others_end + CLOUD_READ_LAG {
                ReadTrust::AfterStart
            } else {
                ReadTrust::Settled
            };
        };
        let join_is_open = is_open(last.join_open_until(), began);
        let leave_is_open = is_open(last.leave_open_until, began);
        match last.call {
            // The first read that counts after a Leave without an answer: the Leave may have removed what was joined since.
            EdgeCall::Join if !member && last.leave_open_until.is_some() => ReadTrust::AfterLeave,
            _ if began >= self.settle_at(last) => ReadTrust::Settled,
            EdgeCall::Join if last.is_done && member && !leave_is_open => ReadTrust::Settled,
            EdgeCall::Leave if last.is_done && !member && !join_is_open => ReadTrust::Settled,
            EdgeCall::Join if !leave_is_open => ReadTrust::AfterJoin,
            EdgeCall::Join | EdgeCall::Leave => ReadTrust::AfterLeave,
        }
    }

    /// When a read of the edge will count, if no other call is made.
    #[must_use]
    pub fn settles_at(&self, account: &AccountUid, edge: &Edge) -> Instant {
        let last = self.last.get(&(account.clone(), edge.clone()));
        last.map_or(self.others_end + CLOUD_READ_LAG, |last| {
            self.settle_at(last)
        })
    }

    fn settle_at(&self, last: &LastCall) -> Instant {
        last.settles_at().max(self.others_end + CLOUD_READ_LAG)
    }

    /// Whether a Join of unknown outcome may still take effect. It may until a read counts that begins after the last call, and the
    /// operator calls Leave again only after such a read.
    #[must_use]
    pub fn join_is_open(&self, account: &AccountUid, edge: &Edge) -> bool {
        let last = self.last.get(&(account.clone(), edge.clone()));
        last.is_some_and(|last| {
            last.join_open_until().is_some() && Instant::now() < last.settles_at()
        })
    }

    /// Drops the calls whose effect every read shows, those under way included. After a Leave without an answer they are kept until a scan
    /// has read the edge.
    pub fn drop_settled(&mut self) {
        let now = Instant::now();
        self.last.retain(|_, last| {
            let needs_read = last.call == EdgeCall::Join && last.leave_open_until.is_some();
            let kept_for = if needs_read { LATE_READ } else { LONGEST_READ };
            now < last.settles_at() + kept_for
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn account() -> AccountUid {
        "1".into()
    }

    fn edge() -> Edge {
        Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: crate::ecs::Target::Instance("i-1".parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        }
    }

    fn call(ledger: &mut Ledger, call: EdgeCall, effect: Effect) {
        let before = ledger.began(&account(), &edge(), call);
        ledger.ended(&account(), &edge(), before, effect);
    }

    /// The longest read takes 16 s.
    #[tokio::test(start_paused = true)]
    async fn a_read_that_was_sent_before_a_join_never_counts() {
        let mut ledger = Ledger::default();
        tokio::time::advance(20 * SECOND).await;
        let sent = Instant::now();
        call(&mut ledger, EdgeCall::Join, Effect::Done);
        for _ in 0..16 {
            tokio::time::advance(SECOND).await;
            ledger.drop_settled();
            let trust = ledger.trust(&account(), &edge(), sent, false);
            assert_eq!(trust, ReadTrust::AfterJoin);
        }
    }

    fn reads(ledger: &Ledger) -> (ReadTrust, ReadTrust) {
        let trust = |member| ledger.trust(&account(), &edge(), Instant::now(), member);
        (trust(true), trust(false))
    }

    async fn after(seconds: u32) {
        tokio::time::advance(SECOND * seconds).await;
    }

    #[tokio::test(start_paused = true)]
    async fn new_process_believes_no_read_for_ten_seconds() {
        let ledger = Ledger::default();
        let start = ReadTrust::AfterStart;
        assert_eq!(reads(&ledger), (start, start));
        after(10).await;
        assert_eq!(reads(&ledger), (ReadTrust::Settled, ReadTrust::Settled));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_takes_over_is_settled_when_the_calls_before_it_have_ended() {
        let (start, settled) = (ReadTrust::AfterStart, ReadTrust::Settled);
        for (others_may_call, ended_after, settles_after) in
            [(false, None, 10), (true, None, 80), (true, Some(5), 15)]
        {
            let mut ledger = Ledger::default();
            // A standby has run for long.
            after(1_000).await;
            ledger.begins_to_act(others_may_call);
            let began = Instant::now();
            assert_eq!(ledger.others_may_be_calling(), others_may_call);
            assert_eq!(ledger.has_open_calls(), others_may_call);
            // A Join of this process is believed, its contrary is not.
            call(&mut ledger, EdgeCall::Join, Effect::Done);
            assert_eq!(reads(&ledger), (settled, ReadTrust::AfterJoin));
            ledger.last.clear();
            if let Some(seconds) = ended_after {
                after(seconds).await;
                ledger.others_have_ended();
            }
            assert_eq!(
                ledger.settles_at(&account(), &edge()),
                began + SECOND * settles_after
            );
            tokio::time::advance(began + SECOND * settles_after - SECOND - Instant::now()).await;
            assert_eq!(reads(&ledger), (start, start));
            call(&mut ledger, EdgeCall::Join, Effect::Done);
            ledger
                .last
                .values_mut()
                .for_each(|last| last.at -= SECOND * 9);
            assert_eq!(reads(&ledger).1, ReadTrust::AfterJoin);
            ledger.last.clear();
            after(1).await;
            assert_eq!(reads(&ledger), (settled, settled));
            assert!(!ledger.has_open_calls());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn intent_of_the_process_before_is_open_until_its_calls_have_ended() {
        let mut ledger = Ledger::default();
        ledger.begins_to_act(true);
        ledger.found_intent(&account(), &edge(), Instant::now());
        after(2).await;
        assert!(ledger.join_is_open(&account(), &edge()));
        ledger.others_have_ended();
        // What was found is found again by each pass.
        ledger.found_intent(&account(), &edge(), Instant::now() - SECOND * 2);
        after(9).await;
        assert!(ledger.join_is_open(&account(), &edge()));
        after(1).await;
        assert!(!ledger.join_is_open(&account(), &edge()));
        assert_eq!(reads(&ledger), (ReadTrust::Settled, ReadTrust::Settled));
    }

    #[tokio::test(start_paused = true)]
    async fn answered_call_is_believed_at_once_and_its_contrary_after_the_lag() {
        let (settled, joined, left) = (
            ReadTrust::Settled,
            ReadTrust::AfterJoin,
            ReadTrust::AfterLeave,
        );
        for (done, at_once) in [
            (EdgeCall::Join, (settled, joined)),
            (EdgeCall::Leave, (left, settled)),
        ] {
            let mut ledger = Ledger::default();
            after(10).await;
            call(&mut ledger, done, Effect::Done);
            assert_eq!(reads(&ledger), at_once);
            assert!(!ledger.join_is_open(&account(), &edge()));
            after(10).await;
            assert_eq!(reads(&ledger), (settled, settled));
            // A refused call changes nothing.
            call(&mut ledger, EdgeCall::Join, Effect::None);
            assert_eq!(reads(&ledger), (settled, settled));
            after(16).await;
            ledger.drop_settled();
            assert!(ledger.last.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn join_without_an_answer_is_open_for_76_seconds_whatever_follows() {
        let mut ledger = Ledger::default();
        after(10).await;
        call(&mut ledger, EdgeCall::Join, Effect::Unknown);
        after(5).await;
        call(&mut ledger, EdgeCall::Leave, Effect::Done);
        let unsettled = ReadTrust::AfterLeave;
        assert_eq!(reads(&ledger), (unsettled, unsettled));
        after(70).await;
        assert_eq!(reads(&ledger), (unsettled, unsettled), "75 s");
        assert!(ledger.join_is_open(&account(), &edge()));
        // A Leave that is answered now is followed by a read before the next one.
        call(&mut ledger, EdgeCall::Leave, Effect::Done);
        after(9).await;
        assert!(ledger.join_is_open(&account(), &edge()));
        after(1).await;
        assert!(!ledger.join_is_open(&account(), &edge()));
        assert_eq!(reads(&ledger), (ReadTrust::Settled, ReadTrust::Settled));
    }

    /// D2: the second Join is answered, and the first one may still arrive.
    #[tokio::test(start_paused = true)]
    async fn join_without_an_answer_is_open_although_a_later_one_is_answered() {
        let mut ledger = Ledger::default();
        after(10).await;
        call(&mut ledger, EdgeCall::Join, Effect::Unknown);
        after(5).await;
        call(&mut ledger, EdgeCall::Join, Effect::Done);
        after(70).await;
        assert!(ledger.join_is_open(&account(), &edge()), "75 s");
        after(1).await;
        assert!(!ledger.join_is_open(&account(), &edge()));
    }

    #[tokio::test(start_paused = true)]
    async fn leave_without_an_answer_explains_what_goes_missing_after_a_join() {
        let mut ledger = Ledger::default();
        after(10).await;
        call(&mut ledger, EdgeCall::Leave, Effect::Unknown);
        after(1).await;
        call(&mut ledger, EdgeCall::Join, Effect::Done);
        let left = ReadTrust::AfterLeave;
        assert_eq!(reads(&ledger), (left, left));
        after(75).await;
        // Until the next scan has read the edge.
        assert_eq!(reads(&ledger), (ReadTrust::Settled, left));
        ledger.drop_settled();
        assert_eq!(reads(&ledger).1, left);
        after(5 * 60).await;
        ledger.drop_settled();
        assert_eq!(reads(&ledger).1, ReadTrust::Settled);
    }

    #[tokio::test(start_paused = true)]
    async fn intent_of_another_process_is_an_open_join() {
        let mut ledger = Ledger::default();
        let found_at = Instant::now();
        ledger.found_intent(&account(), &edge(), found_at);
        assert_eq!(reads(&ledger).1, ReadTrust::AfterJoin);
        after(75).await;
        ledger.found_intent(&account(), &edge(), found_at);
        assert!(ledger.join_is_open(&account(), &edge()));
        after(1).await;
        ledger.found_intent(&account(), &edge(), found_at);
        assert!(!ledger.join_is_open(&account(), &edge()));
        assert_eq!(reads(&ledger).1, ReadTrust::Settled);
    }
}
