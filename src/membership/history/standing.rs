//! What this process knows of the claim of an object, beyond what the object says. No I/O.

use crate::api::membership::Origin;

use super::History;

/// What this process knows of the claim of an object, beyond what the object says. A new process knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing more.
    #[default]
    Unknown,
    /// Nothing of ours is there: the claim is void.
    Void,
    /// A Join of this process was accepted, and no record tells of it yet.
    Joined,
}

/// What changes what is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimEvent {
    /// A new intent is written. No Join was sent under it.
    Intended,
    /// A Join for the object begins: from now on it may have had its effect.
    JoinBegins,
    /// The Join for the object was accepted.
    Joined,
    /// A Join for another object on the edge was accepted.
    JoinedForAnother,
    /// Another object hands its membership over to this one.
    HandedOver,
    /// The Join for the object had no effect. Before it this was known.
    JoinRefused(Standing),
    /// Nothing of ours is there: a read that counts has shown it, or a Leave was answered for good.
    NothingOurs,
    /// The object has the record `Joined`, which it had not. `own` says that a pass of this process writes it; otherwise another object may
    /// have handed its membership over.
    RecordAppears {
        /// Whether a pass of this process writes it.
        own: bool,
    },
    /// The status has this record: it tells what this process has joined. A record `Adopted` says all there is to know.
    Recorded(Origin),
}

impl Standing {
    /// What is known after an event: whether a Join under the claim may have had an effect.
    #[must_use]
    pub const fn after(self, event: ClaimEvent) -> Self {
        use ClaimEvent as Event;
        match (event, self) {
            (Event::Intended | Event::NothingOurs, _) => Self::Void,
            (Event::Joined, _) => Self::Joined,
            (Event::JoinRefused(before), _) => before,
            (
                Event::JoinBegins
                | Event::JoinedForAnother
                | Event::HandedOver
                | Event::RecordAppears { own: false },
                Self::Void,
            )
            | (Event::Recorded(Origin::Adopted), _)
            | (Event::Recorded(Origin::Joined), Self::Joined) => Self::Unknown,
            (
                Event::JoinBegins
                | Event::JoinedForAnother
                | Event::HandedOver
                | Event::RecordAppears { .. }
                | Event::Recorded(Origin::Joined),
                known,
            ) => known,
        }
    }
}

impl History {
    /// What this process knows of the object's claim.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.rare
            .as_ref()
            .map_or(Standing::Unknown, |rare| rare.standing)
    }

    /// Records what an event tells of the object's claim.
    pub fn learns(&mut self, event: ClaimEvent) {
        use ClaimEvent as Event;
        match event {
            Event::Intended
            | Event::NothingOurs
            | Event::JoinRefused(Standing::Void)
            | Event::Recorded(_) => self.no_join_is_open(),
            Event::JoinBegins
            | Event::Joined
            | Event::JoinedForAnother
            | Event::HandedOver
            | Event::JoinRefused(Standing::Unknown | Standing::Joined)
            | Event::RecordAppears { .. } => {}
        }
        let standing = self.standing().after(event);
        if self.standing() != standing {
            self.rare().standing = standing;
        }
    }

    /// Records that a pass writes the record `Joined` of its own object now. Without an answer it may appear late.
    pub fn record_is_sent(&mut self) {
        self.record_may_appear = true;
    }

    /// Records that the API server has stored a status of this process, and shown it: no earlier write appears any more, because it names
    /// an older version.
    pub fn status_is_stored(&mut self) {
        self.record_may_appear = false;
    }

    /// The object has the record `Joined`, which it had not.
    pub fn record_appears(&mut self) {
        self.learns(ClaimEvent::RecordAppears {
            own: self.record_may_appear,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each event on each state; what is not in the table stays.
    #[test]
    fn each_event_tells_of_each_claim_what_the_table_says() {
        use ClaimEvent as Event;
        use Standing::{Joined, Unknown, Void};
        for (event, from_unknown, from_void, from_joined) in [
            (Event::Intended, Void, Void, Void),
            (Event::JoinBegins, Unknown, Unknown, Joined),
            (Event::Joined, Joined, Joined, Joined),
            (Event::JoinedForAnother, Unknown, Unknown, Joined),
            (Event::HandedOver, Unknown, Unknown, Joined),
            (Event::JoinRefused(Unknown), Unknown, Unknown, Unknown),
            (Event::JoinRefused(Void), Void, Void, Void),
            (Event::JoinRefused(Joined), Joined, Joined, Joined),
            (Event::NothingOurs, Void, Void, Void),
            // A void claim stays void if the record is our own late one.
            (Event::RecordAppears { own: true }, Unknown, Void, Joined),
            (
                Event::RecordAppears { own: false },
                Unknown,
                Unknown,
                Joined,
            ),
            (Event::Recorded(Origin::Joined), Unknown, Void, Unknown),
            (Event::Recorded(Origin::Adopted), Unknown, Unknown, Unknown),
        ] {
            let after = [Unknown, Void, Joined].map(|standing| standing.after(event));
            assert_eq!(after, [from_unknown, from_void, from_joined], "{event:?}");
        }
    }
}
