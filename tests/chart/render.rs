//! What the chart renders, without a cluster.

use std::collections::BTreeSet;

use security_group_operator::api;
use serde_json::{Value, json};

use crate::NAME;
use crate::helm::{Helm, chart, find, repository};
use crate::support::error::{Context as _, Result};

/// `make manifests` writes them anew.
#[tokio::test]
async fn rendered_files_match_the_chart() -> Result<()> {
    for (plural, crd) in api::crds() {
        let name = format!("{}_{plural}.yaml", api::GROUP);
        // As crds/, which another test compares.
        let yaml = serde_saphyr::to_string(&crd)?;
        let wanted = format!("# Generated from src/api by `make manifests`; do not edit.\n{yaml}");
        matches(&format!("deploy/chart/files/crds/{name}"), &wanted)?;
    }
    let files = std::fs::read_dir(chart().join("files/crds"))?.count();
    assert_eq!(files, api::crds().len(), "the chart has CRDs of ours only");
    let options = ["--set=namespace.create=true", "--no-hooks"];
    let rendered = Helm::alone().await?.template(&options).await?;
    let header = "# Rendered from deploy/chart by `make manifests`; do not edit. kubectl apply -f deploy/install.yaml";
    matches("deploy/install.yaml", &format!("{header}\n{rendered}"))
}

/// Whether a committed file is what it should be; writes it where it is generated anew.
fn matches(path: &str, wanted: &str) -> Result<()> {
    let file = repository().join(path);
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&file, wanted)?;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == wanted,
        "{path} is not what it is made from; run `make manifests`"
    );
    Ok(())
}

