//! Values, their history, change sets, and what each replica has taken over.

use portico_db::schema::{
    big_integer, big_integer_null, boolean, index, json, json_null, key, table, text, text_null,
    timestamp, uuid, uuid_null,
};
use portico_db::{Change, Step};

pub(super) fn step() -> Step {
    let mut changes = values();
    changes.extend(history());
    changes.extend(change_sets());
    Step::new("m0001_settings", changes)
}

fn values() -> Vec<Change> {
    vec![
        // A value that was reset keeps its row, so that versions go on and followers hear of it.
        table("settings")
            .col(uuid("scope"))
            .col(text("key"))
            .col(json_null("value"))
            .col(text_null("sealed"))
            // Id of the master key of `sealed`.
            .col(text_null("kid"))
            .col(text_null("fingerprint"))
            .col(big_integer("version"))
            .col(big_integer("seq"))
            .col(big_integer("created_seq"))
            .col(json("updated_by"))
            .col(timestamp("updated_at"))
            .primary_key(&mut key(["scope", "key"]))
            .take()
            .into(),
        index("ix_settings_seq", "settings", ["seq"]).take().into(),
        index("ix_settings_kid", "settings", ["kid"]).take().into(),
        table("setting_applied")
            .col(text("replica").primary_key().take())
            .col(big_integer("seq"))
            .col(json("rejected"))
            .col(timestamp("at"))
            .take()
            .into(),
    ]
}

fn history() -> Vec<Change> {
    vec![
        table("setting_history")
            .col(uuid("id").primary_key().take())
            .col(uuid("scope"))
            .col(text("key"))
            .col(big_integer("version"))
            .col(big_integer("seq"))
            .col(boolean("secret"))
            .col(json_null("value"))
            .col(text_null("sealed"))
            .col(text_null("kid"))
            .col(text_null("fingerprint"))
            .col(uuid("change_set_id"))
            .col(json("actor"))
            .col(text_null("ip"))
            .col(text_null("comment"))
            .col(text("request_id"))
            .col(timestamp("at"))
            // The version whose value came back.
            .col(big_integer_null("rolled_back_from"))
            .take()
            .into(),
        index(
            "ux_setting_history_version",
            "setting_history",
            ["scope", "key", "version"],
        )
        .unique()
        .take()
        .into(),
        index(
            "ix_setting_history_set",
            "setting_history",
            ["change_set_id"],
        )
        .take()
        .into(),
        index(
            "ix_setting_history_scope_seq",
            "setting_history",
            ["scope", "seq"],
        )
        .take()
        .into(),
        index("ix_setting_history_kid", "setting_history", ["kid"])
            .take()
            .into(),
    ]
}

fn change_sets() -> Vec<Change> {
    vec![
        table("setting_change_sets")
            .col(uuid("id").primary_key().take())
            .col(big_integer("seq"))
            .col(uuid("scope"))
            .col(text_null("comment"))
            .col(json("actor"))
            .col(timestamp("at"))
            // The set that this one took back.
            .col(uuid_null("reverts"))
            .take()
            .into(),
        index("ux_setting_change_sets_seq", "setting_change_sets", ["seq"])
            .unique()
            .take()
            .into(),
    ]
}
