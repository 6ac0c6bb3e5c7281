//! Addresses of services: their forms, versions, hosts, and the one normalised path.

use serde_json::json;

use crate::house::{House, answer, client};
use crate::raw::{exchange, status};
use crate::recorder::Recorder;

/// GET with headers, by bytes, so that nothing changes the path on its way.
fn get(house: &House, target: &str, headers: &str) -> String {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
        house.address()
    );
    exchange(house.address(), request.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_several_forms() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    house
        .register("based", hello.port(), json!({ "base_path": "/v1/root" }))
        .await;
    for (target, arrives) in [
        ("/api/hello", "/"),
        ("/api/hello/", "/"),
        ("/api/hello?a=b", "/?a=b"),
        ("/api/hello/x/y/", "/x/y/"),
        ("/api/hello/x?q=1&a=%20b&c", "/x?q=1&a=%20b&c"),
        (
            "/api/hello/caf%C3%A9?%zz=a//b/../c",
            "/caf%C3%A9?%zz=a//b/../c",
        ),
        ("/api/based", "/v1/root/"),
        ("/api/based/x?y", "/v1/root/x?y"),
    ] {
        let text = get(&house, target, "");
        assert_eq!(status(&text), 200, "{target}: {text}");
        assert_eq!(hello.last().target, arrives, "{target}");
    }
    let home = get(&house, "/", "");
    assert_eq!(status(&home), 302, "{home}");
    assert!(home.contains("location: /docs\r\n"), "{home}");
    let absolute = format!("http://{}/api/hello/absolute", house.address());
    assert_eq!(status(&get(&house, &absolute, "")), 200);
    assert_eq!(hello.last().target, "/absolute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_chosen_by_path_or_header() {
    let house = House::start(&[]);
    let (old, new, next) = (
        Recorder::start("old").await,
        Recorder::start("new").await,
        Recorder::start("next").await,
    );
    house
        .register("hello", old.port(), json!({ "version": "1.2.0" }))
        .await;
    house
        .register("hello", new.port(), json!({ "version": "2.0.0" }))
        .await;
    house
        .register("hello", next.port(), json!({ "version": "3.0.0-rc.1" }))
        .await;
    for (target, headers, wanted) in [
        ("/api/hello/x", "", "new /x"),
        ("/api/hello@1.2.0/x", "", "old /x"),
        ("/api/hello@1/x", "", "old /x"),
        ("/api/hello@2/x", "", "new /x"),
        ("/api/hello@3.0.0-rc.1/x", "", "next /x"),
        ("/api/hello/x", "X-Service-Version: 1.2\r\n", "old /x"),
    ] {
        let text = get(&house, target, headers);
        assert!(text.ends_with(wanted), "{target} {headers}: {text}");
    }
    let none = get(&house, "/api/hello@9/x", "");
    assert_eq!(status(&none), 404, "{none}");
    assert!(none.contains("gateway.version_not_found"), "{none}");
}

/// GW-10: with a domain each part of it shows its own, and nothing of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_is_split_into_its_parts() {
    let house = House::configured("[server]\ndomain = \"portico.example\"\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let get = |host: &str, path: &str| {
        let text = exchange(
            house.address(),
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        status(&text)
    };
    let (methods, page) = ("/api/identity/login/methods", "/auth/setup");
    let jwks = "/.well-known/jwks.json";
    for (host, path, wanted) in [
        ("portico.example", "/api/hello/", 200),
        ("portico.example", methods, 200),
        ("portico.example", page, 200),
        ("auth.portico.example", methods, 200),
        ("auth.portico.example", page, 200),
        ("auth.portico.example", jwks, 200),
        ("auth.portico.example", "/api/hello/", 404),
        ("auth.portico.example", "/hello/", 404),
        ("auth.portico.example", "/docs", 404),
        ("api.portico.example", "/api/hello/", 200),
        ("api.portico.example", "/hello/", 200),
        ("api.portico.example", "/identity/login/methods", 200),
        ("api.portico.example", jwks, 200),
        ("api.portico.example", page, 404),
        ("admin.portico.example", methods, 200),
        ("admin.portico.example", "/api/hello/", 200),
        ("admin.portico.example", page, 404),
        ("static.portico.example", "/api/hello/", 404),
        ("static.portico.example", page, 404),
        ("static.portico.example", "/healthz", 200),
        ("oss.portico.example", "/api/hello/", 404),
        ("oss-shenzhen.portico.example", page, 404),
        ("other.portico.example", "/api/hello/", 421),
        ("portico.example.evil.example", "/api/hello/", 421),
    ] {
        assert_eq!(get(host, path), wanted, "{host}{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_known_hosts_are_answered() {
    let house = House::configured("[server]\nhosts = [\"shop.example\"]\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    for host in [
        "shop.example",
        "SHOP.example:8080",
        "localhost",
        "localhost:1",
        "127.0.0.1",
        "[::1]:80",
    ] {
        let text = exchange(
            house.address(),
            format!("GET /api/hello/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(status(&text), 200, "{host}: {text}");
    }
    let arrived = hello.count();
    for host in [
        "evil.example",
        "shop.example.evil.example",
        "x.shop.example",
        "localhost.evil.example",
    ] {
        let text = exchange(
            house.address(),
            format!("GET /api/hello/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(status(&text), 421, "{host}: {text}");
        assert!(text.contains("gateway.unknown_host"), "{text}");
    }
    for head in [
        "",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n",
    ] {
        let text = exchange(
            house.address(),
            format!("GET /api/hello/ HTTP/1.1\r\n{head}Connection: close\r\n\r\n").as_bytes(),
        );
        assert!(matches!(status(&text), 400 | 421), "{head:?}: {text}");
    }
    assert_eq!(hello.count(), arrived, "none of these may arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_normalised_path_is_routed_and_forwarded() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    for (target, arrives) in [
        ("//api//hello///x", "/x"),
        ("/api/hello/./x/.", "/x/"),
        ("/api/hello/a/../x", "/x"),
        ("/api/hello/a/%2e%2E/x", "/x"),
        ("/api/hello/%78%7e", "/x~"),
        ("/%61pi/hell%6F/x", "/x"),
        ("/api/hello/a%2fb%2Fc", "/a%2fb%2Fc"),
        ("/api/hello/a;b=c/d;e", "/a;b=c/d;e"),
        ("/api/hello/%252e%252e/x", "/%252e%252e/x"),
    ] {
        let text = get(&house, target, "");
        assert_eq!(status(&text), 200, "{target}: {text}");
        assert_eq!(hello.last().target, arrives, "{target}");
    }
    let arrived = hello.count();
    for target in [
        "/api/hello/../hello/x",
        "/api/hello/x/../../other",
        "/api/hello/%2e%2e/registry/services",
        "/api/hello/..;/x",
        "/api/hello/..%2fx",
        "/api/hello/..%5cx",
        "/api/hello/a%00b",
        "/api/hello/a\\b",
        "/api/hello/%",
        "/api/hello/%zz",
        "/api/hello/%c0%ae%c0%ae/x",
        "/../x",
        "/api/..;/hello/x",
    ] {
        let text = get(&house, target, "");
        assert_eq!(status(&text), 400, "{target}: {text}");
    }
    assert_eq!(hello.count(), arrived, "none of these may arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_path_gets_past_an_endpoints_roles() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    let endpoints = json!({ "endpoints": [{ "path": "/admin/*", "required_roles": ["staff"] }, { "path": "/admin", "required_roles": ["staff"] }] });
    house.register("hello", hello.port(), endpoints).await;
    assert_eq!(house.get("/api/hello/open").await.status, 200);
    let arrived = hello.count();
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin/x",
        "/./admin/x",
        "/open/../admin/x",
        "/%61dmin/x",
        "/admin;a=b/x",
        "/admin/x;a",
        "/admin//x",
        "/open/%2e%2e/admin/x",
        "/admin/./x",
        "/admin%2fx",
        "/%2fadmin/x",
    ] {
        let text = get(&house, &format!("/api/hello{path}"), "");
        // An encoded slash is no separator: that is another path, which a service must not take for the first.
        let other = path.contains("%2f") && status(&text) == 200;
        assert!(other || status(&text) == 401, "{path}: {text}");
    }
    assert!(hello.count() <= arrived + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_service_is_not_found() {
    let house = House::start(&[]);
    for path in [
        "/api/nobody",
        "/api/nobody/x",
        "/api/",
        "/nothing",
        "/api/v1",
        "/.env",
    ] {
        let answer = house.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{path}"
        );
        assert_eq!(
            answer.json()["request_id"],
            answer.headers["x-request-id"].to_str().unwrap(),
            "{path}"
        );
    }
    let trace = answer(client().request(http::Method::TRACE, format!("{}/api/nobody", house.http)))
        .await
        .unwrap();
    assert!(matches!(trace.status, 404 | 405 | 501), "{trace:?}");
    let connect = exchange(
        house.address(),
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    );
    assert!(status(&connect) >= 400, "{connect}");
}
