//! What this process knows of the claim of an object, beyond what the object says. No I/O.

use crate::api::membership::Origin;

use super::History;

/// What this process knows of the claim of an object, beyond what the object says. A new process knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing more.
    #[default]
    Unknown,
    /// Nothing of ours is there: the claim is void.
    Void,
    /// A Join of this process was accepted, and no record tells of it yet.
    Joined,
}

impl History {
    /// What this process knows of the object's claim.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.rare
            .as_ref()
            .map_or(Standing::Unknown, |rare| rare.standing)
    }

    /// Records what this process knows of the object's claim.
    pub fn set_standing(&mut self, standing: Standing) {
        if standing == Standing::Void {
            self.no_join_is_open();
        }
        if self.standing() != standing {
            self.rare().standing = standing;
        }
    }

    /// A Join of ours on the edge was accepted through another object, or ownership was handed to this one: a void claim is none
    /// any more.
    pub fn revive(&mut self) {
        if self.standing() == Standing::Void {
            self.set_standing(Standing::Unknown);
        }
    }

    /// Records whether a pass writes the record `Joined` of its own object now.
    pub fn set_writes_record(&mut self, writes: bool) {
        self.writes_record = writes;
    }

    /// The object has the record `Joined`, which it had not. Another object may have handed its membership over; a void claim stays void
    /// if the record is our own late one.
    pub fn record_appears(&mut self) {
        if !self.writes_record {
            self.revive();
        }
    }

    /// The status has this record: it tells what this process has joined. A record `Adopted` says all there is to know.
    pub fn recorded(&mut self, origin: Origin) {
        self.no_join_is_open();
        if origin == Origin::Adopted || self.standing() == Standing::Joined {
            self.set_standing(Standing::Unknown);
        }
    }
}
