//! Key-value store, sessions and events of the Consul-compatible API.

use portico_db::schema::{
    big_integer, boolean, bytes, bytes_null, index, json, key, one_of, table, text, timestamp,
    timestamp_null, uuid, uuid_null,
};
use portico_db::{Change, Step};

pub(super) fn step() -> Step {
    let mut changes = entries();
    changes.extend(sessions());
    changes.extend(events());
    Step::new("m0002_consul", changes)
}

fn entries() -> Vec<Change> {
    vec![
        // Keys are bytes, because their order must not depend on a collation.
        table("kv_entries")
            .col(uuid("tenant_id"))
            .col(bytes("key"))
            .col(bytes("value"))
            // Bytes of key and value.
            .col(big_integer("size"))
            .col(big_integer("flags"))
            .col(big_integer("create_index"))
            .col(big_integer("modify_index"))
            .col(big_integer("lock_index"))
            .col(uuid_null("session_id"))
            .col(timestamp_null("locked_until"))
            .primary_key(&mut key(["tenant_id", "key"]))
            .take()
            .into(),
        index(
            "ix_kv_entries_modify",
            "kv_entries",
            ["tenant_id", "modify_index"],
        )
        .take()
        .into(),
        index("ix_kv_entries_session", "kv_entries", ["session_id"])
            .take()
            .into(),
        table("kv_tombstones")
            .col(uuid("tenant_id"))
            .col(bytes("key"))
            .col(big_integer("index"))
            .col(timestamp("at"))
            .col(timestamp_null("locked_until"))
            .primary_key(&mut key(["tenant_id", "key"]))
            .take()
            .into(),
        index("ix_kv_tombstones_at", "kv_tombstones", ["at"])
            .take()
            .into(),
        // What a tenant uses, its highest index, and the highest index of a tombstone that was swept.
        table("kv_usage")
            .col(uuid("tenant_id").primary_key().take())
            .col(big_integer("keys"))
            .col(big_integer("bytes"))
            .col(big_integer("index"))
            .col(big_integer("floor"))
            // Index of the last change of the tenant's sessions.
            .col(big_integer("sessions"))
            .take()
            .into(),
    ]
}

fn sessions() -> Vec<Change> {
    vec![
        table("consul_sessions")
            .col(uuid("id").primary_key().take())
            .col(uuid("tenant_id"))
            .col(text("name"))
            .col(text("node"))
            .col(text("ttl"))
            .col(big_integer("ttl_ms"))
            .col(big_integer("lock_delay_ns"))
            .col(one_of("behavior", &["release", "delete"]))
            .col(json("checks"))
            // It hangs on more than the agent's own node.
            .col(boolean("watched"))
            .col(text("owner"))
            .col(big_integer("create_index"))
            .col(big_integer("modify_index"))
            .col(timestamp_null("expires_at"))
            .take()
            .into(),
        index(
            "ix_consul_sessions_tenant",
            "consul_sessions",
            ["tenant_id", "id"],
        )
        .take()
        .into(),
        index(
            "ix_consul_sessions_expiry",
            "consul_sessions",
            ["expires_at"],
        )
        .take()
        .into(),
    ]
}

fn events() -> Vec<Change> {
    vec![
        table("consul_events")
            .col(uuid("id").primary_key().take())
            .col(uuid("tenant_id"))
            .col(big_integer("ltime"))
            .col(text("name"))
            .col(bytes_null("payload"))
            .col(json("filters"))
            .col(text("owner"))
            .take()
            .into(),
        index("ix_consul_events", "consul_events", ["tenant_id", "ltime"])
            .take()
            .into(),
    ]
}
