//! Nobody gets what was meant for another, and nobody can plant anything for others: poisoning, deception, a thousand users.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::IntoResponse as _;
use http::request::Parts;
use portico_base::{Random as _, SeededRandom, id};
use portico_testkit::TestPlugin;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, answer, client};
use crate::raw::{exchange, status};
use crate::recorder::Recorder;

/// Answers with everything that it was told, and lets everybody keep it.
async fn mirror(cache_control: &'static str) -> TestPlugin {
    let router = Router::new().fallback(move |parts: Parts, body: String| async move {
        let headers: Vec<String> = parts
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-request-id" && *name != "traceparent")
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let text = format!(
            "{} {}\n{}\n{body}",
            parts.method,
            parts.uri,
            headers.join("\n")
        );
        ([("cache-control", cache_control)], text).into_response()
    });
    TestPlugin::with(router).await
}

/// One request with these lines, and its answer with head.
fn ask(house: &House, line: &str, more: &str) -> String {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n",
        house.address()
    );
    exchange(house.address(), request.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_key_changes_nothing_for_others() {
    let house = House::start(&[]);
    let origin = mirror("public, max-age=60").await;
    house
        .register("app", origin.address.port(), json!({}))
        .await;
    let fields = [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Port: 6666 evil",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil",
        "X-Forwarded-For: evil",
        "X_Forwarded_Host: evil",
        "Forwarded: host=evil",
        "X-Real-IP: evil",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: EVIL",
        "X-HTTP-Method: EVIL",
        "X-Method-Override: EVIL",
        "X-Portico-User: evil",
        "X-Portico-Tenant: evil",
        "X_Portico_User: evil",
        "Connection: evil",
        "Proxy-Authorization: evil",
        "TE: evil",
        "Keep-Alive: evil",
    ];
    for (number, field) in fields.iter().enumerate() {
        let line = format!("GET /api/app/{number}");
        let attack = ask(&house, &line, &format!("{field}\r\n"));
        assert!(
            !attack.to_lowercase().contains("evil"),
            "{field} came through: {attack}"
        );
        let victim = ask(&house, &line, "");
        assert_eq!(status(&victim), 200, "{field}: {victim}");
        assert!(!victim.to_lowercase().contains("evil"), "{field}: {victim}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_bodies_and_parts_plant_nothing() {
    let house = House::start(&[]);
    let origin = mirror("public, max-age=60").await;
    house
        .register("app", origin.address.port(), json!({}))
        .await;
    // A GET with a body, whose body the service may read though no key holds it.
    let fat = ask(&house, "GET /api/app/fat", "Content-Length: 4\r\n\r\nevil");
    assert_eq!(status(&fat), 200, "{fat}");
    let victim = ask(&house, "GET /api/app/fat", "");
    assert!(
        victim.contains("GET /fat") && !victim.contains("evil"),
        "{victim}"
    );
    // HEAD, a part and a condition leave no half answer behind.
    for (number, (line, field)) in [
        ("HEAD", ""),
        ("GET", "Range: bytes=0-1\r\n"),
        ("GET", "If-None-Match: \"x\"\r\n"),
        (
            "GET",
            "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
        ),
        ("OPTIONS", ""),
        ("POST", "Content-Length: 0\r\n"),
    ]
    .iter()
    .enumerate()
    {
        ask(&house, &format!("{line} /api/app/half{number}"), field);
        let victim = ask(&house, &format!("GET /api/app/half{number}"), "");
        assert_eq!(status(&victim), 200, "{line} {field}: {victim}");
        let whole = victim.contains(&format!("GET /half{number}\n"));
        assert!(whole, "{line} {field}: {victim}");
    }
    // Fields that are too large or not well formed end here: the error is nobody else's.
    let long = format!("X-Long: {}\r\n", "a".repeat(200_000));
    for field in [long.as_str(), "X-Bad: a\0b\r\n", "X Bad: a\r\n"] {
        let refused = ask(&house, "GET /api/app/cpdos", field);
        assert!(status(&refused) >= 400, "{refused}");
    }
    let victim = ask(&house, "GET /api/app/cpdos", "");
    assert_eq!(status(&victim), 200, "{victim}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_queries_are_what_the_key_says() {
    let house = House::start(&[]);
    let origin = mirror("public, max-age=60").await;
    house
        .register("app", origin.address.port(), json!({}))
        .await;
    let port = house.address().rsplit(':').next().unwrap().to_owned();
    let get = |host: &str, target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(house.address(), request.as_bytes())
    };
    let own = format!("localhost:{port}");
    let attack = get("localhost:6666", "/api/app/a");
    assert_eq!(status(&attack), 200);
    let victim = get(&own, "/api/app/a");
    assert!(
        !victim.contains("6666"),
        "another port is another key: {victim}"
    );
    let shouted = get(&own.to_uppercase(), "/api/app/a");
    assert!(
        shouted.contains("x-cache: L1"),
        "case is no other host: {shouted}"
    );
    assert_eq!(status(&get("evil.example", "/api/app/a")), 421);
    assert_eq!(status(&get(&format!("{own}@evil"), "/api/app/a")), 400);
    let both = format!(
        "GET http://evil.example/api/app/a HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n"
    );
    let both = exchange(house.address(), both.as_bytes());
    assert!(matches!(status(&both), 400 | 421), "{both}");
    for target in [
        "/api/app/q?a=1;b=evil",
        "/api/app/q?a=1&a=evil",
        "/api/app/q?",
        "/api/app/q?evil",
    ] {
        assert_eq!(status(&get(&own, target)), 200);
    }
    let victim = get(&own, "/api/app/q");
    assert!(
        victim.contains("x-cache: MISS") && !victim.contains("evil"),
        "{victim}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_a_version_or_a_route_is_not_everybodys() {
    let house = House::start(&[]);
    let (old, new, beta) = (
        Recorder::answering("old", &[("cache-control", "public, max-age=60")]).await,
        Recorder::answering("new", &[("cache-control", "public, max-age=60")]).await,
        Recorder::answering("beta", &[("cache-control", "public, max-age=60")]).await,
    );
    house
        .register("app", old.port(), json!({ "version": "1.0.0" }))
        .await;
    house
        .register("app", new.port(), json!({ "version": "2.0.0" }))
        .await;
    house.register("beta", beta.port(), json!({})).await;
    let wish = ask(&house, "GET /api/app/x", "X-Service-Version: 1.0.0\r\n");
    assert!(wish.contains("old /x"), "{wish}");
    let other = ask(&house, "GET /api/app/x", "");
    assert!(other.contains("new /x"), "{other}");
    let wish = ask(&house, "GET /api/app/x", "X-Service-Version: 1.0.0\r\n");
    assert!(
        wish.contains("x-cache: L1") && wish.contains("old /x"),
        "{wish}"
    );

    let plain =
        json!({ "path": { "prefix": "/shop" }, "target": { "service": { "name": "app" } } });
    house.save("routes", "plain", plain).await;
    let tried = json!({ "path": { "prefix": "/shop" }, "headers": [{ "name": "x-beta", "is": "1" }],
        "target": { "service": { "name": "beta" } } });
    house.save("routes", "tried", tried).await;
    let wish = ask(&house, "GET /shop/y", "X-Beta: 1\r\n");
    assert!(wish.contains("beta /"), "{wish}");
    let other = ask(&house, "GET /shop/y", "");
    assert!(other.contains("new /"), "{other}");
}

/// Somebody is sent to the page of his account under a name that looks like a style sheet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_page_is_not_a_style_sheet() {
    let (house, keys) = House::with_users("");
    let router = Router::new().fallback(|parts: Parts| async move {
        let user = parts.headers.get("x-portico-user");
        let user = user.map_or("nobody", |v| v.to_str().unwrap()).to_owned();
        let cookie = parts.headers.get("cookie");
        let cookie = cookie.map_or("none", |v| v.to_str().unwrap()).to_owned();
        let kind = [("content-type", "text/html")];
        (kind, format!("account of {user} with {cookie}"))
    });
    let origin = TestPlugin::with(router).await;
    house
        .register("app", origin.address.port(), json!({}))
        .await;
    let doc = json!({ "scope": { "path_prefix": "/api/app/static" }, "policy": { "mode": "on", "ttl_s": 60 } });
    house.save("cache-rules", "static", doc).await;
    let token = keys.token(
        "alice",
        id::TENANT_DEFAULT,
        &[],
        chrono::Utc::now().timestamp(),
    );
    for path in [
        "/api/app/account/x.css",
        "/api/app/account;x.css",
        "/api/app/account%3Bx.css",
        "/api/app/account%2Fx.css",
        "/api/app/account%23x.css",
        "/api/app/account%3Fx.css",
        "/api/app/account%00.css",
        "/api/app/account%0A.css",
        "/api/app/static/../account",
        "/api/app/static/..%2Faccount",
        "/api/app/static/%2e%2e/account",
        "/api/app/static/..%5Caccount",
        "/api/app/static/..;/account",
        "/api/app/static//../account",
        "/api/app/static/x.css",
    ] {
        for credential in [
            format!("Authorization: Bearer {token}\r\n"),
            "Cookie: sid=alice\r\n".to_owned(),
        ] {
            let own = ask(&house, &format!("GET {path}"), &credential);
            assert!(
                own.contains("alice") || status(&own) == 400,
                "{path}: {own}"
            );
            let victim = ask(&house, &format!("GET {path}"), "");
            assert!(!victim.contains("alice"), "{path}: {victim}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_vary_by_everything_fill_no_memory() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(
        folder.path().join("portico.toml"),
        "[settings]\n\"gateway.cache.l1_entries\" = 100\n",
    )
    .unwrap();
    let house = House::at(folder, &[]);
    let many: Vec<String> = (0..40).map(|n| format!("x-v{n}")).collect();
    let wide: &'static str = Box::leak(many.join(", ").into_boxed_str());
    let router = Router::new()
        .route(
            "/wide",
            axum::routing::get(move || async move {
                [("cache-control", "max-age=60"), ("vary", wide)].into_response()
            }),
        )
        .fallback(|| async {
            (
                [("cache-control", "max-age=60"), ("vary", "user-agent")],
                "varies",
            )
                .into_response()
        });
    let origin = TestPlugin::with(router).await;
    house
        .register("app", origin.address.port(), json!({}))
        .await;
    for _ in 0..2 {
        let wide = house.get("/api/app/wide").await;
        assert_eq!(
            wide.headers["x-cache"], "MISS",
            "a key of forty fields is none"
        );
    }
    let client = client();
    for n in 0..500 {
        let request = client
            .get(format!("{}/api/app/narrow", house.http))
            .header("user-agent", format!("browser {n}"));
        let got = answer(request).await.unwrap();
        assert_eq!(got.headers["x-cache"], "MISS", "each has its own");
    }
    let stats = house
        .operate(Method::GET, "/api/gateway/cache/stats", None)
        .await
        .json();
    assert!(stats["l1_entries"].as_u64().unwrap() <= 100, "{stats}");
}

/// Spec §11: a thousand random users through the whole pipeline, every answer says whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one scene, read from top to bottom")]
async fn a_thousand_users_find_no_foreign_byte() {
    const USERS: usize = 1000;
    let (house, keys) = House::with_users("");
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let router = Router::new().fallback(move |parts: Parts| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let said = |name: &str| {
                let value = parts.headers.get(name);
                value.map_or("-", |v| v.to_str().unwrap()).to_owned()
            };
            let path = parts.uri.path().to_owned();
            let text = format!(
                "{path} for {} of {}",
                said("x-portico-user"),
                said("x-portico-tenant")
            );
            let control = match path.as_str() {
                "/public" => {
                    return (
                        [("cache-control", "public, max-age=60")],
                        "/public for all".to_owned(),
                    )
                        .into_response();
                }
                "/private" => "private, max-age=60",
                "/silent" | "/own" => "",
                "/vary" => "public, max-age=60",
                _ => "max-age=60, stale-while-revalidate=60",
            };
            let mut answer = text.into_response();
            if !control.is_empty() {
                answer
                    .headers_mut()
                    .insert("cache-control", control.parse().unwrap());
            }
            if path == "/vary" {
                answer
                    .headers_mut()
                    .insert("vary", "x-portico-user, x-portico-tenant".parse().unwrap());
            }
            answer
        }
    });
    let origin = TestPlugin::with(router).await;
    let own = json!({ "endpoints": [
        { "path": "/own", "cache": { "ttl_s": 60, "per_user": true } },
        { "path": "/silent", "is_public": true, "cache": { "ttl_s": 60 } },
    ] });
    house.register("app", origin.address.port(), own).await;
    let now = chrono::Utc::now().timestamp();
    let tenant = |n| format!("00000000-0000-7000-8000-00000000000{n}").parse();
    let tenants = [
        id::TENANT_DEFAULT,
        tenant("a").unwrap(),
        tenant("b").unwrap(),
    ];
    let users: Arc<Vec<_>> = Arc::new(
        (0..USERS)
            .map(|n| {
                // The same name in two tenants is two people.
                let (name, tenant) = (format!("user{}", n / 2), tenants[n % 2 + n % 3 / 2]);
                let token = keys.token(&name, tenant, &[], now);
                (name, tenant, token)
            })
            .collect(),
    );
    let mut crowd = tokio::task::JoinSet::new();
    for lane in 0..8_u64 {
        let (users, base) = (Arc::clone(&users), house.http.clone());
        crowd.spawn(async move {
            let random = SeededRandom::new(lane);
            let below = |n: usize| usize::try_from(random.below(n as u64)).unwrap();
            let (client, mut met) = (client(), BTreeMap::<String, usize>::new());
            for _ in 0..250 {
                let (name, tenant, token) = &users[below(users.len())];
                let paths = ["/public", "/private", "/silent", "/own", "/vary", "/stale"];
                let path = paths[below(paths.len())];
                for _ in 0..2 {
                    let request = client
                        .get(format!("{base}/api/app{path}"))
                        .bearer_auth(token);
                    let got = answer(request).await.unwrap();
                    assert_eq!(got.status, 200, "{path}: {}", got.text);
                    // The default tenant goes by its name.
                    let of = if *tenant == id::TENANT_DEFAULT {
                        "default".to_owned()
                    } else {
                        tenant.to_string()
                    };
                    let expected = match path {
                        "/public" => "/public for all".to_owned(),
                        _ => format!("{path} for {name} of {of}"),
                    };
                    assert_eq!(got.text, expected, "{:?}", got.headers);
                    let level = got
                        .headers
                        .get("x-cache")
                        .map_or("", |v| v.to_str().unwrap());
                    *met.entry(format!("{path} {level}")).or_default() += 1;
                }
            }
            met
        });
    }
    let mut met = BTreeMap::<String, usize>::new();
    for lane in crowd.join_all().await {
        for (way, times) in lane {
            *met.entry(way).or_default() += times;
        }
    }
    let times = |way: &str| met.get(way).copied().unwrap_or(0);
    for path in ["/public", "/own", "/vary"] {
        assert!(
            times(&format!("{path} L1")) > 50,
            "the cache took part: {met:?}"
        );
    }
    for path in ["/private", "/silent", "/stale"] {
        assert_eq!(times(&format!("{path} L1")), 0, "{met:?}");
    }
    assert!(fetched.load(Ordering::SeqCst) < 4000, "{met:?}");
}
