//! Headers: what is taken away on the way in and out, and what is told truly.

use serde_json::json;

use crate::house::{House, answer, client};
use crate::raw::{exchange, status};
use crate::recorder::Recorder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_words_about_itself_are_not_passed_on() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let forged = "X-Portico-User: root\r\nX-Portico-Roles: staff\r\nX-Portico-New: 1\r\nX_Portico_User: root\r\n\
        X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6\r\n\
        X-Real-IP: 6.6.6.6\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\
        X-Request-Id: forged-id-1\r\nAuthorization: Basic eDp5\r\nProxy-Authorization: Basic eDp5\r\nProxy: http://evil\r\n\
        Cookie: a=1; portico_at=s; b=2\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nX-Hop: 1\r\nX-Kept: yes\r\n";
    let request = format!(
        "GET /api/hello/x HTTP/1.1\r\nHost: {}\r\nConnection: close, X-Hop\r\n{forged}\r\n",
        house.address()
    );
    let text = exchange(house.address(), request.as_bytes());
    assert_eq!(status(&text), 200, "{text}");
    let seen = hello.last();
    for name in [
        "x-portico-new",
        "x_portico_user",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "authorization",
        "proxy-authorization",
        "keep-alive",
        "x-hop",
    ] {
        assert!(
            !seen.headers.contains_key(name),
            "{name}: {:?}",
            seen.headers
        );
    }
    assert_eq!(
        (
            seen.header("x-portico-user"),
            seen.header("x-portico-roles")
        ),
        ("", "")
    );
    assert_eq!(
        (seen.header("x-forwarded-for"), seen.header("x-real-ip")),
        ("127.0.0.1", "127.0.0.1")
    );
    assert_eq!(
        (
            seen.header("x-forwarded-proto"),
            seen.header("x-forwarded-host")
        ),
        ("http", house.address())
    );
    assert_eq!(
        (seen.header("cookie"), seen.header("x-kept")),
        ("a=1; b=2", "yes")
    );
    assert!(seen.header("via").contains("portico"), "{:?}", seen.headers);
    let id = seen.header("x-portico-request-id");
    assert!(id != "forged-id-1" && text.contains(id), "{id} in {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed() {
    let house = House::configured("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let request = client()
        .get(format!("{}/api/hello/x", house.http))
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-proto", "https")
        .header("x-request-id", "from-the-proxy-1")
        .header("x-portico-user", "root");
    let answer = answer(request).await.unwrap();
    assert_eq!(answer.headers["x-request-id"], "from-the-proxy-1");
    let seen = hello.last();
    assert_eq!(
        (seen.header("x-forwarded-for"), seen.header("x-real-ip")),
        ("203.0.113.7, 127.0.0.1", "203.0.113.7")
    );
    assert_eq!(
        (
            seen.header("x-forwarded-proto"),
            seen.header("x-portico-user")
        ),
        ("https", "")
    );
    assert_eq!(seen.header("x-portico-request-id"), "from-the-proxy-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cleaned_and_made_safe() {
    let house = House::start(&[]);
    let page = Recorder::answering(
        "page",
        &[
            ("content-type", "text/html"),
            ("x-portico-user", "root"),
            ("server", "secret/1.0"),
            ("set-cookie", "portico_at=evil"),
            ("set-cookie", "own=1"),
            ("clear-site-data", "\"*\""),
            ("connection", "x-inner"),
            ("x-inner", "1"),
            ("x-kept", "yes"),
        ],
    )
    .await;
    house.register("page", page.port(), json!({})).await;
    let answer = house.get("/api/page/").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "page /"));
    for name in ["x-portico-user", "clear-site-data", "x-inner"] {
        assert!(
            !answer.headers.contains_key(name),
            "{name}: {:?}",
            answer.headers
        );
    }
    assert!(
        answer
            .headers
            .get("server")
            .is_none_or(|v| v != "secret/1.0")
    );
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1"]);
    assert_eq!(
        (
            &answer.headers["x-kept"],
            &answer.headers["x-content-type-options"]
        ),
        (&"yes".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert!(
        answer.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("sandbox"),
        "{:?}",
        answer.headers
    );
    assert!(
        answer.headers.contains_key("x-frame-options")
            && answer.headers.contains_key("referrer-policy"),
        "{:?}",
        answer.headers
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_and_a_bad_one_begins_anew() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (sent, goes_on) in [
        (format!("00-{trace}-b7ad6b7169203331-01"), true),
        (format!("00-{trace}-0000000000000000-01"), false),
        ("nonsense".to_owned(), false),
    ] {
        let request = client()
            .get(format!("{}/api/hello/x", house.http))
            .header("traceparent", &sent);
        assert_eq!(answer(request).await.unwrap().status, 200);
        let seen = hello.last();
        let parent = seen.header("traceparent");
        let parts: Vec<&str> = parent.split('-').collect();
        assert_eq!(parts.len(), 4, "{sent}: {parent}");
        assert_eq!(parts[1] == trace, goes_on, "{sent}: {parent}");
        assert_ne!(parts[2], "b7ad6b7169203331", "the span is ours");
    }
}
