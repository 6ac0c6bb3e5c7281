//! The SDK against golden values and against a gateway that records what it says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod fake_gateway;
mod golden;
mod life;
#[cfg(feature = "jwks")]
mod statements;

use std::time::{SystemTime, UNIX_EPOCH};

use portico_sdk::{Identity, Options, Plugin, ServiceConfig};

use fake_gateway::FakeGateway;

/// Options of a plug-in that stops at once.
pub(crate) fn options(gateway: &FakeGateway) -> Options {
    Options {
        url: gateway.url.clone(),
        token: Some("prt_test".into()),
        linger: std::time::Duration::ZERO,
        ..Options::default()
    }
}

pub(crate) fn plugin(gateway: &FakeGateway) -> Plugin {
    let config = ServiceConfig {
        openapi_url: Some("/openapi.json".to_owned()),
        ..ServiceConfig::new("notes", "1.0.0")
    };
    Plugin::new(config, options(gateway)).unwrap()
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .try_into()
        .unwrap()
}

pub(crate) fn alice() -> Identity {
    Identity {
        user: Some("alice".to_owned()),
        tenant: Some("acme".to_owned()),
        roles: vec!["user".to_owned(), "admin".to_owned()],
        aal: 2,
        request_id: "req-1234".to_owned(),
        ..Identity::default()
    }
}
