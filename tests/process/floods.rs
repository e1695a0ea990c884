//! What a user or a client can send in crowds costs little memory, and disturbs neither probes nor the objects of others.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::ListParams;
use security_group_operator::api::SecurityGroupMembership;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::control_plane::{ControlPlane, Controllers};
use crate::support::env::{TestEnv, ready};
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::Operator;
use crate::support::simulator::probe;
use crate::{binaries, options};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-0, securityGroupIds: [sg-base]}
- {id: i-1, securityGroupIds: [sg-base]}
";

/// Many times what the operator keeps open (64).
const CONNECTIONS: usize = 900;
/// In bytes; the operator takes 16 KiB.
const HALF_A_HEADER: usize = 15_000;
const REGIONS: usize = 400;
/// What such connections may cost, in bytes: 128 KiB for each that is kept open. All of them together have sent 13 MB.
const COST_OF_CONNECTIONS: u64 = 8 << 20;
/// What objects with invented regions may cost: a sixteenth of what the pod has.
const COST_OF_REGIONS: u64 = 16 << 20;

#[tokio::test]
async fn connections_with_half_a_header_cost_little_memory_and_no_probe_fails() -> Result<()> {
    let plane = ControlPlane::start_with(Controllers::Absent).await?;
    let operator = Operator::start(&plane, options(&[])).await?;
    let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
    join(&env, "before", "i-0").await?;
    let before = operator.peak_memory()?;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(half_a_header(&operator.url("/metrics")).await?);
        probe(&operator.url("/livez")).await?;
    }
    join(&env, "after", "i-1").await?;
    for path in ["/livez", "/readyz", "/metrics"] {
        probe(&operator.url(path)).await?;
    }
    cost_is_below(COST_OF_CONNECTIONS, before, operator.peak_memory()?);
    drop(open);
    Ok(())
}

/// Opens a connection, and sends a request that does not end.
async fn half_a_header(url: &str) -> Result<TcpStream> {
    let address = url.strip_prefix("http://").context("a URL")?;
    let (address, _) = address.split_once('/').context("a path")?;
    let mut stream = TcpStream::connect(address).await?;
    let mut request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
    request.resize(HALF_A_HEADER, b'a');
    // Whom the operator has pushed out by now cannot send any more.
    let _is_out = stream.write_all(&request).await;
    Ok(stream)
}

#[tokio::test]
async fn invented_regions_cost_little_memory_and_hold_up_nobody() -> Result<()> {
    let plane = ControlPlane::start_with(Controllers::Absent).await?;
    let operator = Operator::start(&plane, options(&[])).await?;
    let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
    join(&env, "before", "i-0").await?;
    let before = operator.peak_memory()?;
    let create = |number: usize| {
        let region = json!({"region": invented(number)});
        let name = format!("invented-{number}");
        let env = &env;
        async move { env.apply(&name, "i-1", "sg-web", region).await.map(drop) }
    };
    stream::iter((0..REGIONS).map(create))
        .buffer_unordered(8)
        .try_collect::<Vec<()>>()
        .await?;
    join(&env, "after", "i-1").await?;
    eventually(
        "each object says what is wrong with its region",
        async || {
            let all = env.memberships().list(&ListParams::default()).await?;
            Ok(all.items.iter().filter(|one| is_refused(one)).count() == REGIONS)
        },
    )
    .await?;
    for path in ["/livez", "/readyz", "/metrics"] {
        probe(&operator.url(path)).await?;
    }
    cost_is_below(COST_OF_REGIONS, before, operator.peak_memory()?);
    Ok(())
}

async fn join(env: &TestEnv, name: &str, target: &str) -> Result<()> {
    env.apply(name, target, "sg-web", json!({})).await?;
    env.until_ready(name).await?;
    Ok(())
}

/// A name that can be a region's: letters alone.
fn invented(number: usize) -> String {
    let digits = format!("{number:03}");
    let letter = |digit: char| char::from(b'a' + u8::try_from(digit).unwrap_or_default() - b'0');
    format!("xx-{}", digits.chars().map(letter).collect::<String>())
}

fn is_refused(object: &SecurityGroupMembership) -> bool {
    ready(object).is_some_and(|ready| ready.status == "False" && ready.message.contains("region"))
}

fn cost_is_below(limit: u64, before: u64, after: u64) {
    let cost = after.saturating_sub(before);
    println!("{} MiB more than {} MiB", cost >> 20, before >> 20);
    assert!(cost < limit, "{cost} bytes more than {before}");
}
