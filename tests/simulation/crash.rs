//! Crash at every request: each path is run without a fault once, and then again with the operator killed before each of its
//! requests and after the effect of each, alone and in pairs. The end must be the same, and the invariants hold all the time.

use std::time::Duration;

use serde_json::json;

use crate::link::KillPoint;
use crate::monitor::MEMBERSHIPS;
use crate::topology::{INTERFACE, TEAMS, name_own_account};
use crate::world::{SimOptions, World};

/// At a second, something that happens.
type Step = (f64, fn(&World));

/// What happens on a path, by the second.
pub struct Path {
    pub name: &'static str,
    before: fn(&World),
    steps: &'static [Step],
    /// The second at which the end is looked at.
    end: u64,
    /// Whether the target is in sg-a then, as the promises have it.
    pub member: bool,
}

pub const PATHS: &[Path] = &[
    Path {
        name: "create",
        before: |_| {},
        steps: &[(1.0, create)],
        end: 20,
        member: true,
    },
    Path {
        name: "adopt",
        before: there,
        steps: &[(1.0, create)],
        end: 20,
        member: true,
    },
    Path {
        name: "refuse",
        before: there,
        steps: &[(1.0, |world| {
            world.membership("m", 0, 0, json!({"adoptionPolicy": "Refuse"}));
        })],
        end: 20,
        member: true,
    },
    Path {
        name: "wait for a starting instance",
        before: |world| {
            world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting", "for": "15s"}}));
        },
        steps: &[(1.0, create)],
        end: 50,
        member: true,
    },
    Path {
        name: "repair",
        before: |_| {},
        steps: &[(1.0, create), (5.0, |world| world.foreign(0, 0, false))],
        end: 150,
        member: true,
    },
    Path {
        name: "report",
        before: |_| {},
        steps: &[
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
            }),
            (30.0, |world| world.foreign(0, 0, false)),
        ],
        end: 150,
        member: false,
    },
    Path {
        name: "delete what was joined",
        before: |_| {},
        steps: &[(1.0, create), (15.0, delete)],
        end: 40,
        member: false,
    },
    Path {
        name: "delete at once",
        before: |_| {},
        steps: &[(1.0, create), (1.03, delete)],
        end: 40,
        member: false,
    },
    Path {
        name: "delete what was adopted",
        before: there,
        steps: &[(1.0, create), (15.0, delete)],
        end: 40,
        member: true,
    },
    Path {
        name: "delete with Leave what was adopted",
        before: there,
        steps: &[
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"deletionPolicy": "Remove"}));
            }),
            (40.0, delete),
        ],
        end: 60,
        member: false,
    },
    Path {
        name: "delete with Retain",
        before: |_| {},
        steps: &[
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"deletionPolicy": "Retain"}));
            }),
            (15.0, delete),
        ],
        end: 40,
        member: true,
    },
    Path {
        name: "delete with a target that is gone",
        before: |_| {},
        steps: &[
            (1.0, create),
            (15.0, |world| world.cloud(json!({"delete": {"id": "i-0"}}))),
            (15.5, delete),
        ],
        end: 40,
        member: false,
    },
    Path {
        name: "share and let go in order",
        before: |_| {},
        steps: &[
            (1.0, create),
            (8.0, other),
            (20.0, delete),
            (30.0, delete_other),
        ],
        end: 60,
        member: false,
    },
    Path {
        name: "share and let go in reverse",
        before: |_| {},
        steps: &[
            (1.0, create),
            (8.0, other),
            (20.0, delete_other),
            (30.0, delete),
        ],
        end: 60,
        member: false,
    },
    Path {
        name: "share and let go at once",
        before: |_| {},
        steps: &[
            (1.0, create),
            (8.0, other),
            (20.0, |world| {
                delete(world);
                delete_other(world);
            }),
        ],
        end: 60,
        member: false,
    },
    Path {
        name: "delete and make again",
        before: |_| {},
        steps: &[
            (1.0, create),
            (15.0, |world| {
                delete(world);
            }),
            // After a crash the deletion may wait for the Join of the process before.
            (110.0, create),
        ],
        end: 130,
        member: true,
    },
    Path {
        name: "create for a network interface",
        before: |_| {},
        steps: &[(1.0, create_for_an_interface)],
        end: 20,
        member: true,
    },
    Path {
        name: "delete for a network interface",
        before: |_| {},
        steps: &[(1.0, create_for_an_interface), (15.0, delete)],
        end: 40,
        member: false,
    },
    Path {
        name: "share between two accounts and let go in order",
        before: |world| {
            world.write_secret(TEAMS, 0);
            world.account(TEAMS, true);
        },
        steps: &[
            (1.0, create),
            (8.0, other_by_its_own_account),
            (20.0, delete),
            (30.0, delete_other),
        ],
        end: 60,
        member: false,
    },
];

