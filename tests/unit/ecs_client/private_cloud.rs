//! A private cloud: only certificates of the authorities that the account names are taken, by the calls of ECS and of STS alike.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use security_group_operator::ecs::{Client, Credential, Endpoints, Error, Http, TransportError};

const AUTHORITY: &str = include_str!("private_cloud/authority.pem");
const ANOTHER: &str = include_str!("private_cloud/another.pem");
/// Made for this test, and used nowhere else.
const SERVER: (&str, &str) = (
    include_str!("private_cloud/server.pem"),
    include_str!("private_cloud/server.key.pem"),
);

/// Answers each connection once, as STS answers `GetCallerIdentity`.
fn serve() -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(SERVER.0.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(SERVER.1.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let body = r#"{"AccountId": "1", "Arn": "acs:ram::1:user/a", "RequestId": "R"}"#;
            let length = body.len();
            let mut request = [0; 4_096];
            // Fails where the client does not take the certificate.
            if stream.read(&mut request).is_ok() {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(body.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    address
}

async fn ask(address: SocketAddr, authorities: Option<&str>) -> Result<String, Error> {
    let url = format!("https://{address}");
    let endpoints = Endpoints::parse(Some(&url), Some(&url), false).unwrap();
    let endpoints = endpoints.with_authorities(authorities).unwrap();
    let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
    let client = Client::new(Arc::new(Http::new().unwrap()), credential, endpoints);
    let identity = client.caller_identity().await?;
    Ok(identity.account_uid.to_string())
}

#[tokio::test]
async fn only_certificates_of_the_named_authorities_are_taken() {
    let address = serve();
    assert_eq!(ask(address, Some(AUTHORITY)).await.unwrap(), "1");
    let both = format!("{ANOTHER}{AUTHORITY}");
    assert_eq!(ask(address, Some(&both)).await.unwrap(), "1");
    for others in [None, Some(ANOTHER)] {
        let error = ask(address, others).await.unwrap_err();
        let refused = matches!(
            &error,
            Error::Transport {
                source: TransportError::Connect { .. },
                ..
            }
        );
        assert!(refused, "{error}");
    }
}

#[test]
fn text_without_certificates_is_refused_with_the_field() {
    for text in [
        "",
        "canary",
        "-----BEGIN CERTIFICATE-----\ncanary",
        SERVER.1,
    ] {
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let error = endpoints.with_authorities(Some(text)).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(
            said.starts_with("endpoints.caBundle must hold certificates"),
            "{said}"
        );
        assert!(!said.contains("canary"), "{said}");
    }
}
