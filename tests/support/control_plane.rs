//! A Kubernetes control plane on free ports: etcd, kube-apiserver with RBAC and audit, and the controllers that deletion
//! needs. Runs no pods.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use ring::signature::KeyPair;
use serde_json::json;

use super::audit::{self, AuditEvent};
use super::error::{Context, Error, Result};
use super::process::Child;
use super::tempdir::TempDir;
use super::{assets, install_crypto, port};

/// What runs beside the API server.
#[derive(Clone, Copy)]
pub enum Controllers {
    /// The real kube-controller-manager with the controllers that deletions and service accounts need.
    Run,
    /// Nothing, and one program less to build: a deleted namespace is never emptied.
    Absent,
}

/// A running control plane. Dropping it ends its processes and removes its files.
pub struct ControlPlane {
    // Dropped in this order: clients before servers, files last.
    controllers: Option<Child>,
    api_server: Option<Child>,
    etcd: Child,
    assets: PathBuf,
    /// For clients, and for peers, which do not exist.
    etcd_ports: [u16; 2],
    port: u16,
    tempdir: TempDir,
}

impl ControlPlane {
    /// Starts a control plane in about five seconds (on first use on a machine: minutes, see [`assets::control_plane`]).
    pub async fn start() -> Result<Self> {
        Self::start_with(Controllers::Run).await
    }

    /// The same, with or without the controllers.
    pub async fn start_with(controllers: Controllers) -> Result<Self> {
        install_crypto();
        let assets = match controllers {
            Controllers::Run => assets::control_plane().await?,
            Controllers::Absent => assets::api_server().await?,
        };
        let tempdir = TempDir::new("control-plane")?;
        write_inputs(tempdir.path())?;
        let etcd_ports = [port::free()?, port::free()?];
        let etcd = spawn_etcd(&assets, tempdir.path(), etcd_ports)?;
        let mut plane = Self {
            controllers: None,
            api_server: None,
            etcd,
            assets,
            etcd_ports,
            port: port::free()?,
            tempdir,
        };
        plane.start_api_server().await?;
        match controllers {
            Controllers::Run => plane.start_controllers().await?,
            Controllers::Absent => {}
        }
        Ok(plane)
    }

    /// The control plane that the tests of a binary share; ends with the process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: tokio::sync::OnceCell<ControlPlane> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// A client with all rights. Created at each call, because it belongs to the runtime that created it.
    pub async fn admin_client(&self) -> Result<Client> {
        client(&self.admin_kubeconfig()).await
    }

    /// A client with the rights of this user, who need not exist.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        let mut config = config(&self.admin_kubeconfig()).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        Ok(Client::try_from(config)?)
    }

    /// The `KUBECONFIG` file of a member of `system:masters`.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// A kubeconfig file with a token of an existing service account, valid for one day.
    pub async fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin_client().await?, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(24 * 60 * 60),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &kube::api::PostParams::default(), &request)
            .await
            .context(format!("a token for service account {namespace}/{name}"))?;
        let token = answer
            .status
            .and_then(|status| status.token)
            .context("a TokenRequest was answered without a token")?;
        let file = self.file(&format!("{namespace}.{name}.kubeconfig"));
        self.write_kubeconfig(&file, &token)?;
        Ok(file)
    }

    /// `kubectl` as admin.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(assets::kubectl(&self.assets));
        command
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("KUBECACHEDIR", self.file("kubectl-cache"));
        command.env("NO_PROXY", "127.0.0.1,localhost");
        command
    }

    pub fn audit_log(&self) -> PathBuf {
        self.file("audit.log")
    }

    /// All requests so far, by any user; see [`audit::read`].
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        audit::read(&self.audit_log())
    }

    /// A private directory that lives as long as the control plane, for logs and files of other processes.
    pub fn directory(&self) -> &Path {
        self.tempdir.path()
    }

    /// An error with the end of the log if one of its processes has ended.
    pub fn check(&mut self) -> Result<()> {
        let others = [self.api_server.as_mut(), self.controllers.as_mut()];
        self.etcd.check()?;
        others.into_iter().flatten().try_for_each(Child::check)
    }

    /// Process ID of the API server, to query the kernel.
    pub fn api_server_pid(&self) -> Result<u32> {
        let api_server = self.api_server.as_ref();
        Ok(api_server.context("the API server does not run")?.pid())
    }

    /// Sends SIGKILL to the API server: every watch breaks, and no call is answered until [`Self::start_api_server`].
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server again with the same port, certificates and data.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let mut api_server = spawn_api_server(
            &self.assets,
            self.directory(),
            self.port,
            self.etcd_ports[0],
        )?;
        let ready = api_server.wait_until(START_LIMIT, async || {
            // The server writes its certificate at startup, and /readyz succeeds when its RBAC roles exist.
            self.write_kubeconfig(&self.admin_kubeconfig(), ADMIN_TOKEN)?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            self.admin_client().await?.request_text(request).await?;
            Ok(())
        });
        if let Err(error) = ready.await {
            return Err(Error::new(format!(
                "{error}\n{}",
                self.etcd.complaint("may be the cause")
            )));
        }
        self.api_server = Some(api_server);
        Ok(())
    }

    /// Sends SIGKILL to etcd: the API server can neither store nor read until [`Self::start_etcd`].
    pub fn stop_etcd(&mut self) {
        self.etcd.kill();
    }

    /// Starts etcd again with the same ports and data.
    pub fn start_etcd(&mut self) -> Result<()> {
        self.etcd.kill();
        self.etcd = spawn_etcd(&self.assets, self.directory(), self.etcd_ports)?;
        Ok(())
    }

    /// Returns when the API server answers and reaches etcd.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.admin_client().await?;
        let api_server = self.api_server.as_mut();
        api_server
            .context("the API server does not run")?
            .wait_until(START_LIMIT, async || {
                let request = http::Request::get("/readyz").body(Vec::new())?;
                client.request_text(request).await?;
                Ok(())
            })
            .await
    }

    async fn start_controllers(&mut self) -> Result<()> {
        let mut controllers = spawn_controllers(&self.assets, self.directory())?;
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.admin_client().await?);
        let made_one = async || {
            accounts.get("default").await?;
            Ok(())
        };
        controllers.wait_until(START_LIMIT, made_one).await?;
        self.controllers = Some(controllers);
        Ok(())
    }

    fn write_kubeconfig(&self, file: &Path, token: &str) -> Result<()> {
        let authority =
            std::fs::read(self.file(CERTIFICATE)).context("the API server's certificate")?;
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": STANDARD.encode(authority),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            "current-context": "test",
        });
        std::fs::write(file, kubeconfig.to_string()).context(file.display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }
}

