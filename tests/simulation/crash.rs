//! Crash at every request: each path is run without a fault once, and then again with the operator killed before each of its
//! requests and after the effect of each, alone and in pairs. The end must be the same, and the invariants hold all the time.

use std::collections::BTreeMap;
use std::time::Duration;

use security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
use serde_json::{Value, json};

use crate::link::KillPoint;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::add_fault;
use crate::topology::{INTERFACE, KEYS, TEAMS, name_own_account};
use crate::world::{SimOptions, World};

/// At a second, something that happens.
type Step = (f64, fn(&World));

/// What happens on a path, by the second.
pub struct Path {
    pub name: &'static str,
    /// How many seconds the cloud's reads lag.
    lag: u64,
    before: fn(&World),
    steps: &'static [Step],
    /// The second at which the end is looked at.
    end: u64,
    /// Whether the target is in sg-a then, as the promises have it.
    pub member: bool,
    /// Joins and Leaves of the operator in the cloud's journal, without a crash.
    pub calls: (usize, usize),
    /// The requests of the operator, without a crash: as many cuts, and no fewer.
    pub requests: usize,
    /// What the monitor must have counted, without a crash: what the path is about.
    pub meets: Option<&'static str>,
    /// What a kill may cost, as the design grants it.
    pub cost: Option<Cost>,
}

/// What a kill costs on a path where the next process cannot know what the one before it knew.
pub struct Cost {
    /// The exceptions that the monitor counts then, one of them.
    exceptions: &'static [&'static str],
    /// Whether the target is in sg-a then.
    member: bool,
    /// At how many points at most a kill has this cost: before and after each request while the next process cannot know. With 0 only a
    /// second kill has it.
    pub points: u64,
}

/// A path on which nothing is before the first step, and on which no kill costs anything.
const PLAIN: Path = Path {
    name: "",
    lag: 0,
    before: |_| {},
    steps: &[],
    end: 0,
    member: false,
    calls: (0, 0),
    requests: 0,
    meets: None,
    cost: None,
};

