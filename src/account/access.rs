//! One usable account's calls: through its gate, counted, and stopped where the cloud throttles. No decisions.

use tokio::time::Instant;

use crate::ecs::limit::{Gate, Priority};
use crate::ecs::{Action, Client, Error, Region, RequestId, Target, TargetDescription};
use crate::membership::edge::Edge;
use crate::telemetry::Telemetry;

use std::sync::Arc;

/// An account that the cloud knows.
#[derive(Debug)]
pub struct Account {
    /// UID at the cloud.
    pub uid: String,
    client: Client,
    gate: Gate,
    telemetry: Arc<Telemetry>,
}

/// Why a call has no answer to give.
#[derive(Debug)]
pub enum CallError {
    /// It was not made: the cloud throttles this action until then.
    Stopped(Instant),
    /// It was made and failed.
    Failed(Error),
}

impl Account {
    /// An account whose credentials the cloud accepted.
    #[must_use]
    pub fn new(client: Client, uid: String, telemetry: Arc<Telemetry>) -> Self {
        Self {
            uid,
            client,
            gate: Gate::default(),
            telemetry,
        }
    }

    /// What the cloud says of the target; none where a complete answer does not list it.
    ///
    /// # Errors
    /// The call was held back, or failed.
    pub async fn describe(
        &self,
        region: &Region,
        target: &Target,
    ) -> Result<Option<TargetDescription>, CallError> {
        match target {
            Target::Instance(id) => {
                let ids = std::slice::from_ref(id);
                let call = self.client.describe_instances(region, ids);
                let mut found = self.call(region, Action::DescribeInstances, call).await?;
                Ok(found.remove(id))
            }
            Target::NetworkInterface(id) => {
                let ids = std::slice::from_ref(id);
                let call = self.client.describe_network_interfaces(region, ids);
                let mut found = self
                    .call(region, Action::DescribeNetworkInterfaces, call)
                    .await?;
                Ok(found.remove(id))
            }
        }
    }

    /// Joins the edge's target to its group.
    ///
    /// # Errors
    /// The call was held back, or failed.
    pub async fn join(&self, edge: &Edge) -> Result<RequestId, CallError> {
        let call = self
            .client
            .join_security_group(&edge.region, &edge.target, &edge.group);
        self.call(&edge.region, Action::JoinSecurityGroup, call)
            .await
    }

    /// Takes the edge's target out of its group.
    ///
    /// # Errors
    /// The call was held back, or failed.
    pub async fn leave(&self, edge: &Edge) -> Result<RequestId, CallError> {
        let call = self
            .client
            .leave_security_group(&edge.region, &edge.target, &edge.group);
        self.call(&edge.region, Action::LeaveSecurityGroup, call)
            .await
    }

    async fn call<T>(
        &self,
        region: &Region,
        action: Action,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CallError> {
        let permit = self
            .gate
            .enter(region, action, Priority::User, None)
            .await
            .map_err(CallError::Stopped)?;
        let started = Instant::now();
        let result = call.await;
        drop(permit);
        let error = result.as_ref().err();
        self.telemetry
            .count_call(action, region, error, started.elapsed());
        self.gate.note(region, action, error);
        result.map_err(CallError::Failed)
    }
}
