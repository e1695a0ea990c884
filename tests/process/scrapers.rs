//! Scrapers that misbehave disturb nobody: a hundred that never read their answer, and one that asks 100 times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::OnlyOperator;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Error, Result};
use crate::support::eventually::eventually;
use crate::support::simulator::probe;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-0, securityGroupIds: [sg-base]}
- {id: i-1, securityGroupIds: [sg-base]}
- {id: i-2, securityGroupIds: [sg-base]}
- {id: i-3, securityGroupIds: [sg-base]}
- {id: i-4, securityGroupIds: [sg-base]}
";

const MEMBERSHIPS: usize = 5;
/// More than the operator keeps open.
const UNREAD: usize = 100;
/// 100 a second.
const PERIOD: Duration = Duration::from_millis(10);
/// Answers that the busy scraper gets before each membership.
const ANSWERS: usize = 100;

#[tokio::test]
async fn unread_and_busy_scrapers_disturb_neither_probes_nor_memberships() -> Result<()> {
    let operator = OnlyOperator::start(&[]).await?;
    let env = operator.env(INVENTORY).await?;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(ask_and_read_nothing(&operator.url("/metrics")).await?);
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let mut busy = JoinSet::new();
    busy.spawn(ask_all_the_time(
        operator.url("/metrics"),
        Arc::clone(&answered),
    ));
    let probed = tokio::select! {
        done = make_memberships(&env, &answered) => done.map(|()| None)?,
        failed = probe_all_the_time(&operator) => Some(failed),
        ended = busy.join_next() => Some(Error::new(format!("the busy scraper has ended: {ended:?}"))),
    };
    drop(unread);
    match probed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// A client that has asked for the metrics, takes in a few kilobytes at most and reads none of them.
async fn ask_and_read_nothing(url: &str) -> Result<TcpStream> {
    let address = url.strip_prefix("http://").context("a URL")?;
    let (address, _) = address.split_once('/').context("a path")?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(1024)?;
    let mut stream = socket.connect(address.parse()?).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await?;
    Ok(stream)
}

/// Asks for the metrics every [`PERIOD`], whether or not there are answers, and counts these.
async fn ask_all_the_time(url: String, answered: Arc<AtomicUsize>) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut open = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let (request, answered) = (client.get(&url), Arc::clone(&answered));
        open.spawn(async move {
            // Many open connections push each other out: who is pushed out has no answer.
            if let Ok(answer) = request.send().await
                && answer
                    .text()
                    .await
                    .is_ok_and(|text| text.contains("_leader 1"))
            {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        while open.try_join_next().is_some() {}
    }
}

/// Returns when a probe fails.
async fn probe_all_the_time(operator: &OnlyOperator) -> Error {
    loop {
        for path in ["/livez", "/readyz"] {
            if let Err(error) = probe(&operator.url(path)).await {
                return error;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes one membership after the other, and returns when all are Ready.
async fn make_memberships(env: &TestEnv, answered: &AtomicUsize) -> Result<()> {
    for number in 0..MEMBERSHIPS {
        let before = answered.load(Ordering::Relaxed);
        eventually("the busy scraper gets answers", async || {
            Ok(answered.load(Ordering::Relaxed) >= before + ANSWERS)
        })
        .await?;
        let name = format!("m{number}");
        env.apply(&name, &format!("i-{number}"), "sg-web", json!({}))
            .await?;
        env.until_ready(&name).await?;
    }
    Ok(())
}