pub const PATHS: &[Path] = &[
    Path {
        name: "create",
        steps: &[(1.0, create)],
        end: 20,
        member: true,
        calls: (1, 0),
        requests: 27,
        ..PLAIN
    },
    Path {
        name: "adopt",
        before: there,
        steps: &[(1.0, create)],
        end: 20,
        member: true,
        calls: (0, 0),
        requests: 25,
        ..PLAIN
    },
    Path {
        name: "refuse",
        before: there,
        steps: &[(1.0, |world| {
            world.membership("m", 0, 0, json!({"adoptionPolicy": "Refuse"}));
        })],
        end: 20,
        member: true,
        calls: (0, 0),
        requests: 25,
        ..PLAIN
    },
    Path {
        name: "wait for a starting instance",
        before: |world| {
            world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting", "for": "15s"}}));
        },
        steps: &[(1.0, create)],
        end: 50,
        member: true,
        calls: (1, 0),
        requests: 32,
        ..PLAIN
    },
    Path {
        name: "repair",
        steps: &[(1.0, create), (5.0, |world| world.foreign(0, 0, false))],
        end: 150,
        member: true,
        calls: (2, 0),
        requests: 36,
        ..PLAIN
    },
    Path {
        name: "report",
        steps: &[
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
            }),
            (30.0, |world| world.foreign(0, 0, false)),
        ],
        end: 150,
        member: false,
        calls: (1, 0),
        requests: 37,
        ..PLAIN
    },
    Path {
        name: "delete what was joined",
        steps: &[(1.0, create), (15.0, delete)],
        end: 40,
        member: false,
        calls: (1, 1),
        requests: 32,
        ..PLAIN
    },
    Path {
        name: "delete at once",
        steps: &[(1.0, create), (1.03, delete)],
        end: 40,
        member: false,
        calls: (1, 1),
        requests: 27,
        ..PLAIN
    },
    Path {
        name: "delete what was adopted",
        before: there,
        steps: &[(1.0, create), (15.0, delete)],
        end: 40,
        member: true,
        calls: (0, 0),
        requests: 25,
        ..PLAIN
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
        calls: (0, 1),
        requests: 29,
        ..PLAIN
    },
    Path {
        name: "delete with Retain",
        steps: &[
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"deletionPolicy": "Retain"}));
            }),
            (15.0, delete),
        ],
        end: 40,
        member: true,
        calls: (1, 0),
        requests: 25,
        ..PLAIN
    },
    Path {
        name: "delete with a target that is gone",
        steps: &[
            (1.0, create),
            (15.0, |world| world.cloud(json!({"delete": {"id": "i-0"}}))),
            (15.5, delete),
        ],
        end: 40,
        member: false,
        calls: (1, 0),
        requests: 31,
        ..PLAIN
    },
    Path {
        name: "share and let go in order",
        steps: &[
            (1.0, create),
            (8.0, other),
            (20.0, delete),
            (30.0, delete_other),
        ],
        end: 60,
        member: false,
        calls: (1, 1),
        requests: 44,
        ..PLAIN
    },
    Path {
        name: "share and let go in reverse",
        steps: &[
            (1.0, create),
            (8.0, other),
            (20.0, delete_other),
            (30.0, delete),
        ],
        end: 60,
        member: false,
        calls: (1, 1),
        requests: 40,
        ..PLAIN
    },
    Path {
        name: "share and let go at once",
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
        calls: (1, 1),
        requests: 39,
        ..PLAIN
    },
    Path {
        name: "delete and make again",
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
        calls: (2, 1),
        requests: 43,
        ..PLAIN
    },
    Path {
        name: "create for a network interface",
        steps: &[(1.0, create_for_an_interface)],
        end: 20,
        member: true,
        calls: (1, 0),
        requests: 27,
        ..PLAIN
    },
    Path {
        name: "delete for a network interface",
        steps: &[(1.0, create_for_an_interface), (15.0, delete)],
        end: 40,
        member: false,
        calls: (1, 1),
        requests: 32,
        ..PLAIN
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
        calls: (1, 1),
        requests: 55,
        ..PLAIN
    },
    // The row of a Join that was refused: the claim goes, the status tells it. What others make then is theirs (A7).
    Path {
        name: "a refused Join",
        before: refuse_joins,
        steps: &[
            (1.0, create),
            // After two crashes the last process waits for 76 s for a Join of the one before. It may wait still.
            (180.0, there),
            (285.0, delete),
        ],
        end: 295,
        member: true,
        calls: (0, 0),
        requests: 47,
        cost: Some(Cost {
            exceptions: &["MadeWhileOpen"],
            member: false,
            points: 0,
        }),
        ..PLAIN
    },
    // The same of a repair: the record goes as well (C7, C9).
    Path {
        name: "a refused repair",
        steps: &[
            (1.0, create),
            (15.0, |world| {
                refuse_joins(world);
                world.foreign(0, 0, false);
            }),
            (150.0, there),
            (240.0, delete),
        ],
        end: 250,
        member: true,
        calls: (1, 0),
        requests: 55,
        cost: Some(Cost {
            exceptions: &["MadeWhileOpen"],
            member: false,
            points: 0,
        }),
        ..PLAIN
    },
    // Three repairs are undone, and the next removal is a repair loop. A process that begins before that is told repairs anew.
    Path {
        name: "a repair loop",
        steps: &[
            (1.0, create),
            (15.0, gone),
            (80.0, gone),
            (145.0, gone),
            (210.0, gone),
            (300.0, delete),
        ],
        end: 320,
        member: false,
        calls: (4, 0),
        requests: 63,
        ..PLAIN
    },
    // The read lags behind others' Join: the operator's own is answered with `AlreadyExists`. A process that is killed before it has taken
    // its intent off leaves an open one to the next (A10).
    Path {
        name: "refuse after AlreadyExists",
        lag: 5,
        steps: &[
            (0.9, there),
            (1.0, |world| {
                world.membership("m", 0, 0, json!({"adoptionPolicy": "Refuse"}));
            }),
            (110.0, delete),
        ],
        end: 130,
        member: true,
        calls: (0, 0),
        requests: 31,
        cost: Some(Cost {
            exceptions: &["MadeWhileOpen"],
            member: false,
            points: 6,
        }),
        ..PLAIN
    },
    // G13, D9: the finalizer of a deleted object cannot be taken off. The status says what was done, and the record goes.
    Path {
        name: "a refused finalizer",
        steps: &[
            (1.0, create),
            (15.0, |world| {
                world.faults.set_policy(Some(("m", 422)));
                delete(world);
            }),
            (120.0, there),
            (160.0, |world| {
                world.faults.set_policy(None);
                let asked = json!({RECONCILE_REQUESTED_ANNOTATION: "now"});
                world.patch("m", json!({"metadata": {"annotations": asked}}));
            }),
        ],
        end: 500,
        member: true,
        calls: (1, 1),
        requests: 62,
        meets: Some("write refused by a policy"),
        ..PLAIN
    },
    // F5: the API server has decided to remove the object when the operator writes its finalizer. Only the process that sees it go can
    // know what was joined (F8).
    Path {
        name: "delete in the moment of the claim",
        steps: &[
            (1.0, create),
            (RACE, |world| {
                world.delete_slowly("m", Duration::from_millis(6));
            }),
        ],
        end: 40,
        member: false,
        calls: (1, 1),
        requests: 25,
        meets: Some("finalizer written while the object is removed"),
        cost: Some(Cost {
            exceptions: &["RaceUnseen"],
            member: true,
            points: 12,
        }),
        ..PLAIN
    },
];

