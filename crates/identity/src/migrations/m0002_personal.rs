//! Copies of personal data, and erasures.

use portico_db::schema::{
    big_integer_null, index, json, one_of, table, text, text_null, timestamp, timestamp_null, uuid,
};
use portico_db::sea_query::{ConditionalStatement as _, Expr, ExprTrait as _};
use portico_db::{Change, Step};

pub(super) fn step() -> Step {
    let mut changes = exports();
    changes.extend(erasures());
    Step::new("m0002_personal", changes)
}

fn exports() -> Vec<Change> {
    vec![
        table("personal_exports")
            .col(uuid("id").primary_key().take())
            .col(uuid("tenant_id"))
            // Whose data it is.
            .col(uuid("user_id"))
            // Who asked for it and alone may fetch it: kind and subject.
            .col(text("requester"))
            .col(text_null("reason"))
            .col(one_of("state", &["waiting", "ready", "failed"]))
            .col(text("object"))
            .col(big_integer_null("bytes"))
            .col(text_null("sha256"))
            // The parts that it is made of, by service.
            .col(json("parts"))
            .col(timestamp("created_at"))
            .col(timestamp_null("ready_at"))
            // Its object and this row are gone after that.
            .col(timestamp("expires_at"))
            .take()
            .into(),
        index(
            "ix_personal_exports_user",
            "personal_exports",
            ["user_id", "created_at"],
        )
        .take()
        .into(),
        index(
            "ix_personal_exports_requester",
            "personal_exports",
            ["requester", "created_at"],
        )
        .take()
        .into(),
        index(
            "ix_personal_exports_expires",
            "personal_exports",
            ["expires_at"],
        )
        .take()
        .into(),
    ]
}

fn erasures() -> Vec<Change> {
    vec![
        // The parts of each are in erasure_tasks.
        table("erasures")
            .col(uuid("user_id").primary_key().take())
            .col(uuid("tenant_id"))
            .col(one_of("cause", &["user", "admin", "provider"]))
            .col(text_null("reason"))
            .col(timestamp("started_at"))
            .col(timestamp_null("finished_at"))
            .take()
            .into(),
        index("ix_erasures_open", "erasures", ["started_at"])
            .and_where(Expr::col("finished_at").is_null())
            .take()
            .into(),
        // Deleted by an administrator and not erased yet.
        index("ix_users_deleted", "users", ["deleted_at"])
            .and_where(Expr::col("deleted_at").is_not_null())
            .take()
            .into(),
    ]
}