/// A client for a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::try_from(config(kubeconfig).await?)?)
}

/// What a kubeconfig file says of the server and of the user.
pub async fn config(kubeconfig: &Path) -> Result<Config> {
    install_crypto();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None; // the server is on our own loopback, whatever the environment says
    Ok(config)
}

/// Writes the keys, tokens and the audit policy that the servers read at startup.
fn write_inputs(directory: &Path) -> Result<()> {
    let (private, public) = service_account_keys()?;
    std::fs::write(directory.join("service-account.key"), private)?;
    std::fs::write(directory.join("service-account.pub"), public)?;
    std::fs::write(
        directory.join("tokens.csv"),
        format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"),
    )?;
    std::fs::write(directory.join("audit-policy.yaml"), AUDIT_POLICY)?;
    Ok(())
}

/// A new P-256 key pair as PEM. The public half is encoded separately: the API server does not accept PKCS#8 as a public
/// key.
fn service_account_keys() -> Result<(String, String)> {
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING as ALGORITHM, EcdsaKeyPair};
    let random = ring::rand::SystemRandom::new();
    let refused = |_| Error::new("no random numbers for a key");
    let private = EcdsaKeyPair::generate_pkcs8(&ALGORITHM, &random).map_err(refused)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ALGORITHM, private.as_ref(), &random)
        .map_err(|error| Error::new(error.to_string()))?;
    let public = [SPKI_P256_PREFIX, pair.public_key().as_ref()].concat();
    Ok((
        pem("PRIVATE KEY", private.as_ref()),
        pem("PUBLIC KEY", &public),
    ))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

/// RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 66 bytes }, up to the point itself.
const SPKI_P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn spawn_etcd(assets: &Path, directory: &Path, ports: [u16; 2]) -> Result<Child> {
    let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = Command::new(assets.join("etcd"));
    command
        .arg(format!("--data-dir={}", directory.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Child::spawn("etcd", &command, &directory.join("etcd.log"))
}

fn spawn_api_server(assets: &Path, directory: &Path, port: u16, etcd_port: u16) -> Result<Child> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new(assets.join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .arg(format!("--secure-port={port}"))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--cert-dir={}", file(CERTIFICATES)))
        .arg("--authorization-mode=RBAC")
        // As on OpenShift: whoever writes `blockOwnerDeletion` needs a right to the owner's finalizers.
        .arg("--enable-admission-plugins=OwnerReferencesPermissionEnforcement")
        .arg(format!("--token-auth-file={}", file("tokens.csv")))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!(
            "--service-account-key-file={}",
            file("service-account.pub")
        ))
        .arg(format!(
            "--service-account-signing-key-file={}",
            file("service-account.key")
        ))
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        .arg("--endpoint-reconciler-type=none")
        .arg(format!("--audit-policy-file={}", file("audit-policy.yaml")))
        .arg(format!("--audit-log-path={}", file("audit.log")));
    Child::spawn(
        "kube-apiserver",
        &command,
        &directory.join("kube-apiserver.log"),
    )
}

fn spawn_controllers(assets: &Path, directory: &Path) -> Result<Child> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new(assets.join("kube-controller-manager"));
    command
        .arg(format!("--kubeconfig={}", file("admin.kubeconfig")))
        .arg(format!("--controllers={}", CONTROLLERS.join(",")))
        .arg(format!(
            "--service-account-private-key-file={}",
            file("service-account.key")
        ))
        .arg(format!("--root-ca-file={}", file(CERTIFICATE)))
        .args(["--leader-elect=false", "--secure-port=0"])
        // The default of 20 requests per second would make the deletion of a large namespace the slow part of a test.
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
    Child::spawn(
        "kube-controller-manager",
        &command,
        &directory.join("kube-controller-manager.log"),
    )
}

const CONTROLLERS: [&str; 5] = [
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
];

const CERTIFICATES: &str = "certificates";
/// The server's certificate, in one file with the authority that signed it.
const CERTIFICATE: &str = "certificates/apiserver.crt";

/// Not secret: it opens a server on this machine's loopback that lives as long as a test.
const ADMIN_TOKEN: &str = "admin-of-a-test";

const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Ten times the duration on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(60);
