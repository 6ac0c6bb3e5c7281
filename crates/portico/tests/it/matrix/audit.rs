//! The rows and the writes of the audit service, and what it says of everybody's writes.

use super::*;

pub(super) fn rows() -> Vec<Row> {
    let record = format!("/records/{NOBODY}");
    let wrong = Some(json!({ "from": 0 }));
    vec![
        row("audit GET /records", "/records", None, admin(200)),
        row("audit GET /records/{id}", &record, None, admin(404)),
        row("audit GET /histogram", "/histogram", None, admin(200)),
        row("audit GET /actions", "/actions", None, admin(200)),
        row("audit GET /chain", "/chain", None, admin(200)),
        row("audit POST /verify", "/verify", wrong, admin(400)),
        row("audit GET /checkpoints", "/checkpoints", None, admin(200)),
        // A parameter that it does not take keeps it from signing.
        row(
            "audit POST /checkpoints",
            "/checkpoints?now=1",
            None,
            admin(400),
        ),
        row("audit GET /links", "/links", None, admin(200)),
    ]
}

pub(super) async fn writes(w: &mut Writer<'_>) {
    // What was done before is sealed within a second.
    while w.operator.get("/api/audit/chain").await.json()["seq"] == 0 {}
    w.write(
        "audit POST /verify",
        "/verify",
        Some(json!({})),
        "audit.verification.requested",
    )
    .await;
    w.write(
        "audit POST /checkpoints",
        "/checkpoints",
        None,
        "audit.checkpoint.created",
    )
    .await;
}

/// Actions of the records of a request, as the database has them.
pub(super) async fn of_request(operator: &Caller, id: &str) -> Vec<String> {
    let path = format!("/api/audit/records?request_id={id}");
    let answer = operator.get(&path).await.expect(200).json();
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    { items.iter() }
        .map(|record| {
            assert_eq!(record["outcome"], "success", "{record}");
            record["action"].as_str().unwrap_or_default().to_owned()
        })
        .collect()
}
