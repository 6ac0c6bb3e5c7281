//! Tables of messages: what was sent, counted and blocked.

use portico_db::Change;
use portico_db::schema::{
    big_integer, boolean, bytes, bytes_null, index, integer, one_of, table, text, text_null,
    timestamp, timestamp_null, uuid,
};

use super::m0001_identity::id;

pub(super) fn sms() -> Vec<Change> {
    vec![
        table("sms_records")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("transaction_id"))
            .col(text("provider"))
            .col(integer("attempt_no"))
            .col(text("phone_masked"))
            .col(bytes("phone_hash"))
            // Number without its last four digits, hashed: for conversion by prefix.
            .col(bytes("prefix_hash"))
            .col(text("country"))
            .col(one_of(
                "status",
                &["sent", "failed", "delivered", "undelivered", "ambiguous"],
            ))
            .col(text("class"))
            // News about the account: no code of it comes back.
            .col(boolean("notice"))
            .col(text("provider_code"))
            .col(text("provider_message"))
            .col(text_null("receipt_id"))
            .col(integer("latency_ms"))
            .col(integer("segments"))
            .col(big_integer("cost_micro"))
            .col(timestamp_null("verified_at"))
            .col(timestamp("at"))
            .take()
            .into(),
        index(
            "ix_sms_records_tenant",
            "sms_records",
            ["tenant_id", "at", "id"],
        )
        .take()
        .into(),
        index("ix_sms_records_provider", "sms_records", ["provider", "at"])
            .take()
            .into(),
        index("ix_sms_records_receipt", "sms_records", ["receipt_id"])
            .take()
            .into(),
        index(
            "ix_sms_records_transaction",
            "sms_records",
            ["transaction_id"],
        )
        .take()
        .into(),
    ]
}

pub(super) fn sms_sends() -> Vec<Change> {
    vec![
        // One row for each code that was let through: what limits, budgets and conversion are counted by. Kept
        // for two days. Phone, device and prefix are keyed hashes.
        table("sms_sends")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("transaction_id"))
            .col(bytes("phone_hash"))
            .col(bytes("prefix_hash"))
            .col(text("country"))
            .col(bytes_null("device_hash"))
            .col(text_null("ip"))
            .col(text_null("net"))
            .col(one_of(
                "status",
                &[
                    "pending",
                    "sent",
                    "ambiguous",
                    "stopped",
                    "failed",
                    "test",
                    "notice",
                ],
            ))
            // The last one that was asked.
            .col(text_null("provider"))
            .col(timestamp("at"))
            .col(timestamp_null("verified_at"))
            .take()
            .into(),
        index("ix_sms_sends_phone", "sms_sends", ["phone_hash", "at"])
            .take()
            .into(),
        index("ix_sms_sends_prefix", "sms_sends", ["prefix_hash", "at"])
            .take()
            .into(),
        index("ix_sms_sends_country", "sms_sends", ["country", "at"])
            .take()
            .into(),
        index("ix_sms_sends_device", "sms_sends", ["device_hash", "at"])
            .take()
            .into(),
        index("ix_sms_sends_ip", "sms_sends", ["ip", "at"])
            .take()
            .into(),
        index("ix_sms_sends_net", "sms_sends", ["net", "at"])
            .take()
            .into(),
        index("ix_sms_sends_tenant", "sms_sends", ["tenant_id", "at"])
            .take()
            .into(),
        index("ix_sms_sends_at", "sms_sends", ["at"]).take().into(),
        // Of both, else the planner takes the tenant's index for the order and reads a day of it.
        index(
            "ix_sms_sends_transaction",
            "sms_sends",
            ["tenant_id", "transaction_id"],
        )
        .take()
        .into(),
        // What gets no codes for a while: `prefix:<hash>`, `country:+86`, `budget:hour`, `budget:day`.
        table("sms_blocks")
            .col(text("subject").primary_key().take())
            .col(text("reason"))
            .col(integer("sent"))
            .col(integer("verified"))
            .col(timestamp("at"))
            .col(timestamp("until"))
            .take()
            .into(),
        index("ix_sms_blocks_until", "sms_blocks", ["until"])
            .take()
            .into(),
    ]
}
