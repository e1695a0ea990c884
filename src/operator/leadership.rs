//! Has the process act only while it holds the Lease.

use tracing::info;

use crate::args::Settings;
use crate::clock::Clock;
use crate::kubernetes::lease::{self, Election};
use crate::membership;
use crate::shutdown::Shutdown;

/// The election that the process takes part in, if it is asked to.
pub(super) fn election(
    settings: &Settings,
    client: &kube::Client,
    shutdown: &Shutdown,
    clock: &Clock,
) -> Option<Election> {
    settings.lease_duration.map(|duration| {
        Election::new(
            client.clone(),
            &settings.operator_namespace,
            settings.instance.as_deref(),
            duration,
            shutdown.clone(),
            clock.clone(),
        )
    })
}

/// Has the process act while it holds the Lease, and returns why it may not any more. Never returns without an election.
pub(super) async fn lead(
    election: Option<&Election>,
    context: &membership::Context,
) -> lease::Lost {
    let telemetry = &context.telemetry;
    let Some(election) = election else {
        telemetry.set_leader(true);
        return std::future::pending().await;
    };
    // Who has listed nothing yet does not take the Lease from a standby that has.
    context.until_listed().await;
    let mut held = election.acquire(telemetry).await;
    let mut others_may_call = held.others_may_call();
    context.table.begins_to_act(others_may_call);
    if held.others_have_ended() {
        context.others_have_ended();
    } else if others_may_call {
        info!(
            "nothing is removed until the calls of the leader before this one have ended, 70 s at most"
        );
    }
    election.begin(&held);
    telemetry.set_leader(true);
    loop {
        let have_ended = !context.table.others_may_be_calling();
        if let Err(lost) = election.renew(&mut held, have_ended, telemetry).await {
            telemetry.set_leader(false);
            return lost;
        }
        if others_may_call && !held.others_may_call() {
            others_may_call = false;
            context.others_have_ended();
        }
    }
}

/// Gives the Lease up as soon as the process is to end. Never returns.
pub(super) async fn release(
    election: Option<&Election>,
    context: &membership::Context,
    shutdown: &Shutdown,
) {
    shutdown.begun().await;
    if let Some(election) = election {
        context.telemetry.set_leader(false);
        election.release(context.table.has_open_calls()).await;
    }
    std::future::pending::<()>().await;
}
