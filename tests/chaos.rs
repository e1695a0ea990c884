//! Objects come and go while the operator's process is killed at random; in the end cloud and objects agree. The seed is
//! printed, and can be given again as SEED.

mod support;

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use support::ask::claim;
use support::error::Result;
use support::stage::{self, Stage};

const OBJECTS: usize = 10;
const ROUNDS: usize = 20;

/// Every third target is a member before.
const fn was_there(n: usize) -> bool {
    n.is_multiple_of(3)
}

fn inventory() -> Result<String> {
    let mut inventory =
        "settings: {latency: 20ms}\nsecurityGroups: [{id: sg-base}, {id: sg-web}]\ninstances:\n"
            .to_owned();
    for n in 0..OBJECTS {
        let groups = if was_there(n) {
            "sg-base, sg-web"
        } else {
            "sg-base"
        };
        writeln!(inventory, "- {{id: i-n{n}, securityGroupIds: [{groups}]}}")?;
    }
    Ok(inventory)
}

#[tokio::test]
async fn killed_again_and_again_cloud_and_objects_agree_in_the_end() -> Result<()> {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let binaries = binaries!();
    let stage = Stage::set(&binaries, &inventory()?).await?;
    let mut operator = stage::operator(&binaries).await?;
    for _ in 0..ROUNDS {
        for n in 0..OBJECTS {
            if random.random_bool(0.5) {
                toggle(&stage, n).await?;
            }
        }
        let moment = std::time::Duration::from_millis(random.random_range(0..150));
        tokio::time::sleep(moment).await;
        operator.kill();
        operator.restart().await?;
    }
    for n in 0..OBJECTS {
        let name = format!("n{n}");
        let object = stage.memberships().get_opt(&name).await?;
        let live = object.is_some_and(|object| object.metadata.deletion_timestamp.is_none());
        if live {
            let object = stage.until_ready(&name).await?;
            let origin = if was_there(n) { "Adopted" } else { "Joined" };
            assert_eq!(claim(&object).as_deref(), Some(origin), "{name}");
        } else {
            stage.until_gone(&name).await?;
        }
        assert_eq!(
            stage.is_member(&format!("i-n{n}"), "sg-web").await?,
            live || was_there(n),
            "{name}"
        );
    }
    Ok(())
}

/// Makes the object where there is none, and deletes it where there is one; one that is going is left to go.
async fn toggle(stage: &Stage, n: usize) -> Result<()> {
    let name = format!("n{n}");
    match stage.memberships().get_opt(&name).await? {
        None => {
            stage
                .apply(&name, &format!("i-n{n}"), "sg-web", json!({}))
                .await?;
            Ok(())
        }
        Some(object) if object.metadata.deletion_timestamp.is_none() => stage.delete(&name).await,
        Some(_) => Ok(()),
    }
}
