//! The table of backups.

use portico_db::Step;
use portico_db::schema::{
    big_integer_null, index, json_null, one_of, table, text, text_null, timestamp, timestamp_null,
    uuid,
};

/// The step.
pub(crate) fn step() -> Step {
    let states = [
        "waiting",
        "running",
        "done",
        "verifying",
        "restoring",
        "failed",
        "missing",
    ];
    Step::new(
        "m0010_backups",
        [
            table("backups")
                .col(uuid("id").primary_key())
                .col(one_of("kind", &["manual", "scheduled", "safety", "found"]))
                .col(one_of("state", &states))
                // Name where backups are kept.
                .col(text("location"))
                // The machine beside whose data it is, where there may be several.
                .col(text_null("node"))
                .col(one_of("objects", &["none", "names", "whole"]))
                .col(big_integer_null("bytes"))
                .col(big_integer_null("rows"))
                .col(text_null("sha256"))
                .col(text_null("key_id"))
                .col(text_null("db_version"))
                .col(timestamp_null("verified_at"))
                .col(timestamp_null("restored_at"))
                .col(json_null("report"))
                .col(text_null("error"))
                .col(text("asked_by"))
                .col(timestamp("at"))
                .col(timestamp_null("ended_at"))
                .into(),
            index("ix_backups_location", "backups", ["location"])
                .unique()
                .into(),
            index("ix_backups_state", "backups", ["state", "at"]).into(),
        ],
    )
}
