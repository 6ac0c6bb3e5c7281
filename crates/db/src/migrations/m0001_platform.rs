//! Installation, replicas, leases, counters and the outbox.

use sea_orm::sea_query::{Expr, ExprTrait as _};

use crate::migrate::Step;
use crate::schema::{
    big_integer, index, integer, json, one_of, table, text, text_null, timestamp, uuid,
};

pub(crate) fn step() -> Step {
    Step::new(
        "m0001_platform",
        [
            table("installation")
                .col(integer("id").primary_key().check(Expr::col("id").eq(1)))
                .col(text("name"))
                .col(timestamp("created_at"))
                .col(integer("schema_version"))
                .col(text("min_binary").default(""))
                .col(text_null("key_check"))
                .col(text_null("config_fingerprint"))
                .col(big_integer("term").default(1))
                .col(text("region").default("local"))
                .into(),
            table("replicas")
                .col(uuid("id").primary_key())
                .col(text("name"))
                .col(text("version"))
                .col(json("roles"))
                .col(text("zone"))
                .col(text_null("internal_url"))
                .col(timestamp("started_at"))
                .col(timestamp("heartbeat_at"))
                .col(one_of("state", &["starting", "ready", "draining", "lost"]))
                .col(json("numbers"))
                .into(),
            index("replicas_heartbeat_at", "replicas", ["heartbeat_at"]).into(),
            table("leases")
                .col(text("name").primary_key())
                .col(text("holder"))
                .col(big_integer("fencing"))
                .col(timestamp("expires_at"))
                .into(),
            table("seq_counters")
                .col(text("name").primary_key())
                .col(big_integer("value"))
                .into(),
            table("outbox")
                .col(big_integer("seq").primary_key())
                .col(text("topic"))
                .col(text("key"))
                .col(json("payload"))
                .col(text_null("trace"))
                .col(timestamp("created_at"))
                .into(),
            index("outbox_topic_seq", "outbox", ["topic", "seq"]).into(),
            index("outbox_created_at", "outbox", ["created_at"]).into(),
        ],
    )
}