#[tokio::test]
async fn helm_lint_finds_nothing() -> Result<()> {
    let said = Helm::alone()
        .await?
        .run(&["lint", "--strict", &chart().display().to_string()])
        .await?;
    assert!(
        !said.contains("[WARNING]") && !said.contains("[ERROR]"),
        "{said}"
    );
    let metadata: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart().join("Chart.yaml"))?)?;
    for field in ["version", "appVersion"] {
        assert_eq!(metadata[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_field() -> Result<()> {
    let helm = Helm::alone().await?;
    for (value, field) in [
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.repository=", "/image/repository"),
        ("image.digest=sha256:1", "/image/digest"),
        ("image.name=x", "'name'"),
        ("replicas=many", "/replicas"),
        ("replicas=-1", "/replicas"),
        ("replica=2", "'replica'"),
        ("namespaces=team", "/namespaces"),
        ("namespaces={Team}", "/namespaces/0"),
        ("namespaces={a,a}", "/namespaces"),
        ("operator.scanPeriod=soon", "/operator/scanPeriod"),
        ("operator.scanPeriod=60", "/operator/scanPeriod"),
        (
            "operator.maxWritesInFlight=257",
            "/operator/maxWritesInFlight",
        ),
        ("operator.endpoints.ecs=ftp://x", "/operator/endpoints/ecs"),
        ("operator.nodeConditions=often", "/operator/nodeConditions"),
        (
            "operator.nodeConditions=true,namespaces={a}",
            "operator.nodeConditions cannot be used with `namespaces`",
        ),
        ("operator.log.format=xml", "/operator/log/format"),
        ("crds.install=maybe", "/crds/install"),
        ("rbac.create=1", "/rbac/create"),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
        ("resources.limit.memory=1Gi", "'limit'"),
        (
            "networkPolicy.egressPorts={70000}",
            "/networkPolicy/egressPorts/0",
        ),
        ("podMonitor.interval=often", "/podMonitor/interval"),
        ("podLabels.app\\.kubernetes\\.io/name=x", "/podLabels"),
        ("priorityClassName=7", "/priorityClassName"),
    ] {
        let chart = chart().display().to_string();
        let (worked, said) = helm
            .try_run(&["template", NAME, &chart, "--set", value])
            .await?;
        assert!(!worked && said.contains(field), "{value}: {said}");
    }
    Ok(())
}

/// A value that the schema does not know could not be set, and one that no template reads does nothing.
#[test]
fn schema_values_and_templates_know_the_same_names() -> Result<()> {
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml"))?)?;
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(
        chart().join("values.schema.json"),
    )?)?;
    let mut templates = String::new();
    for file in std::fs::read_dir(chart().join("templates"))? {
        templates.push_str(&std::fs::read_to_string(file?.path())?);
    }
    let mut paths = BTreeSet::new();
    compare("", &values, &schema, &mut paths);
    assert!(paths.len() > 30, "{paths:?}");
    for path in paths {
        // As itself, or as a part of an object that is passed on whole.
        let mut objects = path.match_indices('.').map(|(end, _)| &path[..end]);
        let is_read = templates.contains(&format!(".Values.{path}"))
            || objects.any(|object| {
                let whole = ["toYaml", "with"].map(|how| format!("{how} .Values.{object} "));
                whole.iter().any(|text| templates.contains(text))
            });
        assert!(is_read, "no template reads {path}");
    }
    Ok(())
}

/// Walks objects that the schema closes; collects the paths of their leaves.
fn compare(path: &str, values: &Value, schema: &Value, paths: &mut BTreeSet<String>) {
    let is_closed = schema["additionalProperties"] == json!(false);
    let Some(known) = schema["properties"].as_object().filter(|_| is_closed) else {
        paths.insert(path.to_owned());
        return;
    };
    let values = values.as_object().unwrap();
    for (name, value) in values {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let schema = known.get(name);
        compare(
            &below,
            value,
            schema.unwrap_or_else(|| panic!("the schema lacks {below}")),
            paths,
        );
    }
    let ours = ["global", "matchExpressions", "matchLabels"];
    for name in known.keys().filter(|name| !ours.contains(&name.as_str())) {
        assert!(values.contains_key(name), "values.yaml lacks {path}.{name}");
    }
}

/// Each switch: what it is set to, and a text that is rendered only with it.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn each_switch_changes_what_it_says() -> Result<()> {
    let helm = Helm::alone().await?;
    let default = helm.template(&[]).await?;
    let digest = format!("sha256:{}", "a".repeat(64));
    for (value, text) in [
        (
            "image.repository=example.com/op",
            "image: \"example.com/op:0.1.0\"",
        ),
        ("image.tag=v9", "image: \"security-group-operator:v9\""),
        (
            &format!("image.digest={digest}"),
            &format!("image: \"security-group-operator@{digest}\""),
        ),
        ("image.pullPolicy=Always", "imagePullPolicy: Always"),
        (
            "imagePullSecrets[0].name=registry",
            "imagePullSecrets:\n        - name: registry",
        ),
        ("replicas=3", "replicas: 3"),
        ("namespaces={team-a,team-b}", "- --namespace=team-b"),
        ("operator.scanPeriod=5m", "- --scan-period=5m"),
        ("operator.notObservedAfter=5", "- --not-observed-after=5"),
        (
            "operator.maxWritesInFlight=32",
            "- --max-writes-in-flight=32",
        ),
        ("operator.nodeConditions=true", "- --node-conditions"),
        (
            "operator.endpoints.ecs=https://ecs-vpc.{region}.aliyuncs.com",
            "- \"--ecs-endpoint=https://ecs-vpc.{region}.aliyuncs.com\"",
        ),
        (
            "operator.endpoints.sts=https://sts-vpc.cn-hangzhou.aliyuncs.com",
            "- \"--sts-endpoint=https://sts-vpc",
        ),
        (
            "operator.docsURL=https://docs.example.com/sgo",
            "- \"--docs-url=https://docs.example.com/sgo\"",
        ),
        ("operator.log.format=text", "- --log-format=text"),
        ("operator.log.filter=debug", "- \"--log=debug\""),
        (
            "operator.credentialsSecret=aliyun",
            "envFrom:\n        - secretRef:\n            name: aliyun",
        ),
        (
            "namespace.create=true",
            "pod-security.kubernetes.io/enforce: restricted",
        ),
        ("serviceAccount.annotations.a=b", "  annotations:\n    a: b"),
        ("resources.limits.memory=512Mi", "memory: 512Mi"),
        ("podAnnotations.a=b", "      annotations:\n        a: b"),
        ("podLabels.team=web", "        team: web"),
        (
            "nodeSelector.disk=fast",
            "nodeSelector:\n        disk: fast",
        ),
        (
            "tolerations[0].operator=Exists",
            "tolerations:\n        - operator: Exists",
        ),
        (
            "affinity.nodeAffinity.a=b",
            "affinity:\n        nodeAffinity:\n          a: b",
        ),
        (
            "priorityClassName=system-cluster-critical",
            "priorityClassName: system-cluster-critical",
        ),
        (
            "podDisruptionBudget.enabled=true",
            "kind: PodDisruptionBudget",
        ),
        ("networkPolicy.enabled=true", "kind: NetworkPolicy"),
        (
            "admissionPolicies.joinRight=true",
            "name: security-group-operator-join",
        ),
        (
            "admissionPolicies.operators={system:serviceaccount:b:other}",
            "'system:serviceaccount:b:other'",
        ),
        ("podMonitor.enabled=true", "kind: PodMonitor"),
        ("prometheusRule.enabled=true", "kind: PrometheusRule"),
    ] {
        // A comma separates two settings, except in a list.
        let with = helm.template(&["--set", value]).await?;
        assert!(with.contains(text), "{value}: no {text:?} in\n{with}");
        assert!(!default.contains(text), "{value}: {text:?} without it");
    }
    for (value, text) in [
        ("crds.install=false", "kind: CustomResourceDefinition"),
        ("serviceAccount.create=false", "\nkind: ServiceAccount"),
        ("rbac.create=false", "kind: RoleBinding"),
        ("userRoles.create=false", "aggregate-to-edit"),
        (
            "admissionPolicies.create=false",
            "kind: ValidatingAdmissionPolicy",
        ),
        (
            "admissionPolicies.grants=false",
            "name: security-group-operator-grants",
        ),
        (
            "admissionPolicies.accounts=false",
            "name: security-group-operator-accounts",
        ),
        (
            "admissionPolicies.metadata=false",
            "name: security-group-operator-metadata",
        ),
        (
            "admissionPolicies.records=false",
            "name: security-group-operator-records",
        ),
        ("uninstallCheck.enabled=false", "kind: Job"),
    ] {
        let without = helm.template(&["--set", value]).await?;
        assert!(default.contains(text), "{text:?} is not there by default");
        assert!(!without.contains(text), "{value}: {text:?} all the same");
    }
    Ok(())
}

#[tokio::test]
async fn topology_spread_selects_the_operator() -> Result<()> {
    let own = json!({"matchLabels": {"app": "infra"}});
    let zone = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
    let mut host = zone.clone();
    host["topologyKey"] = json!("host");
    host["labelSelector"] = own.clone();
    let constraint = format!("topologySpreadConstraints={}", json!([zone, host]));
    let objects = Helm::alone()
        .await?
        .objects(&["--set-json", &constraint])
        .await?;
    let deployment = find(&objects, "Deployment", NAME).context("a Deployment")?;
    let spec = &deployment["spec"];
    let constraints = &spec["template"]["spec"]["topologySpreadConstraints"];
    assert_eq!(constraints[0]["labelSelector"], spec["selector"]);
    assert_eq!(constraints[0]["topologyKey"], "zone");
    assert_eq!(constraints[1]["labelSelector"], own);
    Ok(())
}

/// The right to write conditions of Nodes is in a role of its own, which only `operator.nodeConditions` renders.
#[tokio::test]
async fn node_conditions_bring_their_right() -> Result<()> {
    const ROLE: &str = "security-group-operator-node-conditions";
    let helm = Helm::alone().await?;
    let may_patch = |objects: &[Value]| {
        let text = json!(objects).to_string();
        text.contains("nodes/status")
    };
    assert!(!may_patch(&helm.objects(&[]).await?));
    let with = "--set=operator.nodeConditions=true";
    let objects = helm.objects(&[with]).await?;
    let role = find(&objects, "ClusterRole", ROLE).context("a ClusterRole")?;
    let rules = json!([{"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}]);
    assert_eq!(role["rules"], rules);
    let binding = find(&objects, "ClusterRoleBinding", ROLE).context("a binding")?;
    assert_eq!(binding["roleRef"]["name"], ROLE);
    assert_eq!(binding["subjects"][0]["name"], NAME);
    let without = helm.objects(&[with, "--set=rbac.create=false"]).await?;
    assert!(!may_patch(&without));
    Ok(())
}

/// With namespaces: Roles there, and nothing in the whole cluster.
#[tokio::test]
async fn namespaced_release_has_roles_only() -> Result<()> {
    let helm = Helm::alone().await?;
    let roles_only = [
        "--set=namespaces={team-a,team-b}",
        "--set=crds.install=false,userRoles.create=false,admissionPolicies.create=false",
    ];
    let objects = helm.objects(&roles_only).await?;
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        assert!(!kind.starts_with("Cluster"), "{object}");
        assert!(object["metadata"]["namespace"].is_string(), "{object}");
    }
    let namespaces = |kind: &str| -> BTreeSet<&str> {
        let of_kind = objects.iter().filter(|object| object["kind"] == kind);
        of_kind
            .map(|object| object["metadata"]["namespace"].as_str().unwrap())
            .collect()
    };
    for kind in ["Role", "RoleBinding"] {
        let all = BTreeSet::from([NAME, "team-a", "team-b"]);
        assert_eq!(namespaces(kind), all);
    }
    let own = objects
        .iter()
        .find(|object| object["kind"] == "Role" && object["metadata"]["namespace"] == NAME);
    let rules = own.context("a Role for the Lease")?["rules"].as_array();
    for rule in rules.context("rules")? {
        assert_eq!(rule["resources"], json!(["leases"]));
    }
    let and_cluster_accounts =
        [&roles_only[..], &["--set=rbac.clusterCloudAccounts=true"]].concat();
    let objects = helm.objects(&and_cluster_accounts).await?;
    let role = find(&objects, "ClusterRole", NAME)
        .context("a ClusterRole")?
        .to_string();
    assert!(
        role.contains("clustercloudaccounts/status") && role.contains("namespaces"),
        "{role}"
    );
    assert!(
        !role.contains("securitygroupmemberships") && !role.contains("secrets"),
        "{role}"
    );
    let no_secrets = [&roles_only[..], &["--set=rbac.secrets=false"]].concat();
    let objects = helm.objects(&no_secrets).await?;
    assert!(
        !objects
            .iter()
            .any(|object| object.to_string().contains("secrets"))
    );
    Ok(())
}

#[tokio::test]
async fn probes_replace_a_frozen_operator_within_40_seconds() -> Result<()> {
    let objects = Helm::alone().await?.objects(&[]).await?;
    let deployment = find(&objects, "Deployment", NAME).context("a Deployment")?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let seconds = |probe: &str, field: &str| {
        let number = container[probe][field].as_u64();
        number.unwrap_or_else(|| panic!("{probe} says no {field}"))
    };
    let liveness = |field: &str| seconds("livenessProbe", field);
    // It freezes right after a probe; the last probe that fails is the one that counts.
    let noticed =
        liveness("periodSeconds") * liveness("failureThreshold") + liveness("timeoutSeconds");
    assert!(noticed + liveness("terminationGracePeriodSeconds") < 40);
    assert_eq!(seconds("readinessProbe", "periodSeconds"), 1);
    // A pod that is deleted has the time of a call.
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(66));
    Ok(())
}

/// Nothing that a hook starts is taken for the operator, and all of it may run where Pod Security is `restricted`.
#[tokio::test]
async fn pods_of_hooks_are_restricted_and_no_operators() -> Result<()> {
    let objects = Helm::alone()
        .await?
        .objects(&["--set=namespaces={team-a}"])
        .await?;
    let deployment = find(&objects, "Deployment", NAME).context("a Deployment")?;
    let own = &deployment["spec"]["template"]["spec"];
    let test = find(&objects, "Pod", "security-group-operator-test").context("a test")?;
    let job = find(&objects, "Job", "security-group-operator-uninstall-check").context("a Job")?;
    for pod in [test, &job["spec"]["template"]] {
        assert_ne!(
            pod["metadata"]["labels"]["app.kubernetes.io/name"],
            deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        );
        assert_eq!(pod["spec"]["securityContext"], own["securityContext"]);
        let arguments = pod["spec"]["containers"][0]["args"].as_array();
        let arguments = arguments.context("args")?.iter().filter_map(Value::as_str);
        let output = std::process::Command::new(crate::BINARY)
            .args(arguments)
            .env("KUBECONFIG", "/dev/null/none")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        assert!(
            said.contains("no Kubernetes cluster is configured"),
            "{said}"
        );
        for field in ["securityContext", "image"] {
            assert_eq!(
                pod["spec"]["containers"][0][field],
                own["containers"][0][field]
            );
        }
    }
    Ok(())
}
