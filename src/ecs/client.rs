//! Client for one cloud account: one typed method per action. No retries, no rate limit, no state.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use url::Url;

use crate::clock::Clock;

use super::access_key::Credential;
use super::action::{Action, MAX_IDS_PER_CALL};
use super::description::{self, Page, TargetDescription};
use super::endpoint::Endpoints;
use super::error::Error;
use super::id::{
    AccountUid, InstanceId, NetworkInterfaceId, Region, RequestId, SecurityGroupId, Target,
};
use super::redact::Secrets;
use super::request::{self, SigningInput};
use super::response::{self, ApiResponse};
use super::transport::{Transport, TransportError};
use crate::shutdown::Shutdown;

/// The cloud API for one account. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    account: Arc<Account>,
    clock: Clock,
    shutdown: Shutdown,
}

struct Account {
    credential: Credential,
    endpoints: Endpoints,
}

/// The identity of the credentials, as STS reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// UID of the cloud account: digits.
    pub account_uid: AccountUid,
    /// ARN of the user or the assumed role.
    pub arn: String,
}

impl Client {
    /// A client that calls with this credential.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        credential: Credential,
        endpoints: Endpoints,
    ) -> Self {
        Self {
            transport,
            account: Arc::new(Account {
                credential,
                endpoints,
            }),
            clock: Clock::system(),
            shutdown: Shutdown::default(),
        }
    }

    /// The same client with `clock` instead of the system clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same client, of which no request is sent when another process may act.
    #[must_use]
    pub fn with_shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// The clock used for signatures.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The access key ID that the client uses.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        self.account.credential.access_key_id()
    }

    /// Where the calls go.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.account.endpoints
    }

    /// Host, and port where it is not the usual one, that calls for a region go to.
    #[must_use]
    pub fn ecs_host(&self, region: &Region) -> String {
        self.account.endpoints.ecs(region).authority().to_owned()
    }

    /// Host, and port where it is not the usual one, that STS is asked at.
    #[must_use]
    pub fn sts_host(&self) -> String {
        self.account.endpoints.sts().authority().to_owned()
    }

    /// Adds the target to the group. Deadline 66 s.
    ///
    /// # Errors
    /// Any [`Error`]; check [`Error::outcome_unknown`] before a retry.
    pub async fn join_security_group(
        &self,
        region: &Region,
        target: &Target,
        group: &SecurityGroupId,
    ) -> Result<RequestId, Error> {
        self.change(Action::JoinSecurityGroup, region, target, group)
            .await
    }

    /// Removes the target from the group. Deadline 66 s.
    ///
    /// # Errors
    /// Any [`Error`]; check [`Error::outcome_unknown`] before a retry.
    pub async fn leave_security_group(
        &self,
        region: &Region,
        target: &Target,
        group: &SecurityGroupId,
    ) -> Result<RequestId, Error> {
        self.change(Action::LeaveSecurityGroup, region, target, group)
            .await
    }

    async fn change(
        &self,
        action: Action,
        region: &Region,
        target: &Target,
        group: &SecurityGroupId,
    ) -> Result<RequestId, Error> {
        let target = match target {
            Target::Instance(id) => ("InstanceId".to_owned(), id.to_string()),
            Target::NetworkInterface(id) => ("NetworkInterfaceId".to_owned(), id.to_string()),
        };
        // RegionId is documented as required for network interfaces only, but without it an instance of another region is
        // "not found".
        let parameters = [
            ("RegionId".to_owned(), region.to_string()),
            ("SecurityGroupId".to_owned(), group.to_string()),
            target,
        ];
        let response = self
            .call(
                action,
                &self.account.endpoints.ecs(region),
                &parameters,
                action.deadline(),
            )
            .await?;
        Ok(response.request_id)
    }

    /// Reads instances by ID, 100 per call. An ID that is missing from the result does not exist in this region: partial
    /// answers are never returned. Deadline 10 s per 100 IDs.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::BadRow`] if some rows are foreign or unreadable; [`Error::BadAnswer`] if all are, or for an answer
    /// with repeated rows or with endless pages.
    pub async fn describe_instances(
        &self,
        region: &Region,
        ids: &[InstanceId],
    ) -> Result<HashMap<InstanceId, TargetDescription>, Error> {
        self.describe(
            Action::DescribeInstances,
            region,
            ids,
            description::instances,
            |ids| vec![("InstanceIds".to_owned(), array(ids))],
        )
        .await
    }

    /// Reads network interfaces by ID, with the guarantees of [`Client::describe_instances`]. Deadline 16 s per 100 IDs.
    ///
    /// # Errors
    /// As [`Client::describe_instances`].
    pub async fn describe_network_interfaces(
        &self,
        region: &Region,
        ids: &[NetworkInterfaceId],
    ) -> Result<HashMap<NetworkInterfaceId, TargetDescription>, Error> {
        self.describe(
            Action::DescribeNetworkInterfaces,
            region,
            ids,
            description::network_interfaces,
            |ids| {
                (1..)
                    .zip(ids)
                    .map(|(n, id)| (format!("NetworkInterfaceId.{n}"), id.to_string()))
                    .collect()
            },
        )
        .await
    }

    /// Reads the identity of the credentials from STS. Deadline 10 s.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn caller_identity(&self) -> Result<Identity, Error> {
        let action = Action::GetCallerIdentity;
        let response = self
            .call(
                action,
                &self.account.endpoints.sts(),
                &[],
                action.deadline(),
            )
            .await?;
        let body = response.body();
        let account_uid = response.required(&body.account_id, "AccountId")?;
        // Not sanitized: a text that is not a plain number is rejected.
        if account_uid.len() > 64 || !account_uid.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(response.bad("AccountId is not a number"));
        }
        Ok(Identity {
            account_uid: account_uid.into(),
            arn: response.word(response.required(&body.arn, "Arn")?),
        })
    }

    pub(super) async fn describe<Id: Clone + Eq + Hash + FromStr, Described>(
        &self,
        action: Action,
        region: &Region,
        ids: &[Id],
        read: fn(&ApiResponse) -> Result<Page<Id, Described>, Error>,
        filter: impl Fn(&[Id]) -> Vec<(String, String)>,
    ) -> Result<HashMap<Id, Described>, Error> {
        let mut found = HashMap::new();
        for batch in ids.chunks(MAX_IDS_PER_CALL) {
            let mut parameters = filter(batch);
            parameters.push(("RegionId".to_owned(), region.to_string()));
            // The default is 10 rows per page, even for more IDs.
            parameters.push(("MaxResults".to_owned(), MAX_IDS_PER_CALL.to_string()));
            self.describe_block(action, region, batch, read, parameters, &mut found)
                .await?;
        }
        Ok(found)
    }

    async fn describe_block<Id: Clone + Eq + Hash + FromStr, Described>(
        &self,
        action: Action,
        region: &Region,
        ids: &[Id],
        read: fn(&ApiResponse) -> Result<Page<Id, Described>, Error>,
        parameters: Vec<(String, String)>,
        found: &mut HashMap<Id, Described>,
    ) -> Result<(), Error> {
        let wanted: HashSet<&Id> = ids.iter().collect();
        let endpoint = self.account.endpoints.ecs(region);
        let until = Instant::now() + action.deadline();
        let mut tokens: HashSet<String> = HashSet::new();
        let mut page_parameters = parameters.clone();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let response = self.call(action, &endpoint, &page_parameters, left).await?;
            let page = read(&response)?;
            let is_wanted = |(id, _): &(Id, Described)| wanted.contains(id);
            if !page.rows.iter().all(is_wanted) {
                let what = "it describes something that was not asked for";
                // Another ID of the call may have brought it. If no row fits, the filter was ignored, and halves would be too.
                return Err(if page.rows.iter().any(is_wanted) {
                    response.bad_row(what)
                } else {
                    response.bad(what)
                });
            }
            for (id, description) in page.rows {
                if found.insert(id, description).is_some() {
                    return Err(response.bad("it describes the same ID twice"));
                }
            }
            let Some(token) = page.next_token else {
                return Ok(());
            };
            if wanted.iter().all(|id| found.contains_key(*id)) {
                return Ok(());
            }
            // Some pages may be empty, but not all.
            if tokens.len() >= wanted.len() || !tokens.insert(token.clone()) {
                return Err(response.bad("its pages do not end"));
            }
            page_parameters.clone_from(&parameters);
            page_parameters.push(("NextToken".to_owned(), token));
        }
    }

    pub(super) async fn call(
        &self,
        action: Action,
        endpoint: &Url,
        parameters: &[(String, String)],
        deadline: Duration,
    ) -> Result<ApiResponse, Error> {
        let input = SigningInput {
            now: self.clock.now(),
            nonce: self.clock.uuid().to_string(),
        };
        let mut request = request::build(
            endpoint,
            action,
            parameters,
            Some(&self.account.credential),
            &input,
        );
        request.extensions_mut().insert(self.shutdown.clone());
        if let Some(authorities) = self.account.endpoints.authorities() {
            request.extensions_mut().insert(authorities.clone());
        }
        let sent = Instant::now();
        let response = self
            .transport
            .send(request, deadline)
            .await
            .map_err(|source| match source {
                // Report the whole deadline, not the time left for the last page: a status shows it and must not change at
                // each retry.
                TransportError::Timeout { .. } => TransportError::Timeout {
                    after: action.deadline(),
                },
                TransportError::Connect { .. }
                | TransportError::NotTried { .. }
                | TransportError::TooLarge { .. }
                | TransportError::NoRoom { .. }
                | TransportError::Interrupted { .. } => source,
            })
            .map_err(|source| Error::Transport { action, source })
            .and_then(|response| {
                response::parse(action, &response, Secrets::of(&self.account.credential))
            });
        let milliseconds = sent.elapsed().as_millis();
        match &response {
            Ok(response) => {
                debug!(%action, request_id = %response.request_id, milliseconds, "the cloud answered");
            }
            Err(error) => {
                let (code, request_id) = (error.code(), error.request_id());
                debug!(%action, code, request_id, milliseconds, "{error}");
            }
        }
        response
    }
}

