//! The audit of a whole house: what is refused and what fails is recorded, a change without its record does
//! not exist, and the command line finds whoever touched the past.

use std::path::Path;
use std::sync::Arc;

use portico_base::SystemClock;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query, Table};
use portico_db::{Db, DbOptions};
use portico_testkit::{Caller, TestApp, TestPlugin};
use serde_json::{Value, json};

use crate::house::{House, command, until};

async fn records(operator: &Caller, query: &str) -> Vec<Value> {
    let path = format!("/api/audit/records?{query}");
    let answer = operator.get(&path).await.expect(200).json();
    answer["items"].as_array().cloned().unwrap_or_default()
}

/// The records of a request, once its note was written.
async fn noted(operator: &Caller, request: &str) -> Vec<Value> {
    loop {
        let found = records(operator, &format!("request_id={request}")).await;
        if !found.is_empty() {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn refusals_and_failures_of_known_callers_are_recorded() {
    let app = TestApp::start().await;
    let operator = app.operator();
    let user = app.user(&["member"]);
    let id = |answer: &portico_testkit::Answer| {
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    // By the guard of our own routes.
    let refused = user.get("/api/registry/tokens").await;
    assert_eq!(refused.code(), 403);
    let found = noted(&operator, &id(&refused)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let one = &found[0];
    assert_eq!(one["action"], "system.access.denied");
    assert_eq!(one["outcome"], "denied");
    assert_eq!(one["error_code"], "identity.permission_denied");
    assert_eq!(one["target"]["id"], "GET /api/registry/tokens");
    assert_eq!(one["actor"], json!({ "kind": "user", "id": "user-1" }));
    assert!(
        one["ip"].is_string() && one["trace_id"].is_string(),
        "{one}"
    );
    // A change that was tried and failed.
    let failed = operator.post("/api/registry/tokens", &json!({})).await;
    assert_eq!(failed.code(), 400);
    let found = noted(&operator, &id(&failed)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["action"], "system.operation.failed");
    assert_eq!(found[0]["outcome"], "failed");
    assert_eq!(found[0]["error_code"], failed.json()["code"]);
    // By the door, in front of somebody else's service.
    let plugin = TestPlugin::echo("guarded").await;
    let more =
        json!({ "endpoints": [{ "method": "GET", "path": "/only", "required_roles": ["boss"] }] });
    let made = operator
        .post(
            "/api/registry/register",
            &plugin.registration("guarded", &more),
        )
        .await;
    assert_eq!(made.code(), 201, "{}", made.text);
    let refused = user.get("/api/guarded/only").await;
    assert_eq!(refused.code(), 403, "{}", refused.text);
    let found = noted(&operator, &id(&refused)).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["action"], "system.access.denied");
    assert_eq!(found[0]["target"]["id"], "GET /api/guarded");
    // Whoever is not known leaves none, nor does a read that finds nothing.
    let nobody = app.anonymous().get("/api/registry/tokens").await;
    let nothing = operator.get("/api/registry/services/nobody").await;
    assert_eq!((nobody.code(), nothing.code()), (401, 404));
    let last = user.get("/api/registry/tokens").await;
    noted(&operator, &id(&last)).await;
    for answer in [nobody, nothing] {
        let found = records(&operator, &format!("request_id={}", id(&answer))).await;
        assert!(found.is_empty(), "{found:?}");
    }
    app.stop().await;
}

/// The record cannot be written: then the change is not made either.
#[tokio::test]
async fn a_change_without_its_record_does_not_exist() {
    let app = TestApp::start().await;
    let operator = app.operator();
    let file = app.folder().path().join("data/portico.db");
    let db = Db::connect(
        &DbOptions::new(format!("sqlite://{}", file.display())),
        Arc::new(SystemClock),
    )
    .await
    .unwrap();
    let rename = async |from: &str, to: &str| {
        let tx = db.begin().await.unwrap();
        let rename = Table::rename().table(from.to_owned(), to.to_owned()).take();
        tx.execute(&rename).await.unwrap();
        tx.commit().await.unwrap();
    };
    // Between the change and its commit: the row that waits for the seal cannot be written.
    rename("audit_pending", "audit_away").await;
    let wish = json!({ "name_pattern": "injected" });
    let answer = operator.post("/api/registry/tokens", &wish).await;
    assert_eq!(answer.code(), 500, "{}", answer.text);
    rename("audit_away", "audit_pending").await;
    let tokens = operator.get("/api/registry/tokens").await.expect(200).text;
    assert!(!tokens.contains("injected"), "{tokens}");
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let done = records(&operator, "action=registry.token.created").await;
    assert!(done.is_empty(), "{done:?}");
    assert!(app.records().of(&id).is_empty(), "nobody was told of it");
    operator
        .post("/api/registry/tokens", &wish)
        .await
        .expect(201);
    assert_eq!(
        records(&operator, "action=registry.token.created")
            .await
            .len(),
        1
    );
    db.close().await;
    app.stop().await;
}

/// `portico audit …` on a data directory: its exit code and what it says.
fn audit(folder: &Path, data: &str, words: &[&str]) -> (Option<i32>, String) {
    let words = [&["audit"], words, &["--data-dir", data]].concat();
    let out = command(folder, &words);
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.code(), said.into_owned())
}

/// Changes a record behind everybody's back.
async fn touch(data: &str) {
    let options = DbOptions::new(format!("sqlite://{data}/portico.db"));
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    let tx = db.begin().await.unwrap();
    let mut update = Query::update();
    update
        .table("audit_records")
        .value("target_id", "route/four")
        .and_where(Expr::col("target_id").eq("route/two"));
    let touched = tx.execute(&update).await.unwrap();
    assert_eq!(touched.rows_affected(), 1);
    tx.commit().await.unwrap();
    db.close().await;
}

async fn sealed(house: &House) {
    until("everything is sealed", || async {
        let chain = house.operate(http::Method::GET, "/api/audit/chain", None);
        chain.await.json()["pending"] == 0
    })
    .await;
}

/// The command line against a running house, then against its database and its export alone.
#[tokio::test]
async fn the_command_line_searches_verifies_exports_and_finds_who_touched_the_past() {
    let mut house = House::start(&[]);
    let data = house.data_dir().display().to_string();
    let folder = Arc::clone(&house.folder);
    let portico = |words: &[&str]| audit(folder.path(), &data, words);
    let good = |words: &[&str]| {
        let (code, said) = portico(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    };
    for name in ["one", "two", "three"] {
        let doc = json!({ "path": { "exact": format!("/{name}") }, "target": { "fixed": { "status": 204 } } });
        house.save("routes", name, doc).await;
    }
    let action = "gateway.object.*";
    let found = good(&["search", "--action", action, "--since", "1h", "--json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["items"].as_array().map(Vec::len), Some(3), "{found}");
    assert_eq!(found["items"][0]["actor"]["kind"], "operator");
    let found = good(&["search", "--target", "gateway_object/route/two"]);
    assert!(found.contains("gateway.object.created"), "{found}");
    sealed(&house).await;
    assert!(good(&["checkpoint"]).contains("public key"));
    assert!(good(&["verify"]).contains("in order"));
    let file = folder.path().join("audit.jsonl");
    let name = file.to_str().unwrap();
    good(&["export", "--out", name]);
    let (code, said) = portico(&["export", "--out", name]);
    assert_eq!(code, Some(1), "an export is never overwritten: {said}");
    good(&["verify", "--file", name]);
    assert_eq!(house.stop(), 0);
    good(&["verify", "--offline"]);
    touch(&data).await;
    let (code, said) = portico(&["verify", "--offline"]);
    assert_eq!(code, Some(1), "{said}");
    let named = said.contains("NOT IN ORDER") && said.contains("record altered");
    assert!(named, "{said}");
    let touched = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, touched.replacen("route/two", "route/wto", 1)).unwrap();
    let (code, said) = portico(&["verify", "--file", name]);
    assert_eq!(code, Some(1), "{said}");
}
