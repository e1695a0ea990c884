//! The operator as a process that is started, frozen, killed, measured and counted, each time with the arguments of the test.
//!
//! The tests share one control plane. One operator at a time serves all of it: a test that needs one waits for its turn
//! ([`OnlyOperator`]). What another operator or another test would falsify has a control plane of its own: `rbac` counts every
//! request of the operator, `start` and `stricter_crd` stop the API server or change CRDs, `large_objects` fills it, and the throttling of `cost` takes
//! minutes for which nobody should wait.
//! `user_roles` gives the operator one more right, which `tests/cluster` must not have.

mod cost;
mod crash;
mod first_status;
mod large_objects;
mod rbac;
mod reachable;
mod scan;
mod secrets;
mod shutdown;
mod start;
mod stricter_crd;
#[path = "../support/mod.rs"]
mod support;
mod user_roles;

use std::ops::{Deref, DerefMut};

use support::control_plane::ControlPlane;
use support::error::Result;
use support::operator::{Operator, Options};
use tokio::sync::{Mutex, MutexGuard};

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

/// The only operator on [`ControlPlane::shared`], for as long as a test keeps it.
struct OnlyOperator {
    // Dropped in this order: the next one starts when this one has ended.
    operator: Operator,
    _turn: MutexGuard<'static, ()>,
}

impl OnlyOperator {
    /// Waits until no other test has an operator, and starts one with these arguments.
    async fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_with(options(arguments)).await
    }

    async fn start_with(options: Options) -> Result<Self> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        Ok(Self {
            operator: Operator::start(ControlPlane::shared().await?, options).await?,
            _turn: turn,
        })
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
