//! Every link of the chain.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portico_base::{Access, ErrorKind};
use portico_rpc::{MAX_MESSAGE, Method, RpcRoutes, from_status};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::house::{Doer, House, Note, ask, descriptors, watch, with};

const OPEN: &str = "/test.v1.Doer/Open";
const KNOWN: &str = "/test.v1.Doer/Known";
const ADMIN: &str = "/test.v1.Doer/Admin";
const PATIENCE: Duration = Duration::from_secs(10);

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn who_calls_decides_what_they_may() {
    let house = House::start().await;
    let (plain, admin) = (bearer("tst_plain"), bearer("tst_admin"));
    let none: &[(&str, &str)] = &[];
    let plain: &[(&str, &str)] = &[("authorization", &plain)];
    let admin: &[(&str, &str)] = &[("authorization", &admin)];
    let by_key: &[(&str, &str)] = &[("x-api-key", "tst_admin")];
    let bad: &[(&str, &str)] = &[("authorization", "Bearer tst_other")];
    let basic: &[(&str, &str)] = &[("authorization", "Basic eDp5")];
    let foreign: &[(&str, &str)] = &[("authorization", "Bearer eyJ.a.b")];
    let page: &[(&str, &str)] = &[("origin", "https://evil.example")];
    use Code::{Ok as Fine, PermissionDenied, Unauthenticated};
    for (method, metadata, code, word) in [
        (OPEN, none, Fine, ""),
        (OPEN, page, PermissionDenied, "gateway.origin_not_allowed"),
        (OPEN, bad, Unauthenticated, "identity.token_invalid"),
        (OPEN, basic, Unauthenticated, "identity.token_invalid"),
        (OPEN, foreign, Unauthenticated, "identity.token_invalid"),
        (KNOWN, none, Unauthenticated, "identity.token_missing"),
        (KNOWN, plain, Fine, ""),
        (ADMIN, none, Unauthenticated, "identity.token_missing"),
        (ADMIN, plain, PermissionDenied, "identity.permission_denied"),
        (ADMIN, admin, Fine, ""),
        (ADMIN, by_key, Fine, ""),
        (
            "/test.v1.Doer/Hidden",
            admin,
            PermissionDenied,
            "system.undeclared",
        ),
    ] {
        let before = house.doer.reached.load(Ordering::SeqCst);
        let answer = ask(house.channel(), method, with("who", metadata)).await;
        let reached = house.doer.reached.load(Ordering::SeqCst) - before;
        match answer {
            Ok(_) => assert_eq!((code, reached), (Fine, 1), "{method} {metadata:?}"),
            Err(status) => {
                let fault = from_status(&status).unwrap();
                assert_eq!((status.code(), reached), (code, 0), "{method} {metadata:?}");
                assert_eq!(fault.code, word, "{method} {metadata:?}");
            }
        }
    }
    let gone = ask(house.channel(), "/test.v1.Other/Do", with("", &[])).await;
    assert_eq!(gone.unwrap_err().code(), Code::Unimplemented);
    house.stop().await;
}

#[tokio::test]
async fn request_id_and_trace_go_in_and_out() {
    let house = House::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let metadata = [("x-request-id", "req-77"), ("traceparent", trace)];
    let answer = ask(house.channel(), OPEN, with("who", &metadata))
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "req-77");
    let text = answer.into_inner().text;
    assert_eq!(text, "anonymous  req-77 0af7651916cd43dd8448eb211c80319c");
    // A bad one is replaced, and errors tell it as well.
    let metadata = [("x-request-id", "bad id")];
    let status = ask(house.channel(), OPEN, with("wrong", &metadata))
        .await
        .unwrap_err();
    let fault = from_status(&status).unwrap();
    assert_ne!(fault.request_id, "bad id");
    let told = status.metadata().get("x-request-id").unwrap();
    assert_eq!(told, &*fault.request_id);
    house.stop().await;
}

