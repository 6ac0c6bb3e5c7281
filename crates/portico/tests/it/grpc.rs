//! The gRPC listener of the real binary: address, callers, health, reflection, metrics, drain (GW-104, HL-1, SD-2).

use std::time::Duration;

use portico_proto::identity::v1::auth_service_client::AuthServiceClient;
use portico_proto::identity::v1::{VerifyTokenRequest, WatchRevocationsRequest};
use portico_rpc::from_status;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::house::House;

const PATIENCE: Duration = Duration::from_secs(20);

fn address(house: &House) -> Option<String> {
    let text = std::fs::read_to_string(house.data_dir().join("ready.json")).unwrap();
    let ready: Value = serde_json::from_str(&text).unwrap();
    ready["grpc"].as_str().map(str::to_owned)
}

fn channel(house: &House) -> Channel {
    let address = address(house).expect("the listener is open");
    Endpoint::from_shared(address).unwrap().connect_lazy()
}

fn by_operator<T>(house: &House, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = format!("Bearer {}", house.operator());
    request
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    request
}

async fn reflected(house: &House) -> Result<String, Code> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(house));
    let answers = client
        .server_reflection_info(futures_util::stream::iter([asked]))
        .await
        .map_err(|status| status.code())?;
    let answer = answers.into_inner().message().await.map_err(|s| s.code())?;
    Ok(format!("{answer:?}"))
}

#[tokio::test]
async fn services_ask_about_tokens_over_grpc() {
    let house = House::start(&[]);
    let account = json!({"method": "username", "identifier": "anna",
        "password": "correct-Horse-9-battery", "device": {"platform": "cli"}});
    let answer = house
        .operate(
            reqwest::Method::POST,
            "/api/identity/register",
            Some(&account),
        )
        .await;
    let token = answer.json()["tokens"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut auth = AuthServiceClient::new(channel(&house));
    let asked = VerifyTokenRequest {
        token,
        ..VerifyTokenRequest::default()
    };
    let nobody = auth.verify_token(asked.clone()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    assert_eq!(from_status(&nobody).unwrap().code, "identity.token_missing");
    // A person's own token is not a service's credential.
    let mut person = Request::new(asked.clone());
    let credential = format!("Bearer {}", asked.token).parse().unwrap();
    person.metadata_mut().insert("authorization", credential);
    let refused = auth.verify_token(person).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let good = auth.verify_token(by_operator(&house, asked)).await.unwrap();
    assert!(good.metadata().contains_key("x-request-id"));
    let good = good.into_inner();
    assert_eq!(
        (good.active, good.principal.unwrap().roles),
        (true, vec!["user".to_owned()])
    );
    let metrics = reqwest::get(format!("{}/metrics", house.admin))
        .await
        .unwrap();
    let text = metrics.text().await.unwrap();
    for (code, count) in [("OK", 1), ("UNAUTHENTICATED", 1), ("PERMISSION_DENIED", 1)] {
        let line = format!(
            "portico_rpc_requests_total{{service=\"portico.identity.v1.AuthService\",method=\"VerifyToken\",code=\"{code}\"}} {count}"
        );
        assert!(text.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_stop_is_told_by_health_and_ends_streams() {
    let mut house = House::start(&[]);
    let mut health = HealthClient::new(channel(&house));
    let check = HealthCheckRequest {
        service: "portico.identity.v1.AuthService".to_owned(),
    };
    let mut seen = health.watch(check).await.unwrap().into_inner();
    let mut until = async |wanted| loop {
        let message = tokio::time::timeout(PATIENCE, seen.message())
            .await
            .unwrap();
        if message.unwrap().unwrap().status() == wanted {
            break;
        }
    };
    until(ServingStatus::Serving).await;
    let mut auth = AuthServiceClient::new(channel(&house));
    let asked = by_operator(&house, WatchRevocationsRequest::default());
    let mut stream = auth.watch_revocations(asked).await.unwrap().into_inner();
    house.signal(nix::sys::signal::Signal::SIGTERM);
    until(ServingStatus::NotServing).await;
    let end = loop {
        let message = tokio::time::timeout(PATIENCE, stream.message())
            .await
            .unwrap();
        if let Err(status) = message {
            break status;
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(house.wait(), 0);
}

#[tokio::test]
async fn reflection_goes_with_the_domain_and_the_listener_with_the_role() {
    let house = House::start(&[]);
    let told = reflected(&house).await.unwrap();
    assert!(told.contains("portico.identity.v1.AuthService"), "{told}");
    let house = House::configured("[server]\ndomain = \"example.com\"\n", &[]);
    assert_eq!(reflected(&house).await, Err(Code::Unimplemented));
    let text = "[server]\ndomain = \"example.com\"\n[listen]\ngrpc_reflection = \"on\"\n";
    let house = House::configured(text, &[]);
    assert!(reflected(&house).await.is_ok());
    // Without a service that speaks it there is no listener.
    let house = House::start(&["--roles", "gateway,registry"]);
    assert_eq!(address(&house), None);
}
