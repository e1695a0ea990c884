//! A panic in a task prints no secret: its message is the `Debug` text of what the task held.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use security_group_operator::clock::Clock;
use security_group_operator::ecs::credential::{
    AssumeRole, CredentialsUri, Environment, IssuedKey, StaticKey,
};
use security_group_operator::ecs::{Client, Credential, Endpoints, Http};

const CANARY: &str = "CANARY";

fn key() -> Credential {
    Credential::new("LTAI4", "CANARYsecret", Some("CANARYtoken".into())).unwrap()
}

/// Panics in a task with the text of this value, as `expect` of an error does.
async fn panics(value: impl Debug + Send + 'static) -> String {
    let task = tokio::spawn(async move { panic!("the task ends here: {value:?}") });
    let error = task.await.unwrap_err();
    format!("{error} {error:?}")
}

#[tokio::test]
async fn panic_message_of_a_task_has_no_secret() {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&messages);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.to_string();
        if message.contains("the task ends here") {
            recorder.lock().unwrap().push(message);
        } else {
            before(panic);
        }
    }));
    let endpoints = Endpoints::parse(None, None, false).unwrap();
    let transport = Arc::new(Http::new().unwrap());
    let client = Client::new(transport, key(), endpoints).with_clock(Clock::system());
    let issued = IssuedKey {
        credential: key(),
        expires: None,
    };
    let role = AssumeRole {
        base: Arc::new(StaticKey(key())),
        role_arn: "acs:ram::1:role/web".to_owned(),
        session_name: None,
        external_id: Some("CANARYexternal".to_owned()),
        duration_seconds: 3_600,
    };
    let url = "http://user:CANARYpassword@127.0.0.1/CANARYpath?token=CANARYquery";
    let uri = Environment::read(|name| {
        (name == "ALIBABA_CLOUD_CREDENTIALS_URI").then(|| url.replace("user:CANARYpassword@", ""))
    });
    let mut ends = vec![
        panics(key()).await,
        panics(client).await,
        panics(issued).await,
        panics(StaticKey(key())).await,
        panics(Environment::Key(key())).await,
        panics(CredentialsUri(url.parse().unwrap())).await,
        panics(uri.unwrap()).await,
        panics(Environment::Source(Arc::new(role.clone()))).await,
        panics(role).await,
    ];
    // Its own panics are shown.
    drop(std::panic::take_hook());
    let count = ends.len();
    let mut messages = std::mem::take(&mut *messages.lock().unwrap());
    assert_eq!(messages.len(), count, "each panic has a message");
    ends.append(&mut messages);
    for text in ends {
        assert!(!text.contains(CANARY), "{text}");
    }
}
