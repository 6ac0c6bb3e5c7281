//! Records, those that wait to be sealed, the chain, its checkpoints and the key that signs them.

use portico_db::schema::{
    big_integer, bytes, index, integer, json_null, key, one_of, table, text, text_null, timestamp,
    timestamp_null, uuid, uuid_null,
};
use portico_db::{Change, Step};

pub(super) fn step() -> Step {
    Step::new("m0001_audit", records().into_iter().chain(chain()))
}

fn records() -> [Change; 8] {
    [
        table("audit_records")
            .col(uuid("id").primary_key())
            .col(timestamp("at"))
            .col(uuid("tenant_id"))
            .col(text("actor_kind"))
            .col(text("actor_id"))
            .col(text("action"))
            .col(text("target_type"))
            .col(text("target_id"))
            .col(text("request_id"))
            .col(text_null("trace_id"))
            .col(one_of("outcome", &["success", "denied", "failed"]))
            .col(text_null("error_code"))
            // Text and not JSON, because it is exactly what was hashed.
            .col(text("public"))
            .col(text_null("private"))
            .col(text_null("salt"))
            .col(text("private_hash"))
            .col(uuid_null("batch_id"))
            .col(text_null("ip"))
            .col(text("paths"))
            .col(timestamp_null("redacted_at"))
            .into(),
        index("ix_audit_at", "audit_records", ["at", "id"]).into(),
        index(
            "ix_audit_tenant",
            "audit_records",
            ["tenant_id", "at", "id"],
        )
        .into(),
        index("ix_audit_actor", "audit_records", ["actor_id", "at", "id"]).into(),
        index(
            "ix_audit_target",
            "audit_records",
            ["target_type", "target_id", "at", "id"],
        )
        .into(),
        index("ix_audit_action", "audit_records", ["action", "at", "id"]).into(),
        index("ix_audit_request", "audit_records", ["request_id"]).into(),
        table("audit_pending")
            .col(uuid("record_id").primary_key())
            .into(),
    ]
}

fn chain() -> [Change; 5] {
    [
        table("audit_chain")
            .col(big_integer("seq").primary_key())
            .col(uuid("record_id").unique_key())
            .col(bytes("record_hash"))
            .col(bytes("link"))
            .into(),
        table("audit_checkpoints")
            .col(big_integer("seq").primary_key())
            .col(bytes("link"))
            .col(big_integer("count"))
            .col(timestamp("at"))
            .col(text("key_id"))
            .col(bytes("signature"))
            .into(),
        table("audit_keys")
            .col(text("key_id").primary_key())
            .col(bytes("public_key"))
            .col(text("sealed"))
            .col(text("master_key"))
            .col(timestamp("created_at"))
            .into(),
        // One row: whose chain it is, which key signs, and what the last verification found.
        table("audit_state")
            .col(integer("id").primary_key())
            .col(uuid("installation_id"))
            .col(text("key_id"))
            .col(json_null("verified"))
            .col(timestamp_null("verified_at"))
            .col(timestamp_null("verified_ok_at"))
            .into(),
        // Which actions a tenant has records of, for the list to choose from.
        table("audit_actions")
            .col(uuid("tenant_id"))
            .col(text("action"))
            .primary_key(&mut key(["tenant_id", "action"]))
            .into(),
    ]
}
