//! Worlds for stories about sets: sets are judged all along, and when a story is over no rule may have been broken.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::monitor::sets::Delays;
use crate::scenario::seconds;
use crate::world::{SimOptions, World};

/// What the judge allows: a pass that had begun before the last change, an event on its way, and tags as of the last two scans. No story
/// needs more, slow as its API server may be: an operator looks again before each deletion.
const QUICK: Delays = Delays {
    slack: Duration::from_secs(3),
    late: Duration::from_secs(1),
    tags_age: Duration::from_secs(153),
    has_bad_lists: false,
};

/// A world in which sets are judged, from before the first operator starts.
pub struct Judged(World);

impl Judged {
    /// A world with an account and no operator yet.
    pub fn new() -> Self {
        let world = World::new(SimOptions::default());
        world.monitor.judge_sets(QUICK);
        Self(world)
    }
}

impl Deref for Judged {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Judged {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.monitor.read_log();
        self.monitor.read_journal();
        assert_eq!(self.monitor.violations(), [""; 0]);
    }
}

/// A world whose operator has seen the account, and runs for longer than what it reads may be older than its start.
pub async fn world() -> Judged {
    let mut world = Judged::new();
    world.start(None);
    seconds(11.0).await;
    world
}
