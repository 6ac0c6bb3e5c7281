//! Explicit routes: saved, in force at once, with history, without a dropped connection.

use std::io::Write as _;
use std::net::TcpStream;

use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client};
use crate::raw::read_head;
use crate::recorder::Recorder;

fn fixed(path: &str, body: &str) -> Value {
    json!({ "path": { "exact": path }, "target": { "fixed": { "status": 200, "body": body, "content_type": "text/plain" } } })
}

async fn put(house: &House, url: &str, body: Value) -> Answer {
    house.operate(Method::PUT, url, Some(&body)).await
}

#[tokio::test]
async fn routes_lead_to_services_with_rewritten_paths() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let service = json!({ "service": { "name": "hello" } });
    let routes = [
        (
            "kept",
            json!({ "path": { "prefix": "/kept" }, "target": service }),
        ),
        (
            "cut",
            json!({ "path": { "prefix": "/shop" }, "target": service, "rewrite": { "prefix": "/" } }),
        ),
        (
            "moved",
            json!({ "path": { "prefix": "/old" }, "target": service, "rewrite": { "prefix": "/new/place" } }),
        ),
        (
            "pattern",
            json!({ "path": { "pattern": "/u/{id}/p/{*rest}" }, "target": service, "rewrite": { "path": "/users/{id}/{rest}" } }),
        ),
        (
            "exact",
            json!({ "path": { "exact": "/u/1/p/x" }, "target": service, "rewrite": { "path": "/exact" } }),
        ),
        (
            "method",
            json!({ "path": { "exact": "/do" }, "methods": ["POST"], "target": service }),
        ),
        (
            "header",
            json!({ "path": { "prefix": "/kept" }, "headers": [{ "name": "x-beta", "is": "1" }], "target": { "fixed": { "status": 202 } } }),
        ),
    ];
    for (name, doc) in routes {
        house.save("routes", name, doc).await;
    }
    for (target, arrives) in [
        ("/kept/a?b=c", "/kept/a?b=c"),
        ("/kept", "/kept"),
        ("/shop/a/b?c", "/a/b?c"),
        ("/shop", "/"),
        ("/old/x", "/new/place/x"),
        ("/u/7/p/a/b%2Fc", "/users/7/a/b%2Fc"),
        ("/u/1/p/x", "/exact"),
    ] {
        let answer = house.get(target).await;
        assert_eq!(
            answer.text,
            format!("hello {arrives}"),
            "{target}: {}",
            answer.status
        );
    }
    assert_eq!(
        house.get("/shopping").await.status,
        404,
        "a prefix ends at a segment"
    );
    assert_eq!(house.get("/do").await.status, 404);
    assert_eq!(
        answer(client().post(format!("{}/do", house.http)))
            .await
            .unwrap()
            .status,
        200
    );
    let beta = client()
        .get(format!("{}/kept/a", house.http))
        .header("x-beta", "1");
    assert_eq!(answer(beta).await.unwrap().status, 202);
}

#[tokio::test]
async fn routes_answer_by_themselves_and_redirect() {
    let house = House::start(&[]);
    let doc = json!({ "path": { "exact": "/teapot" }, "target": { "fixed": {
        "status": 418, "body": "short and stout", "content_type": "text/plain", "headers": { "x-kind": "tea" } } } });
    house.save("routes", "teapot", doc).await;
    let pot = house.get("/teapot").await;
    assert_eq!((pot.status, pot.text.as_str()), (418, "short and stout"));
    assert_eq!(
        (&pot.headers["x-kind"], &pot.headers["content-type"]),
        (&"tea".parse().unwrap(), &"text/plain".parse().unwrap())
    );
    let doc = json!({ "path": { "prefix": "/old" }, "target": { "redirect": { "to": "https://new.example{path}", "status": 307 } } });
    house.save("routes", "old", doc).await;
    let moved = house.get("/old/x").await;
    assert_eq!(
        (moved.status, moved.headers["location"].to_str().unwrap()),
        (307, "https://new.example/old/x")
    );
    let doc = json!({ "path": { "pattern": "/go/{id}" }, "target": { "redirect": { "to": "/items/{route.id}" } } });
    house.save("routes", "go", doc).await;
    let gone = house.get("/go/a%0d%0aSet-Cookie:%20x=1").await;
    assert_eq!(gone.status, 308);
    assert!(
        !gone.headers.contains_key("set-cookie"),
        "{:?}",
        gone.headers
    );
}

