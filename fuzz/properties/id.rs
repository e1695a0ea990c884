//! What a user types: an ID or a region that parses prints itself and can stand in a URL, a query and JSON as it is; what does
//! not parse is refused with words fit to be shown. Endpoints and access keys likewise.
//!
//! Input: a text.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::executor::block_on;
use futures::future::BoxFuture;
use http::{Request, Response};
use security_group_operator::ecs::{
    Client, Credential, Endpoints, InstanceId, NetworkInterfaceId, ParseIdError, Region,
    SecurityGroupId, Target, Transport, TransportError, sign,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::assert_printable;

pub fn hold(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let kinds = [
        prints_itself::<InstanceId>(&text),
        prints_itself::<NetworkInterfaceId>(&text),
        prints_itself::<SecurityGroupId>(&text),
    ];
    assert!(kinds.iter().filter(|is| **is).count() <= 1, "{text}");
    if prints_itself::<Region>(&text) {
        let url = Endpoints::default().ecs(&text.parse().unwrap());
        assert_eq!(
            (url.scheme(), url.path(), url.query()),
            ("https", "/", None)
        );
        assert!(url.username().is_empty() && url.password().is_none() && url.port().is_none());
        let host = url.host_str().unwrap();
        assert!(
            host.ends_with(".aliyuncs.com") && host.starts_with("ecs"),
            "{host}"
        );
    }
    endpoint(&text);
    credential(&text);
}

/// Whether the text is one.
fn prints_itself<Id>(text: &str) -> bool
where
    Id: FromStr<Err = ParseIdError> + Display + Debug + Eq + Serialize + DeserializeOwned,
{
    match text.parse::<Id>() {
        Ok(id) => {
            assert_eq!(id.to_string(), text);
            assert_eq!(format!("{id:?}"), text);
            assert_eq!(
                sign::percent_encode(text),
                text,
                "it needs no escape in a query"
            );
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(json, format!("\"{text}\""), "nor in JSON");
            assert_eq!(serde_json::from_str::<Id>(&json).unwrap(), id);
            assert!(text.len() <= 64);
            true
        }
        Err(error) => {
            let shown = error.to_string();
            assert_printable(&shown);
            assert!(shown.len() < 2_000, "{} bytes", shown.len());
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<Id>(&json).is_err(), "{json}");
            false
        }
    }
}

fn endpoint(text: &str) {
    match Endpoints::parse(Some(text), None, true) {
        Ok(endpoints) => {
            let url = endpoints.ecs(&"cn-hangzhou".parse().unwrap());
            assert!(matches!(url.scheme(), "http" | "https"), "{url}");
            assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{url}");
            assert_eq!((url.path(), url.query(), url.fragment()), ("/", None, None));
            assert!(
                url.username().is_empty() && url.password().is_none(),
                "{url}"
            );
            assert_printable(url.as_str());
            let again = Endpoints::parse(Some(url.as_str().trim_end_matches('/')), None, true);
            assert_eq!(again.unwrap().ecs(&"cn-hangzhou".parse().unwrap()), url);
            let key = Credential::new("LTAI", "a-secret", None).unwrap();
            let form = form(key, endpoints);
            assert!(form.contains(&("AccessKeyId".to_owned(), "LTAI".to_owned())));
        }
        Err(error) => {
            assert_printable(&error.to_string());
            assert!(
                text.len() < 12 || !error.to_string().contains(text),
                "it may hold a password"
            );
        }
    }
}

/// A key that is accepted can be sent, and reads at the other end as it was given, without line breaks at its end.
fn credential(text: &str) {
    let kept = text.trim_end_matches(['\r', '\n']);
    match Credential::new(text, text, Some(text.into())) {
        Ok(credential) => {
            assert!(text.len() <= 4 || !format!("{credential:?}").contains(&format!("\"{text}")));
            let form = form(credential, Endpoints::default());
            for name in ["AccessKeyId", "SecurityToken"] {
                assert!(
                    form.contains(&(name.to_owned(), kept.to_owned())),
                    "{name}: {form:?}"
                );
            }
        }
        Err(error) => assert_printable(&error.to_string()),
    }
}

/// What a Join sends.
fn form(credential: Credential, endpoints: Endpoints) -> Vec<(String, String)> {
    let sent = Arc::new(std::sync::Mutex::new(None));
    let client = Client::new(Arc::new(Sent(sent.clone())), credential, endpoints);
    let target = Target::Instance("i-1".parse().unwrap());
    let region = "cn-hangzhou".parse().unwrap();
    let _ = block_on(client.join_security_group(&region, &target, &"sg-1".parse().unwrap()));
    let request: Request<Bytes> = sent.lock().unwrap().take().unwrap();
    assert_eq!(request.uri().query(), None, "nothing is in the URL");
    url::form_urlencoded::parse(request.body())
        .into_owned()
        .collect()
}

struct Sent(Arc<std::sync::Mutex<Option<Request<Bytes>>>>);

impl Transport for Sent {
    fn send(
        &self,
        request: Request<Bytes>,
        after: Duration,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        *self.0.lock().unwrap() = Some(request);
        async move { Err(TransportError::Timeout { after }) }.boxed()
    }
}
