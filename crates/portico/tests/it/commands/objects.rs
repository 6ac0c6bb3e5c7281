//! `portico route`: objects from files, their history, and what a request would meet.

use super::*;

fn write(house: &House, name: &str, text: &str) {
    std::fs::write(house.folder.path().join(name), text).unwrap();
}

const TOML: &str = "[[routes]]\nname = \"word\"\nmessage = \"first\"\n[routes.doc]\npath = { exact = \"/word\" }\n\
                    target = { fixed = { status = 200, body = \"one\" } }\n\n\
                    [[limits]]\nname = \"gentle\"\ndoc = { by = \"address\", per_s = 5000.0 }\n";

#[tokio::test]
async fn a_file_is_compared_checked_and_applied() {
    let house = House::start(&[]);
    write(&house, "door.toml", TOML);
    let would = done(&house, &["route", "apply", "-f", "door.toml", "--dry-run"]);
    assert!(
        would.contains("routes/word: would be new") && would.contains("+ path.exact: \"/word\""),
        "{would}"
    );
    assert_eq!(
        house.get("/word").await.status,
        404,
        "a dry run changes nothing"
    );

    let applied = done(&house, &["route", "apply", "-f", "door.toml"]);
    assert!(
        applied.contains("routes/word: applied, version 1")
            && applied.contains("limits/gentle: applied"),
        "{applied}"
    );
    assert_eq!(house.get("/word").await.text, "one");
    let again = json_of(&house, &["route", "apply", "-f", "door.toml"]);
    assert!(
        again["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i| i["changed"] == false),
        "{again}"
    );

    write(&house, "door.toml", &TOML.replace("\"one\"", "\"two\""));
    let changed = done(
        &house,
        &["route", "apply", "-f", "door.toml", "-m", "louder"],
    );
    assert!(
        changed.contains("~ target.fixed.body: \"one\" → \"two\"")
            && changed.contains("limits/gentle: unchanged"),
        "{changed}"
    );
    assert_eq!(house.get("/word").await.text, "two");

    let listed = done(&house, &["route", "list"]);
    assert!(
        listed.contains("word") && listed.contains("answers 200"),
        "{listed}"
    );
    assert!(done(&house, &["route", "list", "--kind", "limits"]).contains("gentle"));
    assert_eq!(json_of(&house, &["route", "get", "word"])["version"], 2);
}

#[tokio::test]
async fn history_comparison_rollback_and_removal() {
    let house = House::start(&[]);
    for (text, message) in [("one", "first"), ("two", "second")] {
        write(&house, "word.json", &json!({ "name": "word", "doc": { "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": text } } } }).to_string());
        done(
            &house,
            &["route", "apply", "-f", "word.json", "-m", message],
        );
    }
    let history = done(&house, &["route", "history", "word"]);
    assert!(
        history.contains("first") && history.contains("second"),
        "{history}"
    );
    assert_eq!(
        json_of(&house, &["route", "history", "word"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let diff = done(&house, &["route", "diff", "word"]);
    assert!(
        diff.contains("version 1 → 2") && diff.contains("\"one\" → \"two\""),
        "{diff}"
    );
    let diff = json_of(
        &house,
        &["route", "diff", "word", "--from", "0", "--to", "1"],
    );
    assert!(
        diff["changes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["before"].is_null()),
        "{diff}"
    );
    assert!(failed(&house, 1, &["route", "diff", "word", "--from", "9"]).contains("no version 9"));

    let back = done(&house, &["route", "rollback", "word", "-m", "too loud"]);
    assert!(back.contains("version 3 (too loud)"), "{back}");
    assert_eq!(house.get("/word").await.text, "one");
    assert_eq!(
        json_of(&house, &["route", "rollback", "word", "--to", "2"])["version"],
        4
    );
    assert_eq!(house.get("/word").await.text, "two");
    assert!(failed(&house, 1, &["route", "rollback", "nobody"]).contains("404"));
    assert_eq!(
        json_of(&house, &["route", "delete", "word"])["deleted"],
        true
    );
    assert_eq!(house.get("/word").await.status, 404);
    assert!(failed(&house, 1, &["route", "get", "word"]).contains("404"));
    done(&house, &["route", "rollback", "word"]);
    assert_eq!(house.get("/word").await.text, "two");
}

#[tokio::test]
async fn every_fault_is_named_and_then_nothing_is_changed() {
    let house = House::start(&[]);
    let good = json!({ "name": "good", "doc": { "path": { "exact": "/good" }, "target": { "fixed": { "status": 200 } } } });
    let bad = json!({ "name": "bad", "doc": { "path": { "exact": "no-slash" }, "methods": ["get it"], "target": { "fixed": { "status": 99 } } } });
    write(&house, "both.json", &json!([good, bad]).to_string());
    let output = portico(&house, &["route", "apply", "-f", "both.json"]);
    let (said, why) = (out(&output), err(&output));
    assert_eq!(output.status.code(), Some(1), "{said}{why}");
    for path in ["path", "methods", "target"] {
        assert!(
            said.lines()
                .any(|line| line.contains("fault:") && line.contains(path)),
            "{path}: {said}"
        );
    }
    assert!(why.contains("nothing was changed"), "{why}");
    assert_eq!(house.get("/good").await.status, 404);
    let report = portico(&house, &["route", "apply", "-f", "both.json", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(
        !report["items"][1]["faults"].as_array().unwrap().is_empty(),
        "{report}"
    );

    write(
        &house,
        "shape.json",
        r#"{ "routes": [{ "doc": 5 }], "rutes": [] }"#,
    );
    let shape = failed(&house, 2, &["route", "apply", "-f", "shape.json"]);
    for part in [
        "routes[0].name: is missing",
        "routes[0].doc: must be an object",
        "rutes: is none of",
    ] {
        assert!(shape.contains(part), "{part}: {shape}");
    }
    write(&house, "broken.toml", "a = ");
    assert!(failed(&house, 2, &["route", "apply", "-f", "broken.toml"]).contains("not TOML"));
    assert!(failed(&house, 2, &["route", "apply", "-f", "missing.toml"]).contains("missing.toml"));
    failed(&house, 2, &["route", "apply"]);
    failed(&house, 2, &["route", "list", "--kind", "rutes"]);
}

#[tokio::test]
async fn a_list_can_be_applied_again_and_guards_what_others_changed() {
    let house = House::start(&[]);
    let doc = |body: &str| json!({ "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": body } } });
    house.save("routes", "word", doc("one")).await;
    let list = json_of(&house, &["route", "list"]).to_string();
    let same = portico_reads(&house, &["route", "apply", "-f", "-"], list.as_bytes());
    assert!(
        out(&same).contains("unchanged"),
        "{}{}",
        out(&same),
        err(&same)
    );

    house.save("routes", "word", doc("somebody else's")).await;
    let edited = list.replace("\"one\"", "\"mine\"");
    let late = portico_reads(&house, &["route", "apply", "-f", "-"], edited.as_bytes());
    assert_eq!(late.status.code(), Some(1), "{}{}", out(&late), err(&late));
    assert!(out(&late).contains("fault:"), "{}", out(&late));
    assert_eq!(house.get("/word").await.text, "somebody else's");
}

#[tokio::test]
async fn a_request_is_explained_without_being_sent() {
    let upstream = RawServer::start(|stream, _| answer_always(stream, "hello"));
    let house = House::start(&[]);
    house.register("hello", upstream.port(), json!({})).await;
    let before = upstream.connections();
    let text = done(&house, &["route", "explain", "/api/hello/x"]);
    assert!(text.contains("goes to hello 1.0.0"), "{text}");
    let found = json_of(&house, &["route", "explain", "/api/nobody/x", "-X", "post"]);
    assert_eq!(
        found["refused"]["code"], "gateway.service_not_found",
        "{found}"
    );
    assert!(
        done(&house, &["route", "explain", "/api/nobody/x"])
            .contains("404 gateway.service_not_found")
    );
    assert_eq!(upstream.connections(), before, "nothing was sent");
    failed(&house, 2, &["route", "explain"]);
}
