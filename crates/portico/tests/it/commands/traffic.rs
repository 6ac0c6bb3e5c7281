//! `portico release`, `cache`, `breaker`: what becomes of traffic.

use super::*;

/// A house with a service of two versions.
async fn two_versions() -> (House, RawServer, RawServer) {
    let one = RawServer::start(|stream, _| answer_always(stream, "one"));
    let two = RawServer::start(|stream, _| answer_always(stream, "two"));
    let house = House::start(&[]);
    house.register("hello", one.port(), json!({})).await;
    house
        .register("hello", two.port(), json!({ "version": "2.1.0" }))
        .await;
    (house, one, two)
}

#[tokio::test]
async fn a_version_goes_on_trial_is_promoted_and_taken_back() {
    let (house, _one, _two) = two_versions().await;
    assert!(done(&house, &["release", "show"]).contains("no service has a release"));
    assert!(failed(&house, 1, &["release", "show", "hello"]).contains("404"));

    let set = done(
        &house,
        &["release", "set", "hello", "v2=0", "-m", "careful"],
    );
    assert!(set.contains("stable is 1.0.0, 2.1.0 gets 0 %"), "{set}");
    assert_eq!(house.get("/api/hello/").await.text, "one");
    let now = json_of(&house, &["release", "set", "hello", "2=100"]);
    let candidate = &now["doc"]["candidate"];
    assert_eq!(
        (&candidate["version"], &candidate["weight"]),
        (&json!("2.1.0"), &json!(100.0)),
        "{now}"
    );
    assert_eq!(house.get("/api/hello/").await.text, "two");
    assert!(done(&house, &["release", "show"]).contains("2.1.0"));
    assert_eq!(json_of(&house, &["release", "show"])[0]["name"], "hello");

    // What the release keeps of itself is no difference.
    let list = json_of(&house, &["route", "list", "--kind", "releases"]).to_string();
    let same = portico_reads(
        &house,
        &["route", "apply", "--kind", "releases", "-f", "-"],
        list.as_bytes(),
    );
    assert!(
        out(&same).contains("releases/hello: unchanged"),
        "{}{}",
        out(&same),
        err(&same)
    );

    let promoted = json_of(&house, &["release", "promote", "hello"]);
    assert_eq!(promoted["doc"]["stable"], "2.1.0", "{promoted}");
    assert_eq!(house.get("/api/hello/").await.text, "two");
    let back = json_of(&house, &["release", "rollback", "hello", "-m", "not yet"]);
    assert_eq!(back["doc"]["stable"], "1.0.0", "{back}");
    assert_eq!(house.get("/api/hello/").await.text, "one");
    assert_eq!(
        json_of(&house, &["release", "show", "hello"])["message"],
        "not yet"
    );
}

#[tokio::test]
async fn a_roll_out_by_plan_is_stepped_paused_resumed_and_aborted() {
    let (house, _one, _two) = two_versions().await;
    let begun = json_of(
        &house,
        &[
            "release",
            "set",
            "hello",
            "v2",
            "--plan=10,50,100",
            "--hold",
            "600",
        ],
    );
    assert_eq!(begun["doc"]["plan"]["hold_s"], 600, "{begun}");
    assert_eq!(begun["doc"]["candidate"]["weight"], 10.0, "{begun}");
    let weight = |now: &Value| now["doc"]["candidate"]["weight"].as_f64();
    assert_eq!(
        weight(&json_of(&house, &["release", "step", "hello"])),
        Some(50.0)
    );
    done(&house, &["release", "pause", "hello", "-m", "lunch"]);
    assert!(failed(&house, 1, &["release", "pause", "hello"]).contains("409"));
    done(&house, &["release", "resume", "hello"]);
    assert_eq!(
        weight(&json_of(&house, &["release", "abort", "hello"])),
        Some(0.0)
    );
    assert_eq!(house.get("/api/hello/").await.text, "one");
}

