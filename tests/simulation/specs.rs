//! Sequences of what users write, without a fault: whatever they do to objects, policies, grants, accounts and annotations,
//! in whatever order, ends as the last of it says. `PROPTEST_CASES` says how many sequences, `PROPTEST_SEED` which.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::schedule::{self, Act, Schedule};
use crate::topology::{self, ACCOUNTS, FREE_INTERFACE, KEYS, MISPLACED};
use crate::world::SimOptions;
use crate::{in_virtual_time, number};

/// Sequences in `cargo test`, which is not optimized.
const SEQUENCES: u32 = 32;

#[test]
fn no_sequence_of_specs_breaks_an_invariant() {
    let config = Config {
        cases: number("PROPTEST_CASES").map_or(SEQUENCES, |cases| u32::try_from(cases).unwrap()),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("PROPTEST_SEED").unwrap_or(0).to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let outcome = TestRunner::new_with_rng(config, random).run(&sequences(), |acts| {
        let schedule = Schedule {
            options: SimOptions {
                own_accounts: true,
                ..SimOptions::default()
            },
            acts,
        };
        let outcome = in_virtual_time(|| schedule::run(&schedule, false));
        prop_assert_eq!(outcome.problems, Vec::<String>::new());
        Ok(())
    });
    if let Err(smallest) = outcome {
        panic!("{smallest}");
    }
}

fn sequences() -> impl Strategy<Value = Vec<(Duration, Act)>> {
    vec((pause(), act()), 1..30).prop_map(|steps| {
        let mut at = Duration::ZERO;
        steps
            .into_iter()
            .map(|(pause, act)| {
                at += Duration::from_millis(pause);
                (at, act)
            })
            .collect()
    })
}

/// At once, within a pass, after it, and after a scan.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..60_u64, 2 => 60..3_000_u64, 1 => 3_000..90_000_u64]
}

fn act() -> impl Strategy<Value = Act> {
    // Three names on three targets, one of them not there: objects are made again, and share edges.
    let name = 0..3_usize;
    let target = select(&[0, FREE_INTERFACE, MISPLACED]);
    prop_oneof![
        8 => (name.clone(), target, 0..2_usize, rest())
            .prop_map(|(name, target, group, rest)| Act::Create { name, target, group, rest }),
        4 => (name.clone(), policies()).prop_map(|(name, policies)| Act::Policies { name, policies }),
        3 => (name.clone(), annotations())
            .prop_map(|(name, annotations)| Act::Annotate { name, annotations }),
        6 => name.prop_map(|name| Act::Delete { name }),
        1 => any::<bool>().prop_map(|granted| Act::Grant { granted }),
        1 => (0..ACCOUNTS.len(), any::<bool>(), 0..KEYS.len())
            .prop_map(|(account, there, key)| Act::Secret { account, there, key }),
        1 => (0..ACCOUNTS.len(), any::<bool>())
            .prop_map(|(account, there)| Act::Account { account, there }),
    ]
}

/// The policies and the account.
fn rest() -> impl Strategy<Value = Value> {
    (policies(), any::<bool>()).prop_map(|(mut rest, own)| {
        if own {
            topology::name_own_account(&mut rest);
        }
        rest
    })
}

fn policies() -> impl Strategy<Value = Value> {
    let policy = |words: &'static [&'static str]| of(select(words));
    (
        policy(&["Manage", "Observe"]),
        policy(&["Adopt", "Refuse"]),
        policy(&["RemoveIfJoined", "Remove", "Retain"]),
        policy(&["Repair", "Report"]),
    )
        .prop_map(|(management, adoption, deletion, drift)| {
            let mut policies = json!({});
            for (name, value) in [
                ("managementPolicy", management),
                ("adoptionPolicy", adoption),
                ("deletionPolicy", deletion),
                ("driftPolicy", drift),
            ] {
                if let Some(value) = value {
                    policies[name] = json!(value);
                }
            }
            policies
        })
}

/// Ours for users with sense and nonsense in them, and somebody else's.
fn annotations() -> impl Strategy<Value = Value> {
    let name = select(&[
        "security-group-operator.io/reconcile-requested-at",
        "example.com/nonsense",
    ]);
    let value = prop_oneof![
        2 => Just(json!("true")),
        2 => Just(Value::Null),
        1 => select(&["", "TRUE", "yes", "false", "0"]).prop_map(|word| json!(word)),
        1 => ".{0,40}".prop_map(|word| json!(word)),
    ];
    (name, value).prop_map(|(name, value)| json!({name: value}))
}
