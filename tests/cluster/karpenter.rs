//! An instance that Karpenter has launched is joined only where its user says so: one more group would make Karpenter replace it.

use kube::ResourceExt;
use serde_json::json;

use crate::binaries;
use crate::support::env::{TestEnv, claim, message, phase};
use crate::support::error::Result;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-pool, securityGroupIds: [sg-base], tags: {karpenter.sh/nodepool: default}}
- {id: i-claim, securityGroupIds: [sg-base], tags: {karpenter.sh/nodeclaim: default-x7z}}
- {id: i-member, securityGroupIds: [sg-base, sg-web], tags: {karpenter.sh/nodepool: default}}
- {id: i-later, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-second, instanceId: i-pool, securityGroupIds: [sg-base], tags: {karpenter.sh/nodepool: default}}
";

#[tokio::test]
async fn a_node_of_karpenter_is_joined_only_with_the_policy_join() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for target in ["i-pool", "i-claim"] {
        let object = env.apply(target, target, "sg-web", json!({})).await?;
        let refused = env
            .until_reason(&object.name_any(), "KarpenterNode")
            .await?;
        assert_eq!((phase(&refused), claim(&refused)), ("Stalled", None));
        let message = message(&refused);
        assert!(message.contains("set karpenterPolicy to Join"), "{message}");
        assert!(!env.is_member(target, "sg-web").await?);
    }
    // A member is adopted as ever, and Karpenter looks at no secondary interface.
    env.apply("member", "i-member", "sg-web", json!({})).await?;
    env.until_reason("member", "Adopted").await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 0);
    env.apply("second", "eni-second", "sg-web", json!({}))
        .await?;
    env.until_reason("second", "Joined").await?;

    let join = json!({"karpenterPolicy": "Join"});
    env.apply("i-pool", "i-pool", "sg-web", join.clone())
        .await?;
    env.until_reason("i-pool", "Joined").await?;
    assert!(env.is_member("i-pool", "sg-web").await?);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);

    // Back to Refuse: what was joined stays, and is not joined again once another actor has removed it.
    env.apply("i-pool", "i-pool", "sg-web", json!({})).await?;
    env.until_reason("i-pool", "Joined").await?;
    let edge = json!({"target": "i-pool", "securityGroupId": "sg-web"});
    env.change_cloud(json!({"leave": edge})).await?;
    env.request_reconcile("i-pool").await?;
    let refused = env.until_reason("i-pool", "KarpenterNode").await?;
    assert_eq!((phase(&refused), claim(&refused)), ("Stalled", None));
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);

    // A deletion leaves what was joined.
    env.apply("i-claim", "i-claim", "sg-web", join).await?;
    env.until_reason("i-claim", "Joined").await?;
    env.delete("i-claim").await?;
    env.until_deleted("i-claim").await?;
    assert!(!env.is_member("i-claim", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn a_tag_that_comes_later_ends_repairs() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("later", "i-later", "sg-web", json!({})).await?;
    env.until_reason("later", "Joined").await?;
    let tags = json!({"karpenter.sh/managed-by": "cluster"});
    env.change_cloud(json!({"setTags": {"id": "i-later", "tags": tags}}))
        .await?;
    env.reconcile_and_wait("later").await?;
    env.until_reason("later", "Joined").await?;
    let edge = json!({"target": "i-later", "securityGroupId": "sg-web"});
    env.change_cloud(json!({"leave": edge})).await?;
    env.request_reconcile("later").await?;
    env.until_reason("later", "KarpenterNode").await?;
    assert_eq!(env.effects("JoinSecurityGroup").await?, 1);
    Ok(())
}