#[tokio::test]
async fn errors_keep_their_code_and_all_faults() {
    let house = House::start().await;
    let status = ask(house.channel(), OPEN, with("wrong", &[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fault = from_status(&status).unwrap();
    assert_eq!(
        (fault.kind, &*fault.code),
        (ErrorKind::Invalid, "test.invalid")
    );
    assert_eq!(fault.message, "two fields are wrong");
    let fields: Vec<_> = fault.fields.iter().map(|f| (&*f.field, &*f.code)).collect();
    assert_eq!(fields, [("a", "missing"), ("b[1]", "too_long")]);
    house.stop().await;
}

#[tokio::test]
async fn a_panic_ends_the_call_and_not_the_process() {
    let house = House::start().await;
    let channel = house.channel();
    let status = ask(
        channel.clone(),
        OPEN,
        with("panic", &[("x-request-id", "req-p")]),
    )
    .await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.message(), "internal error, request req-p");
    let mut stream = watch(channel.clone(), with("panic", &[])).await.unwrap();
    let mut seen = 0;
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("the stream must fail"),
            Err(status) => break status,
        }
    };
    // What was not sent yet is lost with it.
    assert!(seen <= 3);
    assert_eq!(end.code(), Code::Internal);
    assert_eq!(house.metric("portico_rpc_panics_total "), Some(2.0));
    // The same connection goes on.
    assert!(ask(channel, OPEN, with("", &[])).await.is_ok());
    house.stop().await;
}

#[tokio::test]
async fn deadlines_hold_for_calls_and_streams() {
    let house = House::start().await;
    let begun = Instant::now();
    // The client's own timer calls it cancelled; what counts is what the server did.
    let request = with("hang", &[("grpc-timeout", "50m")]);
    assert!(ask(house.channel(), OPEN, request).await.is_err());
    let mut stream = watch(house.channel(), with("", &[("grpc-timeout", "80m")]))
        .await
        .unwrap();
    let end = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::DeadlineExceeded);
    let ended = async || {
        ["Open", "Watch"].iter().all(|method| {
            let code = |code| {
                house.metric(&format!(
                    "portico_rpc_requests_total{{service=\"test.v1.Doer\",method=\"{method}\",code=\"{code}\"}} "
                ))
            };
            code("DEADLINE_EXCEEDED").is_some() || code("CANCELLED").is_some()
        })
    };
    let both = async {
        while !ended().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert!(begun.elapsed() < PATIENCE);
    house.stop().await;
}

