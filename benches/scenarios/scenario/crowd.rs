//! S18 and S19: a crowd of memberships that all wait for the account's limit of Joins, and one membership beside or after it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kube::Api;
use kube::api::{ListParams, PostParams};
use security_group_operator::api::SecurityGroupMembership;

use crate::bench_run::{BenchRun, TEXTBOOK_PERIOD};
use crate::cluster::OTHER_NAMESPACE;
use crate::load::{self, MembershipRequest};
use crate::outcome::Outcome;
use crate::support::error::{Context as _, Error, Result};

/// Joins per minute.
pub const LIMIT: u32 = 600;

/// How long the one membership may take.
const PATIENCE: Duration = Duration::from_secs(3 * 60 * 60);

/// S18. The membership is of another namespace and is created when the crowd has waited for three seconds.
pub async fn beside(bench: &mut BenchRun) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    apply(bench).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let request = MembershipRequest::number(bench.arguments.n);
    let api: Api<SecurityGroupMembership> =
        Api::namespaced(bench.cluster.client.clone(), OTHER_NAMESPACE);
    let object = request.object_in(OTHER_NAMESPACE)?;
    let waiting = bench.arguments.n as usize - bench.watch.ready();
    let mut outcome = until_ready(&api, &object).await?;
    outcome.notes.push(format!(
        "limit {LIMIT} a minute; {waiting} memberships of another namespace were not Ready before it"
    ));
    Ok(outcome)
}

/// S19. The crowd is deleted at once; the membership is created in the next minute of the clock after the API server lists none.
pub async fn after(bench: &mut BenchRun) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    apply(bench).await?;
    let names: Vec<String> = (0..bench.arguments.n).map(load::name).collect();
    let started = Instant::now();
    load::delete(&bench.cluster, &bench.watch, &names).await?;
    let api = bench.cluster.memberships();
    crate::progress::at("waits until none is listed");
    while !api
        .list(&ListParams::default().limit(1))
        .await?
        .items
        .is_empty()
    {
        if started.elapsed() > PATIENCE {
            return Err(Error::new("the crowd is not gone".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let gone = started.elapsed().as_secs_f64();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock before 1970")?;
    let into = u64::try_from(now.as_millis() % 60_000)?;
    tokio::time::sleep(Duration::from_millis(60_000 - into)).await;
    let object =
        MembershipRequest::number(bench.arguments.n).object_in(crate::cluster::NAMESPACE)?;
    let mut outcome = until_ready(&api, &object).await?;
    outcome.figure("crowd_gone_s", gone);
    Ok(outcome)
}

async fn apply(bench: &BenchRun) -> Result<()> {
    let requests: Vec<MembershipRequest> = (0..bench.arguments.n)
        .map(MembershipRequest::number)
        .collect();
    load::create(&bench.cluster, &bench.watch, &requests).await
}

/// Creates the membership and reads it until it is Ready.
async fn until_ready(
    api: &Api<SecurityGroupMembership>,
    object: &SecurityGroupMembership,
) -> Result<Outcome> {
    let name = object.metadata.name.clone().unwrap_or_default();
    api.create(&PostParams::default(), object)
        .await
        .context(&name)?;
    let started = Instant::now();
    loop {
        let status = api.get(&name).await?.status.unwrap_or_default();
        let is_ready = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        if status.conditions.iter().any(is_ready) {
            break;
        }
        if started.elapsed() > PATIENCE {
            return Err(Error::new(format!("{name} is not Ready")));
        }
        crate::progress::at(&format!(
            "the one waits for {} s",
            started.elapsed().as_secs()
        ));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut outcome = Outcome::default();
    outcome.figure("one_ready_s", started.elapsed().as_secs_f64());
    Ok(outcome)
}