fn create(world: &World) {
    world.membership("m", 0, 0, json!({}));
}

fn other(world: &World) {
    world.membership("other", 0, 0, json!({}));
}

fn create_for_an_interface(world: &World) {
    world.membership("m", INTERFACE, 0, json!({}));
}

fn other_by_its_own_account(world: &World) {
    let mut rest = json!({});
    name_own_account(&mut rest);
    world.membership("other", 0, 0, rest);
}

fn delete(world: &World) {
    world.delete("m");
}

fn delete_other(world: &World) {
    world.delete("other");
}

fn there(world: &World) {
    world.foreign(0, 0, true);
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    pub picture: Vec<String>,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    /// Requests of each incarnation.
    pub requests: Vec<usize>,
}

impl End {
    /// Whether it is as it was to be.
    pub fn is_as(&self, wanted: &[String]) -> bool {
        self.violations.is_empty() && self.picture == wanted
    }
}

/// Seconds until the outcome of every call of a killed process shows, and a pass more.
const OPEN: u64 = 80;

/// Runs a path; the incarnations end where `crashes` says, one after the other.
pub async fn run(path: &Path, crashes: &[(usize, KillPoint)], traced: bool) -> End {
    let mut world = World::new(SimOptions::default());
    world.monitor.keep_trace(traced);
    (path.before)(&world);
    let mut crashes = crashes.iter().copied();
    world.start(crashes.next());
    let started = tokio::time::Instant::now();
    let mut steps = path.steps.iter();
    let mut next = steps.next();
    // A Join that the killed process may have sent is awaited before a deletion ends.
    let enough = Duration::from_secs(path.end + OPEN);
    let end = started + enough;
    // A restart takes its time; the end is looked at when the last incarnation has had as much as the first.
    let mut until = end;
    loop {
        let at = next.map_or(until, |(second, _)| {
            started + Duration::from_secs_f64(*second)
        });
        let link = world.incarnations.last().unwrap().link.clone();
        tokio::select! {
            biased;
            () = link.died.notified() => {
                world.kill(world.incarnations.len() - 1);
                tokio::time::sleep(Duration::from_millis(500)).await;
                world.start(crashes.next());
                until = until.max(tokio::time::Instant::now() + enough);
            }
            () = tokio::time::sleep_until(at) => match next {
                Some((_, act)) => {
                    act(&world);
                    next = steps.next();
                }
                None => break,
            }
        }
    }
    world.monitor.check_all_left_behind();
    End {
        picture: world.picture(),
        violations: world.monitor.violations(),
        trace: world.monitor.take_trace(),
        requests: world
            .incarnations
            .iter()
            .map(|process| {
                process
                    .link
                    .requests
                    .load(std::sync::atomic::Ordering::SeqCst)
            })
            .collect(),
    }
}

/// Whether some object is still there that must not be.
pub fn describe(
    path: &Path,
    crashes: &[(usize, KillPoint)],
    wanted: &[String],
    end: &End,
) -> Option<String> {
    if end.is_as(wanted) {
        return None;
    }
    Some(format!(
        "path {:?}, crashes {crashes:?}\n{}\nviolations: {:#?}\nwithout a crash it ends with {wanted:#?}\nhere with {:#?} ({MEMBERSHIPS})",
        path.name,
        end.trace.join("\n"),
        end.violations,
        end.picture,
    ))
}
