//! Pages of other origins: preflights answered at the door, and nothing for those that were not allowed.

use reqwest::Method;
use serde_json::json;

use crate::house::{Answer, House, answer, client};
use crate::recorder::Recorder;

async fn preflight(house: &House, origin: &str, method: &str, headers: &str) -> Answer {
    let request = client()
        .request(Method::OPTIONS, format!("{}/api/hello/x", house.http))
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", headers);
    answer(request).await.unwrap()
}

/// A service that would let everybody in, and a rule of ours.
async fn ruled() -> (House, Recorder) {
    let house = House::start(&[]);
    let hello = Recorder::answering("hello", &[("access-control-allow-origin", "*")]).await;
    house.register("hello", hello.port(), json!({})).await;
    let doc = json!({
        "scope": { "services": ["hello"] }, "origins": ["https://app.example"], "methods": ["GET", "PUT"],
        "headers": ["x-a"], "expose": ["x-b"], "credentials": true,
    });
    house.save("cors", "hello", doc).await;
    (house, hello)
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let value = answer.headers.get(name)?;
    Some(value.to_str().unwrap().to_lowercase())
}

#[tokio::test]
async fn preflights_are_answered_at_the_door() {
    let (house, hello) = ruled().await;
    let good = preflight(&house, "https://app.example", "PUT", "x-a, content-type").await;
    assert!(matches!(good.status, 200 | 204), "{good:?}");
    assert_eq!(
        header(&good, "access-control-allow-origin").as_deref(),
        Some("https://app.example")
    );
    assert_eq!(
        header(&good, "access-control-allow-credentials").as_deref(),
        Some("true")
    );
    assert_eq!(
        header(&good, "access-control-max-age").as_deref(),
        Some("600")
    );
    assert!(header(&good, "vary").unwrap().contains("origin"));
    for (origin, method, headers) in [
        ("https://evil.example", "PUT", "x-a"),
        ("https://app.example", "DELETE", "x-a"),
        ("https://app.example", "PUT", "x-other"),
        ("null", "PUT", ""),
    ] {
        let bad = preflight(&house, origin, method, headers).await;
        for name in [
            "access-control-allow-methods",
            "access-control-allow-headers",
        ] {
            assert_eq!(
                header(&bad, name),
                None,
                "{origin} {method} {headers}: {bad:?}"
            );
        }
        let named = header(&bad, "access-control-allow-origin");
        assert!(
            named.is_none_or(|n| n == origin && origin == "https://app.example"),
            "{bad:?}"
        );
    }
    assert_eq!(hello.count(), 0, "preflights do not arrive");
}

#[tokio::test]
async fn answers_are_readable_for_allowed_origins_alone() {
    let (house, _hello) = ruled().await;
    let url = format!("{}/api/hello/x", house.http);
    let real = answer(client().get(&url).header("origin", "https://app.example"))
        .await
        .unwrap();
    assert_eq!(
        (
            real.status,
            header(&real, "access-control-allow-origin").as_deref()
        ),
        (200, Some("https://app.example"))
    );
    assert_eq!(
        header(&real, "access-control-expose-headers").as_deref(),
        Some("x-b")
    );
    let other = answer(client().get(&url).header("origin", "https://evil.example"))
        .await
        .unwrap();
    assert_eq!(
        header(&other, "access-control-allow-origin"),
        None,
        "the service's own word does not count"
    );
    let wild = json!({ "doc": { "origins": ["*"], "credentials": true } });
    let wild = house
        .operate(Method::PUT, "/api/gateway/cors/wild", Some(&wild))
        .await;
    assert_eq!(wild.status, 400, "{}", wild.text);
}
