//! Jobs, schedules and the system page.

use serde_json::json;

use super::{NOBODY, Row, Writer, admin, row};

/// The schedule that is driven: it waits for a quarter past.
const CRON: &str = "/cron/ops.jobs_sweep";

pub(super) fn rows() -> Vec<Row> {
    let job = |after: &str| format!("/jobs/{NOBODY}{after}");
    let verb = |route: &'static str, verb: &str| row(route, &job(verb), None, admin(404));
    let low = Some(json!({ "priority": "low" }));
    let pause = Some(json!({ "kind": "nobody.does", "action": "pause" }));
    let on = Some(json!({ "enabled": true }));
    let loud = Some(json!({ "level": "loud", "for_s": 1 }));
    let run = "control POST /cron/{name}/run";
    let level = "control PUT /system/log-level";
    vec![
        row("control GET /jobs", "/jobs", None, admin(200)),
        row("control GET /jobs/{id}", &job(""), None, admin(404)),
        row("control PATCH /jobs/{id}", &job(""), low, admin(404)),
        verb("control POST /jobs/{id}/retry", "/retry"),
        verb("control POST /jobs/{id}/run", "/run"),
        verb("control POST /jobs/{id}/cancel", "/cancel"),
        row("control POST /jobs/bulk", "/jobs/bulk", pause, admin(404)),
        row("control GET /queues", "/queues", None, admin(200)),
        row("control GET /cron", "/cron", None, admin(200)),
        row("control GET /cron/{name}", "/cron/nobody", None, admin(404)),
        row("control PATCH /cron/{name}", "/cron/nobody", on, admin(404)),
        row(run, "/cron/nobody/run", None, admin(404)),
        row("control GET /system", "/system", None, admin(200)),
        row(level, "/system/log-level", loud, admin(400)),
    ]
}

pub(super) async fn writes(w: &mut Writer<'_>) {
    // The process enters its schedules once it runs.
    while w.operator.get(&format!("/api/control{CRON}")).await.code() != 200 {}
    let bulk = |action: &str| Some(json!({ "kind": "ops.jobs_sweep", "action": action }));
    let (route, url) = ("control POST /jobs/bulk", "/jobs/bulk");
    let paused = "control.job_kind.paused";
    w.write(route, url, bulk("pause"), paused).await;
    let (run, path) = ("control POST /cron/{name}/run", format!("{CRON}/run"));
    let asked = w.write(run, &path, None, "control.cron.run").await.json();
    let job = format!("/jobs/{}", asked["job_id"].as_str().unwrap());
    let high = Some(json!({ "priority": "high" }));
    let change = "control PATCH /jobs/{id}";
    w.write(change, &job, high, "control.job.prioritised").await;
    for (route, verb, action) in [
        ("control POST /jobs/{id}/run", "run", "hurried"),
        ("control POST /jobs/{id}/cancel", "cancel", "cancelled"),
        ("control POST /jobs/{id}/retry", "retry", "retried"),
    ] {
        let action = format!("control.job.{action}");
        w.write(route, &format!("{job}/{verb}"), None, &action)
            .await;
    }
    let resumed = "control.job_kind.resumed";
    w.write(route, url, bulk("resume"), resumed).await;
    let (switch, off) = (
        "control PATCH /cron/{name}",
        Some(json!({ "enabled": false })),
    );
    w.write(switch, CRON, off, "control.cron.switched").await;
    let (level, path) = ("control PUT /system/log-level", "/system/log-level");
    let wish = Some(json!({ "target": "portico_none", "level": "debug", "for_s": 1 }));
    w.write(level, path, wish, "control.log_level.changed")
        .await;
}
