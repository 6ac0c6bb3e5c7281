//! The tables of durable jobs, of their attempts, and of schedules.

use portico_db::schema::{
    big_integer, big_integer_null, boolean, index, integer, json, json_null, key, one_of,
    references, table, text, text_null, timestamp, timestamp_null, uuid, uuid_null,
};
use portico_db::sea_query::{ConditionalStatement as _, Expr, ExprTrait as _};
use portico_db::{Migrations, Step};

/// The steps of this crate, for the list of all.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new([jobs(), schedules()])
}

fn jobs() -> Step {
    let is = |state: &'static str| Expr::col("state").eq(state);
    Step::new(
        "m0001_jobs",
        [
            table("jobs")
                .col(uuid("id").primary_key())
                .col(text("kind"))
                .col(uuid_null("tenant_id"))
                .col(json("payload"))
                // No second one waits with this key.
                .col(text_null("unique_key"))
                // No second one waits or runs with this key.
                .col(text_null("exclusive_key"))
                // 0 goes before 1.
                .col(integer("priority"))
                .col(timestamp("run_at"))
                .col(one_of(
                    "state",
                    &["waiting", "running", "done", "dead", "cancelled"],
                ))
                .col(integer("tries"))
                .col(integer("max_tries"))
                .col(text_null("holder"))
                // Raised whenever somebody takes the job, so that a worker that lost it can be told.
                .col(big_integer("fencing"))
                .col(timestamp_null("lease_until"))
                .col(boolean("cancel_asked"))
                .col(json_null("progress"))
                .col(text_null("last_error"))
                // Trace of the request that asked for the job.
                .col(text_null("trace"))
                // The last run: when it began, and its own trace where it is kept.
                .col(timestamp_null("began_at"))
                .col(text_null("run_trace"))
                // The moment of the schedule that it is for.
                .col(timestamp_null("tick"))
                .col(timestamp("created_at"))
                .col(timestamp("updated_at"))
                .into(),
            index("ix_jobs_due", "jobs", ["kind", "priority", "run_at", "id"])
                .and_where(is("waiting"))
                .into(),
            index("ux_jobs_unique", "jobs", ["kind", "unique_key"])
                .unique()
                .and_where(is("waiting").and(Expr::col("unique_key").is_not_null()))
                .into(),
            index("ux_jobs_exclusive", "jobs", ["kind", "exclusive_key"])
                .unique()
                .and_where(
                    Expr::col("exclusive_key")
                        .is_not_null()
                        .and(is("waiting").or(is("running"))),
                )
                .into(),
            index("ix_jobs_lease", "jobs", ["lease_until"])
                .and_where(is("running"))
                .into(),
            index("ix_jobs_state", "jobs", ["state", "id"]).into(),
            index("ix_jobs_kind", "jobs", ["kind", "state", "id"]).into(),
            index("ix_jobs_tenant", "jobs", ["tenant_id", "state", "id"])
                .and_where(Expr::col("tenant_id").is_not_null())
                .into(),
            // What a run left besides its end; those that ended well at once and without a word have none.
            table("job_attempts")
                .col(uuid("job_id"))
                .col(big_integer("fencing"))
                .col(integer("number"))
                .col(timestamp("began_at"))
                .col(timestamp("ended_at"))
                .col(one_of(
                    "outcome",
                    &["done", "retried", "dead", "cancelled", "given_back", "lost"],
                ))
                .col(text("holder"))
                .col(text_null("error"))
                .col(json("logs"))
                .col(text_null("trace"))
                .primary_key(&mut key(["job_id", "fencing"]))
                .foreign_key(&mut references("job_attempts", "job_id", "jobs", "id"))
                .into(),
            table("job_pauses")
                .col(text("kind").primary_key())
                .col(text("paused_by"))
                .col(text_null("reason"))
                .col(timestamp("paused_at"))
                .into(),
        ],
    )
}

fn schedules() -> Step {
    Step::new(
        "m0002_cron",
        [
            table("cron_entries")
                .col(text("name").primary_key())
                .col(one_of("form", &["cron", "interval"]))
                .col(big_integer_null("every_ms"))
                .col(boolean("alone"))
                // The setting that holds the expression.
                .col(text_null("setting"))
                .col(text_null("expression"))
                .col(text_null("zone"))
                .col(boolean("enabled"))
                // Up to this moment everything is asked for.
                .col(timestamp_null("last_tick"))
                // Why the expression of the setting is not in force.
                .col(text_null("fault"))
                .col(timestamp("seen_at"))
                .into(),
            table("cron_runs")
                .col(text("name"))
                .col(timestamp("tick"))
                .col(uuid_null("job_id"))
                .col(text_null("holder"))
                .col(one_of(
                    "outcome",
                    &["waiting", "done", "failed", "cancelled", "refused"],
                ))
                .col(text_null("error"))
                .col(timestamp_null("began_at"))
                .col(timestamp_null("ended_at"))
                .primary_key(&mut key(["name", "tick"]))
                .into(),
        ],
    )
}