/// A few milliseconds before the first pass over an object of the first second writes its finalizer.
const RACE: f64 = 1.017;

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

fn gone(world: &World) {
    world.foreign(0, 0, false);
}

/// From now on the cloud refuses every Join.
fn refuse_joins(world: &World) {
    let full = json!({"error": {"code": "InstanceSecurityGroupLimitExceeded", "status": 403}});
    add_fault(world, "JoinSecurityGroup", 1_000, &full);
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    pub picture: Vec<String>,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    /// Requests of each incarnation.
    pub requests: Vec<usize>,
    /// Joins and Leaves of the operator in the cloud's journal.
    pub calls: (usize, usize),
    /// What the monitor has counted.
    pub counts: BTreeMap<&'static str, u64>,
}

impl End {
    /// Whether the target is in sg-a.
    pub fn member(&self) -> bool {
        let mut lines = self.picture.iter();
        lines.any(|line| line.ends_with(" is in sg-a"))
    }

    /// Whether it is as it was to be, or as the design grants it after a kill.
    pub fn is_as(&self, wanted: &[String], cost: Option<&Cost>) -> bool {
        self.violations.is_empty() && (self.picture == wanted || self.costs(cost))
    }

    /// Whether the kill had the cost that the path has: nothing else differs, and the monitor has counted why.
    pub fn costs(&self, cost: Option<&Cost>) -> bool {
        let is_counted = |exception: &&str| {
            let word = format!("exception {exception}");
            self.counts.contains_key(&*word)
        };
        cost.is_some_and(|cost| {
            let is_member = self.picture == ["i-0 is in sg-a"];
            (is_member || self.picture.is_empty())
                && is_member == cost.member
                && cost.exceptions.iter().any(is_counted)
        })
    }
}

/// Joins and Leaves of the operator in the cloud's journal.
fn calls(world: &World) -> (usize, usize) {
    let entries = world.simulator.journal_from(0);
    let count = |action: &str| {
        let by_operator = |entry: &&Value| KEYS.iter().any(|(id, _, _)| entry["by"] == *id);
        let of_action = entries.iter().filter(|entry| entry["action"] == action);
        of_action.filter(by_operator).count()
    };
    (count("JoinSecurityGroup"), count("LeaveSecurityGroup"))
}

/// Seconds until the outcome of every call of a killed process shows, and a pass more.
const OPEN: u64 = 80;

/// Runs a path; the incarnations end where `crashes` says, one after the other.
pub async fn run(path: &Path, crashes: &[(usize, KillPoint)], traced: bool) -> End {
    let mut world = World::new(SimOptions {
        lag: Duration::from_secs(path.lag),
        ..SimOptions::default()
    });
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
        calls: calls(&world),
        counts: world.monitor.counts(),
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
    if end.is_as(wanted, path.cost.as_ref()) {
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

/// In what a run without a crash differs from what its path says.
pub fn problems(path: &Path, end: &End) -> Vec<String> {
    let mut problems = end.violations.clone();
    if end.member() != path.member {
        problems.push(format!("it ends with {:?}", end.picture));
    }
    if end.calls != path.calls {
        problems.push(format!("Joins and Leaves: {:?}", end.calls));
    }
    if end.requests[0] < path.requests {
        problems.push(format!("requests: {}", end.requests[0]));
    }
    if let Some(meets) = path.meets.filter(|meets| !end.counts.contains_key(meets)) {
        problems.push(format!("never: {meets}"));
    }
    problems
}