/// A JSON array in a string. The IDs hold letters, digits and dashes only: no escapes needed.
pub(super) fn array<Id: fmt::Display>(ids: &[Id]) -> String {
    let quoted: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", quoted.join(","))
}

/// Shows the endpoints and the start of the access key ID, no secrets.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("credential", &self.account.credential)
            .field("endpoints", &self.account.endpoints)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ecs::TestTransport;
    use crate::telemetry::TestLog;

    #[tokio::test]
    async fn a_call_is_logged_with_code_and_request_id() {
        let id = "6A1B3C4D";
        for (status, body, code) in [
            (200, json!({"RequestId": id}), None),
            (
                404,
                json!({"RequestId": id, "Code": "InvalidInstanceId.NotFound", "Message": "gone"}),
                Some("InvalidInstanceId.NotFound"),
            ),
        ] {
            let (log, _guard) = TestLog::start();
            let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
            let endpoints = Endpoints::parse(None, None, false).unwrap();
            let transport = Arc::<TestTransport>::default();
            transport.answers(status, &body);
            let client = Client::new(transport, credential, endpoints);
            let target = Target::Instance("i-1".parse().unwrap());
            let joined = client
                .join_security_group(
                    &"cn-hangzhou".parse().unwrap(),
                    &target,
                    &"sg-1".parse().unwrap(),
                )
                .await;
            assert_eq!(joined.is_ok(), code.is_none());
            let lines = log.lines();
            assert_eq!(lines.len(), 1, "{lines:#?}");
            assert_eq!(lines[0]["level"], "DEBUG");
            assert_eq!(lines[0]["request_id"], id);
            assert_eq!(lines[0]["code"].as_str(), code);
            assert_eq!(lines[0]["action"], "JoinSecurityGroup");
        }
    }
}
