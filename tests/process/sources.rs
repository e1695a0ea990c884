//! Where a key comes from in the end: a role assumed from each kind of credentials, RRSA by the variables of the environment, and a
//! metadata service of one version only.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use security_group_operator::ecs::credential::AUDIENCE;
use serde_json::{Value, json};

use crate::credentials::Fixture;
use crate::support::error::{Context, Result};
use crate::support::operator::NAMESPACE;
use crate::support::simulator::fetch;
use crate::support::tempdir::TempDir;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-oidc, securityGroupIds: [sg-base]}
- {id: i-role, securityGroupIds: [sg-base]}
- {id: i-environment, securityGroupIds: [sg-base]}
";

/// A fixture whose ECS instance may have the role `node`.
async fn start() -> Result<Fixture> {
    let fixture = Fixture::start_with(INVENTORY).await?;
    let ecs = json!({"Service": ["ecs.aliyuncs.com"]});
    fixture.role("node", ecs, json!({})).await?;
    Ok(fixture)
}

async fn set_metadata(fixture: &Fixture, metadata: Value) -> Result<()> {
    let change = json!({"setMetadata": metadata});
    fixture.env.simulator.change(&change).await
}

#[tokio::test]
async fn role_is_assumed_from_a_service_account_the_instance_role_and_the_environment() -> Result<()>
{
    let fixture = start().await?;
    fixture
        .role_for_service_account("web", "membership")
        .await?;
    let trusted = ["role/web", "role/node"].map(|role| fixture.arn(role));
    fixture
        .role("chained", json!({"RAM": trusted}), json!({}))
        .await?;
    set_metadata(&fixture, json!({"role": "node"})).await?;
    for (kind, mut credentials) in [
        ("oidc", fixture.oidc("web", "cluster", "membership")),
        ("role", json!({"ecsRAMRole": {"name": "node"}})),
        ("environment", json!({"environment": {}})),
    ] {
        let role = json!({"roleARN": fixture.arn("role/chained"), "sessionName": kind});
        let fields = credentials.as_object_mut().context("an object")?;
        fields.insert("assumeRole".to_owned(), role);
        let arn = format!("assumed-role/chained/{kind}");
        fixture.works(kind, &credentials, &arn).await?;
    }
    Ok(())
}

/// A token of the service account for STS, as a projected volume holds it.
async fn token(fixture: &Fixture, service_account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(fixture.env.client.clone(), NAMESPACE);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(service_account, &PostParams::default(), &request)
        .await?;
    let token = made.status.and_then(|status| status.token);
    token.context("a token")
}

#[tokio::test]
async fn token_file_of_the_environment_is_exchanged_at_sts() -> Result<()> {
    let mut fixture = start().await?;
    fixture
        .role_for_service_account("web", "membership")
        .await?;
    let directory = TempDir::new("token")?;
    let file = directory.path().join("token");
    // As some tools write it; the kubelet writes no end of line.
    std::fs::write(&file, format!("{}\n", token(&fixture, "membership").await?))?;
    let role = fixture.arn("role/web");
    let provider = fixture.arn("oidc-provider/cluster");
    let file_name = file.display().to_string();
    fixture
        .start_again(&[
            ("ALIBABA_CLOUD_ROLE_ARN", &role),
            ("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", &provider),
            ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", &file_name),
            ("ALIBABA_CLOUD_ROLE_SESSION_NAME", "of-the-pod"),
        ])
        .await?;
    let environment = json!({"environment": {}});
    fixture
        .works("environment", &environment, "assumed-role/web/of-the-pod")
        .await?;
    let simulator = &fixture.env.simulator;
    assert!(simulator.calls("AssumeRoleWithOIDC", "OK").await? > 0);

    // The file is read for each exchange.
    std::fs::remove_file(&file)?;
    let mut again = environment.clone();
    again["assumeRole"] = json!({"roleARN": fixture.arn("role/chained")});
    fixture.account("environment", &again).await?;
    let sentence = [
        "spec.credentials.environment: ALIBABA_CLOUD_OIDC_TOKEN_FILE",
        &file_name,
        "mount a projected service account token",
    ];
    fixture
        .until("environment", "TokenUnusable", &sentence)
        .await
}

#[tokio::test]
async fn metadata_service_without_tokens_is_asked_without_one() -> Result<()> {
    let fixture = start().await?;
    set_metadata(&fixture, json!({"role": "node", "fault": "noTokens"})).await?;
    let role = json!({"ecsRAMRole": {"name": "node"}});
    fixture.works("role", &role, "assumed-role/node/").await?;
    // Here the name of the role is asked for, too.
    let environment = json!({"environment": {}});
    fixture
        .works("environment", &environment, "assumed-role/node/")
        .await?;
    let simulator = &fixture.env.simulator;
    assert!(simulator.calls("MetadataToken", "404").await? > 0);
    assert_eq!(simulator.calls("MetadataToken", "OK").await?, 0);
    Ok(())
}

#[tokio::test]
async fn metadata_service_without_tokens_is_asked_for_no_key_where_v1_is_off() -> Result<()> {
    let mut fixture = start().await?;
    fixture
        .start_again(&[("ALIBABA_CLOUD_IMDSV1_DISABLED", "true")])
        .await?;
    set_metadata(&fixture, json!({"role": "node", "fault": "noTokens"})).await?;
    // Without a token it would hand out a key.
    let path = "latest/meta-data/ram/security-credentials/node";
    fetch(&format!("{}/{path}", fixture.metadata)).await?;
    let asked = fixture.env.simulator.calls("Metadata", "OK").await?;
    let environment = json!({"environment": {}});
    fixture.account("environment", &environment).await?;
    let sentence = [
        "spec.credentials.environment: the metadata service",
        "it gave no token (HTTP 404), and v1 is off",
    ];
    fixture
        .until("environment", "NoKeyHandedOut", &sentence)
        .await?;
    let simulator = &fixture.env.simulator;
    assert_eq!(simulator.calls("Metadata", "OK").await?, asked);
    set_metadata(&fixture, json!({"role": "node", "requiresToken": true})).await?;
    fixture
        .works("environment", &environment, "assumed-role/node/")
        .await
}