/// A directory below `/files`, with a secret beside it.
async fn files() -> House {
    let house = House::configured("[server]\nfile_roots = [\"{folder}/www\"]\n", &[]);
    let www = house.folder.path().join("www");
    std::fs::create_dir_all(www.join("sub")).unwrap();
    std::fs::write(www.join("index.html"), "<p>home").unwrap();
    std::fs::write(www.join("sub/data.txt"), "0123456789").unwrap();
    std::fs::write(house.folder.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(house.folder.path().join("secret.txt"), www.join("link.txt"))
        .unwrap();
    let target = json!({ "directory": { "path": www.display().to_string(), "max_age_s": 60 } });
    house.save("routes", "files", json!({ "path": { "prefix": "/files" }, "target": target, "rewrite": { "prefix": "/" } })).await;
    house
}

#[tokio::test]
async fn a_directory_is_served() {
    let house = files().await;
    let home = house.get("/files/").await;
    assert_eq!(
        (home.status, home.text.as_str()),
        (200, "<p>home"),
        "{:?}",
        home.headers
    );
    assert!(
        home.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let data = house.get("/files/sub/data.txt").await;
    assert_eq!((data.status, data.text.as_str()), (200, "0123456789"));
    assert!(
        data.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("max-age=60")
    );
    let url = format!("{}/files/sub/data.txt", house.http);
    let part = answer(client().get(&url).header("range", "bytes=2-4"))
        .await
        .unwrap();
    assert_eq!(
        (
            part.status,
            part.text.as_str(),
            part.headers["content-range"].to_str().unwrap()
        ),
        (206, "234", "bytes 2-4/10")
    );
    let tag = data.headers["etag"].clone();
    assert_eq!(
        answer(client().get(&url).header("if-none-match", tag))
            .await
            .unwrap()
            .status,
        304
    );
    let head = answer(client().head(&url)).await.unwrap();
    assert_eq!(
        (
            head.status,
            head.text.as_str(),
            &head.headers["content-length"]
        ),
        (200, "", &"10".parse().unwrap())
    );
}

#[tokio::test]
async fn a_directory_is_never_left() {
    let house = files().await;
    for path in [
        "/files/link.txt",
        "/files/none",
        "/files/..%2fsecret.txt",
        "/files/sub/..%5c..%5csecret.txt",
        "/files/%2e%2e/secret.txt",
    ] {
        let answer = house.get(path).await;
        assert!(
            matches!(answer.status, 400 | 404),
            "{path}: {} {}",
            answer.status,
            answer.text
        );
        assert!(
            !answer.text.contains("secret\n") && answer.text != "secret",
            "{path}"
        );
    }
    let outside =
        json!({ "path": { "prefix": "/etc" }, "target": { "directory": { "path": "/etc" } } });
    let refused = put(
        &house,
        "/api/gateway/routes/outside",
        json!({ "doc": outside }),
    )
    .await;
    let served = house.get("/etc/hostname").await.status;
    assert!(
        refused.status == 400 || served == 404,
        "{} {served}",
        refused.text
    );
}

#[tokio::test]
async fn a_route_can_be_bound_to_a_host() {
    let house = House::start(&[]);
    let doc = json!({ "hosts": ["shop.example", "*.shops.example"], "path": { "prefix": "/" }, "target": { "fixed": { "status": 200, "body": "the shop" } } });
    house.save("routes", "shop", doc).await;
    for (host, status) in [
        ("shop.example", 200),
        ("a.shops.example", 200),
        ("127.0.0.1", 404),
        ("other.example", 421),
    ] {
        let request = client()
            .get(format!("{}/api-of-the-shop", house.http))
            .header("host", host);
        let answer = answer(request).await.unwrap();
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
    }
    let doc =
        json!({ "path": { "prefix": "/api/mine" }, "target": { "fixed": { "status": 200 } } });
    let taken = put(&house, "/api/gateway/routes/taken", json!({ "doc": doc })).await;
    assert_eq!(
        (taken.status, taken.json()["errors"][0]["field"].as_str()),
        (400, Some("path.prefix")),
        "{}",
        taken.text
    );
}

#[tokio::test]
async fn every_fault_of_a_document_is_told_at_once() {
    let house = House::start(&[]);
    let doc = json!({
        "hosts": ["a b"], "path": { "prefix": "no-slash" }, "methods": ["get"], "headers": [{ "name": "x y", "is": "1" }],
        "target": { "redirect": { "to": "ftp://x", "status": 200 } }, "retries": { "attempts": 9 }, "timeouts": { "total_ms": 0 },
    });
    let answer = put(&house, "/api/gateway/routes/bad", json!({ "doc": doc })).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    let fields: Vec<String> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["field"].as_str().unwrap().to_owned())
        .collect();
    for field in [
        "hosts[0]",
        "path.prefix",
        "methods[0]",
        "headers[0].name",
        "target.redirect.status",
        "target.redirect.to",
        "retries.attempts",
        "timeouts.total_ms",
    ] {
        assert!(
            fields.iter().any(|f| f.ends_with(field)),
            "{field} is missing in {fields:?}"
        );
    }
    assert_eq!(
        house
            .operate(Method::GET, "/api/gateway/routes/bad", None)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn versions_are_kept_and_brought_back() {
    let house = House::start(&[]);
    let url = "/api/gateway/routes/word";
    house.save("routes", "word", fixed("/word", "one")).await;
    house.save("routes", "word", fixed("/word", "two")).await;
    assert_eq!(house.get("/word").await.text, "two");

    let dry = put(
        &house,
        &format!("{url}?dry_run=true"),
        json!({ "doc": fixed("/word", "three") }),
    )
    .await;
    assert_eq!(
        (dry.status, dry.json()["version"].as_i64()),
        (200, Some(3)),
        "{}",
        dry.text
    );
    assert_eq!(house.get("/word").await.text, "two");

    let stale = client()
        .put(format!("{}{url}", house.http))
        .bearer_auth(house.operator())
        .header("if-match", "\"1\"")
        .json(&json!({ "doc": fixed("/word", "lost") }));
    let stale = answer(stale).await.unwrap();
    assert_eq!(
        (stale.status, stale.json()["code"].as_str()),
        (412, Some("gateway.version_mismatch"))
    );

    let back = house
        .operate(
            Method::POST,
            &format!("{url}/rollback"),
            Some(&json!({ "to": 1, "message": "two was wrong" })),
        )
        .await;
    assert_eq!(back.status, 200, "{}", back.text);
    assert_eq!(house.get("/word").await.text, "one");
    let list = house
        .operate(Method::GET, &format!("{url}/versions"), None)
        .await
        .json();
    let versions: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            (
                v["version"].as_i64().unwrap(),
                v["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(versions, [(3, "two was wrong"), (2, ""), (1, "")]);

    assert_eq!(house.operate(Method::DELETE, url, None).await.status, 204);
    assert_eq!(house.get("/word").await.status, 404);
    assert_eq!(house.operate(Method::GET, url, None).await.status, 404);
    let again = house
        .operate(
            Method::POST,
            "/api/gateway/routes",
            Some(&json!({ "name": "word", "doc": fixed("/word", "new") })),
        )
        .await;
    assert_eq!(again.status, 201, "{}", again.text);
    assert_eq!(house.get("/word").await.text, "new");
}

#[tokio::test]
async fn a_change_drops_no_connection_and_survives_a_restart() {
    let mut house = House::start(&[]);
    house.save("routes", "word", fixed("/word", "0")).await;
    let mut stream = TcpStream::connect(house.address()).unwrap();
    for round in 0..20 {
        house
            .save("routes", "word", fixed("/word", &round.to_string()))
            .await;
        write!(
            stream,
            "GET /word HTTP/1.1\r\nHost: {}\r\n\r\n",
            house.address()
        )
        .unwrap();
        let head = read_head(&mut stream).expect("the connection lives");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length: usize = head
            .lines()
            .find_map(|l| {
                l.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(|n| n.trim().parse().unwrap())
            })
            .unwrap();
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut stream, &mut body).unwrap();
        assert_eq!(
            body,
            round.to_string().as_bytes(),
            "the change is in force with the answer"
        );
    }
    house.signal(nix::sys::signal::Signal::SIGKILL);
    house.wait();
    let house = House::at(house.folder.clone(), &[]);
    assert_eq!(house.get("/word").await.text, "19");
}

#[tokio::test]
async fn a_release_splits_traffic_by_header_and_weight() {
    let house = House::start(&[]);
    let (old, new) = (Recorder::start("old").await, Recorder::start("new").await);
    house
        .register("hello", old.port(), json!({ "version": "1.0.0" }))
        .await;
    house
        .register("hello", new.port(), json!({ "version": "2.0.0" }))
        .await;
    let doc = json!({ "stable": "1.0.0", "candidate": { "version": "2.0.0", "weight": 0.0, "matchers": [{ "header": { "name": "x-beta", "value": "1" } }] } });
    house.save("releases", "hello", doc).await;
    for _ in 0..20 {
        assert_eq!(house.get("/api/hello/x").await.text, "old /x");
    }
    let beta = client()
        .get(format!("{}/api/hello/x", house.http))
        .header("x-beta", "1");
    assert_eq!(answer(beta).await.unwrap().text, "new /x");
    house.save("releases", "hello", json!({ "stable": "1.0.0", "candidate": { "version": "2.0.0", "weight": 50.0 }, "sticky": "none" })).await;
    let before = new.count();
    for _ in 0..100 {
        assert_eq!(house.get("/api/hello/x").await.status, 200);
    }
    let share = new.count() - before;
    assert!(
        (20..=80).contains(&share),
        "{share} of 100 went to the candidate"
    );
    house
        .save("releases", "hello", json!({ "stable": "2.0.0" }))
        .await;
    for _ in 0..20 {
        assert_eq!(house.get("/api/hello/x").await.text, "new /x");
    }
}

#[tokio::test]
async fn transforms_change_headers_query_and_status() {
    let house = House::start(&[]);
    let hello = Recorder::answering("hello", &[("x-inner", "1"), ("x-old", "2")]).await;
    house.register("hello", hello.port(), json!({})).await;
    let doc = json!({
        "scope": { "services": ["hello"] },
        "request_headers": { "set": { "x-id": "{request.id}" }, "remove": ["x-secret"] },
        "response_headers": { "remove": ["x-inner"], "rename": { "x-old": "x-new" }, "add": { "x-added": "yes" } },
        "query": { "set": { "lang": "en" }, "remove": ["debug"] },
        "status": { "200": 203 },
    });
    house.save("transforms", "hello", doc).await;
    let request = client()
        .get(format!("{}/api/hello/x?debug=1&a=b", house.http))
        .header("x-secret", "s");
    let answer = answer(request).await.unwrap();
    assert_eq!(answer.status, 203, "{}", answer.text);
    let seen = hello.last();
    assert_eq!(
        (seen.target.as_str(), seen.header("x-secret")),
        ("/x?a=b&lang=en", "")
    );
    assert_eq!(
        seen.header("x-id"),
        answer.headers["x-request-id"].to_str().unwrap()
    );
    assert!(!answer.headers.contains_key("x-inner") && !answer.headers.contains_key("x-old"));
    assert_eq!(
        (&answer.headers["x-new"], &answer.headers["x-added"]),
        (&"2".parse().unwrap(), &"yes".parse().unwrap())
    );
    let protected = json!({ "request_headers": { "set": { "x-portico-user": "root" } } });
    assert_eq!(
        put(
            &house,
            "/api/gateway/transforms/forge",
            json!({ "doc": protected })
        )
        .await
        .status,
        400
    );
}