#[tokio::test]
async fn too_large_messages_name_both_sizes() {
    let house = House::start().await;
    let mut note = Note::of("");
    note.bytes = vec![1; MAX_MESSAGE + 5];
    let status = ask(house.channel(), OPEN, Request::new(note))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains(&MAX_MESSAGE.to_string()),
        "{status:?}"
    );
    let found: Vec<usize> = status
        .message()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok())
        .collect();
    assert!(
        found[0] > MAX_MESSAGE && found[1] == MAX_MESSAGE,
        "{status:?}"
    );
    let mut note = Note::of("");
    note.bytes = vec![1; MAX_MESSAGE - 64];
    assert!(ask(house.channel(), OPEN, Request::new(note)).await.is_ok());
    // What is too large to be answered is no answer.
    let status = ask(house.channel(), OPEN, with("big", &[]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains(&MAX_MESSAGE.to_string()),
        "{status:?}"
    );
    house.stop().await;
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down() {
    let house = House::start().await;
    let channel = house.channel();
    let mut codes = Vec::new();
    for n in 0..80 {
        let token = format!("Bearer tst_guess{n}");
        let answer = ask(
            channel.clone(),
            OPEN,
            with("", &[("authorization", &token)]),
        )
        .await;
        codes.push(answer.unwrap_err());
    }
    assert_eq!(codes[0].code(), Code::Unauthenticated);
    let last = from_status(&codes[79]).unwrap();
    assert_eq!(
        (last.kind, &*last.code),
        (ErrorKind::TooMany, "system.rate_limited")
    );
    assert!(last.retry_after_s.is_some());
    // Good credentials of the same address are not slowed down.
    let token = bearer("tst_plain");
    assert!(
        ask(channel, KNOWN, with("", &[("authorization", &token)]))
            .await
            .is_ok()
    );
    house.stop().await;
}

#[tokio::test]
async fn health_tells_each_service_and_the_drain_ends_streams() {
    let house = House::start().await;
    let mut health = HealthClient::new(house.channel());
    let check = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut seen = health
        .watch(check("test.v1.Doer"))
        .await
        .unwrap()
        .into_inner();
    let mut until = async |wanted: ServingStatus| loop {
        let message = tokio::time::timeout(PATIENCE, seen.message())
            .await
            .unwrap();
        match message {
            Ok(Some(message)) if message.status() == wanted => return true,
            Ok(Some(_)) => {}
            _ => return false,
        }
    };
    assert!(until(ServingStatus::Serving).await);
    let all = health.check(check("")).await.unwrap().into_inner();
    assert_eq!(all.status(), ServingStatus::Serving);
    house.ready.store(false, Ordering::SeqCst);
    assert!(until(ServingStatus::NotServing).await);
    house.ready.store(true, Ordering::SeqCst);
    assert!(until(ServingStatus::Serving).await);
    let unknown = health.check(check("no.such.Service")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // Leaving tells clients, and still serves.
    house.running.as_ref().unwrap().leave();
    assert!(until(ServingStatus::NotServing).await);
    assert!(ask(house.channel(), OPEN, with("", &[])).await.is_ok());
    let mut stream = watch(house.channel(), with("", &[])).await.unwrap();
    let calls = ask(
        house.channel(),
        OPEN,
        with("hang", &[("grpc-timeout", "300m")]),
    );
    let (hanging, cut) = tokio::join!(calls, async {
        // Only once the call is under way.
        while house.metric("portico_rpc_in_flight{service=\"test.v1.Doer\"} ") < Some(2.0) {
            tokio::task::yield_now().await;
        }
        house.stop().await
    });
    assert_eq!(cut, 0, "everything ended by itself");
    // A call that was under way went on to its own end, whoever's timer was the first.
    let code = hanging.unwrap_err().code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream must be told"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
}

#[tokio::test]
async fn calls_are_counted_by_their_last_code() {
    let house = House::start().await;
    ask(house.channel(), OPEN, with("", &[])).await.unwrap();
    ask(house.channel(), OPEN, with("wrong", &[]))
        .await
        .unwrap_err();
    let mut stream = watch(house.channel(), with("end", &[])).await.unwrap();
    while stream.message().await.unwrap().is_some() {}
    let stream = watch(house.channel(), with("", &[])).await.unwrap();
    drop(stream);
    let count = |method: &str, code: &str| {
        house.metric(&format!(
            "portico_rpc_requests_total{{service=\"test.v1.Doer\",method=\"{method}\",code=\"{code}\"}} "
        ))
    };
    let all = async {
        while count("Watch", "CANCELLED").is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(count("Open", "OK"), Some(1.0));
    assert_eq!(count("Open", "INVALID_ARGUMENT"), Some(1.0));
    assert_eq!(count("Watch", "OK"), Some(1.0));
    let in_flight = house.metric("portico_rpc_in_flight{service=\"test.v1.Doer\"} ");
    assert_eq!(in_flight, Some(0.0));
    house.stop().await;
}

#[tokio::test]
async fn a_method_that_is_not_declared_stops_the_start() {
    let routes = |methods: Vec<Method>| {
        RpcRoutes::new()
            .describe(descriptors())
            .add(Doer::default(), methods)
    };
    let open = |name| Method::unary(name, Access::Public);
    let all = || vec![open("Open"), open("Known"), open("Admin"), open("Watch")];
    assert!(routes(all()).check().is_ok());
    let missing = routes(all().split_off(1)).check().unwrap_err();
    assert_eq!(missing.0, "/test.v1.Doer/Open");
    let mut more = all();
    more.push(open("Nothing"));
    assert_eq!(routes(more).check().unwrap_err().0, "/test.v1.Doer/Nothing");
}

#[tokio::test]
async fn reflection_is_there_when_it_is_on() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let house = House::start().await;
    let mut client = ServerReflectionClient::new(house.channel());
    let asked = futures_util::stream::iter([list()]);
    let mut answers = client
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("test.v1.Doer") && answer.contains("grpc.health.v1.Health"));
    house.stop().await;
    let house = House::with(|options| options.reflection = false).await;
    let mut client = ServerReflectionClient::new(house.channel());
    let refused = client
        .server_reflection_info(futures_util::stream::iter([list()]))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    house.stop().await;
}
