//! The operator as a process that is started, frozen, killed, measured and counted, each time with the arguments of the test.
//!
//! The tests share [`PLANES`] control planes. One operator at a time serves all of one: a test waits until one is free
//! ([`OnlyOperator`]). What another operator or another test would falsify has a control plane of its own: `rbac` counts every
//! request of the operator, `start` and `stricter_crd` stop the API server or change CRDs, `large_objects` and `floods` fill it, and
//! the throttling of `cost` takes minutes, which would hold up every other test.
//! `user_roles` gives the operator one more right, which `tests/cluster` must not have.

mod canaries;
mod cost;
mod crash;
mod credentials;
mod deletions;
mod first_status;
mod floods;
mod large_objects;
mod monitoring;
mod node_conditions;
mod node_rights;
mod older_crd;
mod rbac;
mod reachable;
mod scan;
mod scrapers;
mod secrets;
mod shutdown;
mod sources;
mod start;
mod stricter_crd;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod user_roles;

use std::ops::{Deref, DerefMut};

use futures::future::select_all;
use support::control_plane::ControlPlane;
use support::env::TestEnv;
use support::error::Result;
use support::operator::{Operator, Options};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// An operator with these arguments, which logs what it does.
fn options(arguments: &[&str]) -> Options {
    let logged = ["--log=security_group_operator=debug,info"];
    let arguments = logged.iter().chain(arguments);
    Options {
        binary: binaries!().operator,
        arguments: arguments.map(ToString::to_string).collect(),
        environment: Vec::new(),
    }
}

/// How many tests run an operator at the same time. Most of the time they wait for deadlines of the cloud.
const PLANES: usize = 3;

/// A control plane for one operator after the other. It starts when a test needs it, and ends with the process.
struct Plane {
    turn: Mutex<()>,
    plane: OnceCell<ControlPlane>,
}

/// The only operator on its control plane, for as long as a test keeps it.
struct OnlyOperator {
    // Dropped in this order: the next one starts when this one has ended.
    operator: Operator,
    plane: &'static ControlPlane,
    _turn: MutexGuard<'static, ()>,
}

impl OnlyOperator {
    /// Waits until a control plane has no operator, and starts one there with these arguments.
    async fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_with(options(arguments)).await
    }

    async fn start_with(options: Options) -> Result<Self> {
        static ALL: [Plane; PLANES] = [const {
            Plane {
                turn: Mutex::const_new(()),
                plane: OnceCell::const_new(),
            }
        }; PLANES];
        let turns = ALL
            .iter()
            .map(|one| Box::pin(async { (one.turn.lock().await, &one.plane) }));
        let ((turn, plane), ..) = select_all(turns).await;
        let plane = plane.get_or_try_init(ControlPlane::start).await?;
        Ok(Self {
            operator: Operator::start(plane, options).await?,
            plane,
            _turn: turn,
        })
    }

    /// A cloud, an account and a namespace for this operator.
    async fn env(&self, inventory: &str) -> Result<TestEnv> {
        TestEnv::start_on(self.plane, &binaries!(), inventory).await
    }
}

impl Deref for OnlyOperator {
    type Target = Operator;

    fn deref(&self) -> &Operator {
        &self.operator
    }
}

impl DerefMut for OnlyOperator {
    fn deref_mut(&mut self) -> &mut Operator {
        &mut self.operator
    }
}
