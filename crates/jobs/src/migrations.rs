//! The table of durable jobs.

use portico_db::schema::{
    big_integer, index, integer, json, one_of, table, text, text_null, timestamp, timestamp_null,
    uuid, uuid_null,
};
use portico_db::sea_query::{ConditionalStatement as _, Expr, ExprTrait as _};
use portico_db::{Migrations, Step};

/// The steps of this crate, for the list of all.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new([step()])
}

fn step() -> Step {
    let waiting = || Expr::col("state").eq("waiting");
    Step::new(
        "m0001_jobs",
        [
            table("jobs")
                .col(uuid("id").primary_key())
                .col(text("kind"))
                .col(uuid_null("tenant_id"))
                .col(json("payload"))
                .col(text_null("unique_key"))
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
                .col(text_null("last_error"))
                // Trace of the request that asked for the job.
                .col(text_null("trace"))
                .col(timestamp("created_at"))
                .col(timestamp("updated_at"))
                .into(),
            index("ix_jobs_due", "jobs", ["kind", "run_at", "id"])
                .and_where(waiting())
                .into(),
            index("ux_jobs_unique", "jobs", ["kind", "unique_key"])
                .unique()
                .and_where(waiting())
                .into(),
            index("ix_jobs_lease", "jobs", ["lease_until"])
                .and_where(Expr::col("state").eq("running"))
                .into(),
            index("ix_jobs_state", "jobs", ["state", "updated_at"]).into(),
            index("ix_jobs_tenant", "jobs", ["tenant_id", "created_at", "id"]).into(),
        ],
    )
}