#[tokio::test]
async fn releases_that_cannot_be_are_refused() {
    let (house, _one, _two) = two_versions().await;
    assert!(
        failed(&house, 1, &["release", "set", "nobody", "v2=10"]).contains("no service `nobody`")
    );
    let unknown = failed(&house, 1, &["release", "set", "hello", "v3=10"]);
    assert!(
        unknown.contains("1.0.0") && unknown.contains("2.1.0"),
        "{unknown}"
    );
    assert!(
        failed(
            &house,
            1,
            &["release", "set", "hello", "v2=10", "--stable", "2"]
        )
        .contains("stable version already")
    );
    for share in ["v2", "v2=ten", "=10", "v2=101"] {
        failed(&house, 2, &["release", "set", "hello", share]);
    }
    failed(
        &house,
        2,
        &["release", "set", "hello", "v2=10", "--hold", "5"],
    );
    assert!(failed(&house, 1, &["release", "step", "hello"]).contains("404"));
    failed(&house, 2, &["release", "step"]);
}

#[tokio::test]
async fn the_cache_is_purged_and_looked_at() {
    let upstream = RawServer::start(|mut stream, _| {
        while crate::raw::read_head(&mut stream).is_some() {
            let answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nCache-Tag: news\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let house = House::start(&[]);
    house.register("hello", upstream.port(), json!({})).await;
    house
        .save(
            "cache-rules",
            "all",
            json!({ "policy": { "mode": "response" } }),
        )
        .await;
    let stored = || async {
        house.get("/api/hello/x").await;
        house.get("/api/hello/x").await.headers["x-cache"] == "L1"
    };
    assert!(stored().await);
    assert!(
        json_of(&house, &["cache", "stats"])["l1_entries"]
            .as_u64()
            .unwrap()
            >= 1
    );
    assert!(done(&house, &["cache", "stats"]).contains("in memory"));
    let told = done(&house, &["cache", "explain", "/api/hello/x"]);
    assert!(told.contains("fresh"), "{told}");
    assert!(json_of(&house, &["cache", "explain", "/api/hello/x"])["found"].is_object());

    for words in [
        &["/api/hello/x"][..],
        &["--prefix", "/api/hello/"],
        &["--tag", "news"],
        &["--service", "hello"],
    ] {
        assert!(stored().await);
        let purged = json_of(&house, &[&["cache", "purge", "--hard"], words].concat());
        assert_eq!(purged["soft"], false, "{purged}");
        assert_eq!(
            house.get("/api/hello/x").await.headers["x-cache"],
            "MISS",
            "{words:?}"
        );
    }
    assert!(done(&house, &["cache", "purge", "--tag", "news"]).contains("stale"));
    failed(&house, 2, &["cache", "purge"]);
    failed(&house, 2, &["cache", "purge", "/x", "--tag", "y"]);
    assert!(failed(&house, 1, &["cache", "purge", "--tag", ""]).contains("value"));
}

#[tokio::test]
async fn breakers_are_listed_and_forced() {
    let upstream = RawServer::start(|stream, _| answer_always(stream, "hello"));
    let house = House::start(&[]);
    let id = house.register("hello", upstream.port(), json!({})).await;
    let listed = done(&house, &["breaker", "list"]);
    assert!(listed.contains("hello") && listed.contains(&id), "{listed}");
    assert!(json_of(&house, &["breaker", "list"])["items"].is_array());
    let opened = json_of(
        &house,
        &[
            "breaker", "open", "hello", "--for", "60", "--reason", "test",
        ],
    );
    assert_eq!(opened["breaker"]["forced"], "open", "{opened}");
    assert_eq!(
        house.get("/api/hello/").await.json()["code"],
        "gateway.breaker_open"
    );
    assert!(done(&house, &["breaker", "list"]).contains("forced for"));
    assert!(done(&house, &["breaker", "auto", "hello"]).contains("decides by itself"));
    assert_eq!(house.get("/api/hello/").await.status, 200);
    assert!(done(&house, &["breaker", "close", &id]).contains("forced closed"));
    assert!(failed(&house, 1, &["breaker", "open", "nobody"]).contains("404"));
    failed(&house, 2, &["breaker", "open", "hello", "--for", "0"]);
    failed(&house, 2, &["breaker", "open"]);
}
