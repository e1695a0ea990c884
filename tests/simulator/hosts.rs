//! The host names that the operator's HTTP client resolves, with each kind of credentials: a resolver of its own records every one.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secrecy::SecretString;
use security_group_operator::clock::Clock;
use security_group_operator::ecs::credential::{
    AssumeRole, CredentialsUri, Network, Oidc, Provider, ProviderError, RamRole, StaticKey,
    TokenSource,
};
use security_group_operator::ecs::{Client, Credential, Endpoints, Http, Target, Transport};
use security_group_operator::shutdown::Shutdown;
use security_group_operator::simulator::DEFAULT_ACCESS_KEY;

use crate::support::port;
use crate::support::simulator::SimulatorProcess;

/// Answers every name with this machine, and remembers it.
#[derive(Default)]
struct Recorder(Mutex<BTreeSet<String>>);

impl Recorder {
    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Resolve for Recorder {
    fn resolve(&self, name: Name) -> Resolving {
        self.0.lock().unwrap().insert(name.as_str().to_owned());
        let here: SocketAddr = ([127, 0, 0, 1], 0).into();
        let found: Addrs = Box::new(std::iter::once(here));
        Box::pin(std::future::ready(Ok(found)))
    }
}

#[derive(Debug)]
struct Token;

impl TokenSource for Token {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, ProviderError>> {
        std::future::ready(Ok("a.b.c".into())).boxed()
    }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn only_known_host_names_are_resolved_with_each_kind_of_credentials() {
    let metadata_port = port::free().unwrap();
    let arguments = [
        "--instances=1".to_owned(),
        format!("--metadata=127.0.0.1:{metadata_port}"),
    ];
    let binary = Path::new(env!("CARGO_BIN_EXE_ecs-simulator"));
    let simulator = SimulatorProcess::start(binary, &arguments).await.unwrap();
    let endpoint = simulator.endpoint();
    let port = endpoint.rsplit(':').next().unwrap();
    let recorder = Arc::new(Recorder::default());
    // A connection that is kept needs no name.
    let transport = || -> Arc<dyn Transport> {
        let resolver = Arc::clone(&recorder) as Arc<dyn Resolve>;
        Arc::new(Http::resolving(resolver).unwrap())
    };
    let ecs = format!("http://ecs.{{region}}.sim.test:{port}");
    let sts = format!("http://sts.sim.test:{port}");
    let endpoints = Endpoints::parse(Some(&ecs), Some(&sts), true).unwrap();
    let metadata = format!("http://metadata.sim.test:{metadata_port}/");
    let mut network = Network {
        transport: transport(),
        endpoints: endpoints.clone(),
        metadata: metadata.parse().unwrap(),
        clock: Clock::system(),
        shutdown: Shutdown::default(),
    };
    let (id, secret) = DEFAULT_ACCESS_KEY;
    let key = Credential::new(id, secret, None).unwrap();
    let stored = StaticKey(key.clone());
    let instance = RamRole {
        field: "ecsRAMRole",
        name: Some("node".to_owned()),
        hardened_only: false,
    };
    let account = Oidc {
        field: "oidc",
        role_arn: "acs:ram::1:role/web".to_owned(),
        provider_arn: "acs:ram::1:oidc-provider/cluster".to_owned(),
        session_name: None,
        token: Arc::new(Token),
    };
    let assumed = AssumeRole {
        base: Arc::new(stored.clone()),
        role_arn: "acs:ram::1:role/web".to_owned(),
        session_name: None,
        external_id: None,
        duration_seconds: 3_600,
    };
    let uri = CredentialsUri(
        format!("http://uri.sim.test:{metadata_port}/key")
            .parse()
            .unwrap(),
    );
    // Whether a key comes of it makes no difference to who is asked.
    let kinds: [(&dyn Provider, &[&str]); 5] = [
        (&stored, &[]),
        (&instance, &["metadata.sim.test"]),
        (&account, &["sts.sim.test"]),
        (&assumed, &["sts.sim.test"]),
        (&uri, &["uri.sim.test"]),
    ];
    for (kind, expected) in kinds {
        network.transport = transport();
        let _ = kind.obtain(&network).await;
        let expected: BTreeSet<_> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(recorder.take(), expected, "{kind:?}");
    }
    // A service that sends the operator elsewhere.
    network.metadata = format!("http://metadata.sim.test:{}/", sends_elsewhere())
        .parse()
        .unwrap();
    assert!(instance.obtain(&network).await.is_err());
    assert_eq!(recorder.take(), names(["metadata.sim.test"]));

    let client = Client::new(transport(), key, endpoints);
    let region = "cn-hangzhou".parse().unwrap();
    let target = Target::Instance("i-sim000000".parse().unwrap());
    let group = "sg-sim0000".parse().unwrap();
    client.caller_identity().await.unwrap();
    client
        .join_security_group(&region, &target, &group)
        .await
        .unwrap();
    client
        .tags_of_groups(&region, std::slice::from_ref(&group))
        .await
        .unwrap();
    client
        .leave_security_group(&region, &target, &group)
        .await
        .unwrap();
    assert_eq!(
        recorder.take(),
        names(["ecs.cn-hangzhou.sim.test", "sts.sim.test"])
    );
}

/// The port of a server that redirects every request to another host.
fn sends_elsewhere() -> u16 {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in server.incoming().take(8) {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(
                b"HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    port
}
