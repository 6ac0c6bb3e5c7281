//! Tenants, users, roles, credentials, devices, sessions, revocations, keys, codes and limits.

use portico_db::schema::{
    big_integer, boolean, bytes, bytes_null, index, integer, json, json_null, key, one_of,
    references, table, text, text_null, timestamp, timestamp_null, uuid, uuid_null,
};
use portico_db::sea_query::{ColumnDef, ConditionalStatement as _, Expr, ExprTrait as _, Query};
use portico_db::{Change, Step};

use super::messages;

pub(super) fn step() -> Step {
    let mut changes = tenants();
    changes.extend(users());
    changes.extend(user_indexes());
    changes.extend(secrets());
    changes.extend(roles());
    changes.extend(devices());
    changes.extend(sessions());
    changes.extend(revocations());
    changes.extend(keys());
    changes.extend(codes());
    changes.extend(messages::sms());
    changes.extend(messages::sms_sends());
    changes.extend(invitations());
    changes.extend(batches());
    changes.extend(security());
    changes.extend(logins());
    Step::new("m0001_identity", changes)
}

pub(super) fn id() -> ColumnDef {
    uuid("id").primary_key().take()
}

fn tenants() -> Vec<Change> {
    vec![
        table("tenants")
            .col(id())
            .col(text("slug"))
            .col(text("display_name"))
            .col(one_of("status", &["active", "suspended", "deleting"]))
            // Token epoch: tokens with a lower one are refused.
            .col(big_integer("te"))
            .col(json("quotas"))
            .col(timestamp_null("delete_at"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .take()
            .into(),
        index("ux_tenants_slug", "tenants", ["slug"])
            .unique()
            .take()
            .into(),
        table("tenant_hosts")
            .col(text("host").primary_key().take())
            .col(uuid("tenant_id"))
            .col(timestamp("created_at"))
            .foreign_key(&mut references(
                "tenant_hosts",
                "tenant_id",
                "tenants",
                "id",
            ))
            .take()
            .into(),
        index("ix_tenant_hosts_tenant", "tenant_hosts", ["tenant_id"])
            .take()
            .into(),
    ]
}

fn users() -> Vec<Change> {
    let unique = |name: &'static str, column: &'static str| -> Change {
        // The keys of a deleted user are emptied, so that they can be taken again.
        index(name, "users", ["tenant_id", column])
            .unique()
            .take()
            .into()
    };
    vec![
        table("users")
            .col(id())
            .col(uuid("tenant_id"))
            .col(text_null("username"))
            .col(text_null("username_key"))
            .col(text_null("email"))
            .col(text_null("email_key"))
            // E.164.
            .col(text_null("phone"))
            .col(text("display_name"))
            // What name prefixes are looked for in, as bytes, because their order must not depend on a collation.
            .col(bytes_null("search_key"))
            .col(text_null("avatar_object"))
            .col(text("locale"))
            .col(text("time_zone"))
            .col(one_of(
                "status",
                &["pending", "active", "disabled", "deleted"],
            ))
            .col(text_null("disabled_reason"))
            .col(timestamp_null("disabled_until"))
            // Token version: tokens with a lower one are refused.
            .col(big_integer("tv"))
            .col(timestamp_null("email_verified_at"))
            .col(timestamp_null("phone_verified_at"))
            .col(boolean("must_change_password"))
            .col(timestamp_null("last_login_at"))
            .col(text_null("last_login_ip"))
            .col(text_null("last_login_method"))
            // Asked to be deleted; erased when the days of grace are over.
            .col(timestamp_null("delete_at"))
            .col(timestamp_null("deleted_at"))
            .col(boolean("legal_hold"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .take()
            .into(),
        unique("ux_users_username", "username_key"),
        unique("ux_users_email", "email_key"),
        unique("ux_users_phone", "phone"),
    ]
}

/// What each kind of search is paged over (ID-13), and what jobs look for.
fn user_indexes() -> Vec<Change> {
    vec![
        index(
            "ix_users_created",
            "users",
            ["tenant_id", "created_at", "id"],
        )
        .take()
        .into(),
        index(
            "ix_users_last_login",
            "users",
            ["tenant_id", "last_login_at", "id"],
        )
        .take()
        .into(),
        index(
            "ix_users_status",
            "users",
            ["tenant_id", "status", "created_at", "id"],
        )
        .take()
        .into(),
        index(
            "ix_users_method",
            "users",
            ["tenant_id", "last_login_method", "created_at", "id"],
        )
        .take()
        .into(),
        index(
            "ix_users_search",
            "users",
            ["tenant_id", "search_key", "id"],
        )
        .take()
        .into(),
        index("ix_users_disabled_until", "users", ["disabled_until"])
            .and_where(Expr::col("disabled_until").is_not_null())
            .take()
            .into(),
        index("ix_users_delete_at", "users", ["delete_at"])
            .and_where(Expr::col("delete_at").is_not_null())
            .take()
            .into(),
    ]
}

fn secrets() -> Vec<Change> {
    vec![
        table("user_secrets")
            .col(uuid("user_id").primary_key().take())
            .col(text_null("password_phc"))
            .col(timestamp_null("password_changed_at"))
            // Envelope.
            .col(text_null("totp_secret"))
            .col(big_integer("totp_last_step"))
            .col(timestamp_null("totp_confirmed_at"))
            // Wrong codes of late (ID-78).
            .col(integer("totp_failures").default(0).take())
            .col(timestamp_null("totp_failed_since"))
            .col(timestamp_null("totp_locked_until"))
            .foreign_key(&mut references("user_secrets", "user_id", "users", "id"))
            .take()
            .into(),
        table("recovery_codes")
            .col(id())
            .col(uuid("user_id"))
            .col(bytes("hash"))
            .col(bytes("salt"))
            .col(timestamp_null("used_at"))
            .foreign_key(&mut references("recovery_codes", "user_id", "users", "id"))
            .take()
            .into(),
        index("ix_recovery_codes_user", "recovery_codes", ["user_id"])
            .take()
            .into(),
        table("identities")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            .col(text("provider"))
            // Whose subjects are unique: Apple's team, an issuer's address.
            .col(text("issuer_key"))
            .col(text("subject"))
            // The client id that the identity was proved with.
            .col(text("client_id"))
            .col(text_null("email"))
            .col(boolean("email_verified"))
            .col(boolean("is_private_email"))
            .col(boolean("email_enabled"))
            // Envelope.
            .col(text_null("refresh_token"))
            // When the provider said last that it is theirs, by the provider's clock.
            .col(timestamp("proved_at"))
            .col(timestamp("linked_at"))
            .foreign_key(&mut references("identities", "user_id", "users", "id"))
            .take()
            .into(),
        index(
            "ux_identities_subject",
            "identities",
            ["tenant_id", "provider", "issuer_key", "subject"],
        )
        .unique()
        .take()
        .into(),
        index("ix_identities_user", "identities", ["user_id"])
            .take()
            .into(),
    ]
}

fn roles() -> Vec<Change> {
    vec![
        table("roles")
            .col(id())
            .col(uuid_null("tenant_id"))
            // The tenant again, or zeros for a built-in: a unique key does not see NULLs.
            .col(uuid("scope"))
            .col(text("name"))
            .col(text("title_zh"))
            .col(text("title_en"))
            .col(json("permissions"))
            .col(boolean("built_in"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .take()
            .into(),
        index("ux_roles_name", "roles", ["scope", "name"])
            .unique()
            .take()
            .into(),
        table("user_roles")
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            .col(uuid("role_id"))
            .col(one_of("scope", &["own", "group", "tenant"]))
            .col(text("granted_by"))
            .col(timestamp("granted_at"))
            .primary_key(&mut key(["user_id", "role_id"]))
            .foreign_key(&mut references("user_roles", "user_id", "users", "id"))
            .foreign_key(&mut references("user_roles", "role_id", "roles", "id"))
            .take()
            .into(),
        index(
            "ix_user_roles_role",
            "user_roles",
            ["role_id", "tenant_id", "user_id"],
        )
        .take()
        .into(),
        table("permissions")
            .col(text("name").primary_key().take())
            .col(text("service"))
            .col(text("title_zh"))
            .col(text("title_en"))
            .col(boolean("admin"))
            .col(one_of("scope", &["tenant", "system"]))
            // A plug-in declared it at registration.
            .col(boolean("plugin"))
            .take()
            .into(),
    ]
}

fn devices() -> Vec<Change> {
    vec![
        table("devices")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            .col(text("client_id"))
            .col(bytes("secret_hash"))
            .col(one_of(
                "platform",
                &["ios", "android", "web", "desktop", "tv", "cli"],
            ))
            .col(text("name"))
            .col(text("model"))
            .col(text("app_version"))
            .col(text("os_version"))
            // Keyed hashes of the fingerprint's components.
            .col(json("fingerprint"))
            .col(text_null("last_ip"))
            .col(text_null("last_place"))
            .col(timestamp("first_seen_at"))
            .col(timestamp("last_active_at"))
            .col(json_null("push"))
            .col(timestamp_null("revoked_at"))
            .foreign_key(&mut references("devices", "user_id", "users", "id"))
            .take()
            .into(),
        index("ux_devices_client", "devices", ["user_id", "client_id"])
            .unique()
            .take()
            .into(),
        index("ix_devices_active", "devices", ["last_active_at"])
            .take()
            .into(),
    ]
}

fn sessions() -> Vec<Change> {
    vec![
        table("sessions")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            .col(uuid("device_id"))
            .col(text("method"))
            .col(json("amr"))
            .col(integer("aal"))
            .col(timestamp("auth_time"))
            .col(text_null("ip"))
            .col(text_null("user_agent"))
            // The session's tokens live in cookies.
            .col(boolean("cookie"))
            .col(text("rt_kid"))
            .col(big_integer("rt_counter"))
            .col(timestamp("rt_rotated_at"))
            // Bit 0: this generation had a late retry; bit 1: the one before.
            .col(integer("rt_retried"))
            .col(timestamp("idle_expires_at"))
            .col(timestamp("abs_expires_at"))
            .col(timestamp("created_at"))
            .col(timestamp("last_active_at"))
            .col(timestamp_null("revoked_at"))
            .col(text_null("revoke_reason"))
            .foreign_key(&mut references("sessions", "user_id", "users", "id"))
            .take()
            .into(),
        // A device has one live session.
        index("ux_sessions_live", "sessions", ["device_id"])
            .unique()
            .and_where(Expr::col("revoked_at").is_null())
            .take()
            .into(),
        index("ix_sessions_user", "sessions", ["user_id", "revoked_at"])
            .take()
            .into(),
        index(
            "ix_sessions_tenant",
            "sessions",
            ["tenant_id", "created_at", "id"],
        )
        .take()
        .into(),
        // Sessions that time ends, and those that ended long ago.
        index("ix_sessions_idle", "sessions", ["idle_expires_at"])
            .and_where(Expr::col("revoked_at").is_null())
            .take()
            .into(),
        index("ix_sessions_revoked", "sessions", ["revoked_at"])
            .and_where(Expr::col("revoked_at").is_not_null())
            .take()
            .into(),
    ]
}

fn revocations() -> Vec<Change> {
    vec![
        table("revocations")
            .col(big_integer("seq").primary_key().take())
            .col(one_of(
                "kind",
                &[
                    "user",
                    "tenant",
                    "global",
                    "session",
                    "api_key",
                    "signing_key",
                    "roles",
                    "tenants",
                ],
            ))
            .col(uuid("tenant_id"))
            .col(text("subject"))
            .col(big_integer("min"))
            .col(text("cause"))
            .col(timestamp("at"))
            .col(timestamp("until"))
            .take()
            .into(),
        index("ix_revocations_until", "revocations", ["until"])
            .take()
            .into(),
        table("identity_state")
            .col(integer("id").primary_key().take())
            // Epoch of the whole installation: tokens with a lower one are refused.
            .col(big_integer("ge"))
            // Named at the first start.
            .col(uuid_null("installation"))
            .take()
            .into(),
        Query::insert()
            .into_table("identity_state")
            .columns(["id", "ge"])
            .values_panic([1.into(), 1_i64.into()])
            .take()
            .into(),
    ]
}

fn keys() -> Vec<Change> {
    vec![
        table("signing_keys")
            .col(text("kid").primary_key().take())
            .col(text("alg"))
            .col(json("public_jwk"))
            // Envelope.
            .col(text("private"))
            .col(one_of("state", &["next", "active", "retired", "dropped"]))
            .col(timestamp("not_before"))
            .col(timestamp_null("activated_at"))
            .col(timestamp_null("retired_at"))
            .col(timestamp("created_at"))
            .take()
            .into(),
        index("ux_signing_keys_active", "signing_keys", ["alg"])
            .unique()
            .and_where(Expr::col("state").eq("active"))
            .take()
            .into(),
        table("api_keys")
            .col(id())
            .col(text("key_id"))
            .col(uuid("tenant_id"))
            .col(uuid_null("owner_user_id"))
            // A service principal's key names its service.
            .col(text_null("service"))
            .col(text("name"))
            .col(bytes("secret_hash"))
            .col(bytes_null("secret_hash_2"))
            .col(timestamp_null("secret_2_until"))
            .col(json("scopes"))
            .col(json("services"))
            .col(json("cidrs"))
            .col(json_null("rate_limit"))
            .col(timestamp("expires_at"))
            .col(timestamp_null("noticed_at"))
            .col(timestamp_null("last_used_at"))
            .col(text_null("last_used_ip"))
            .col(text("created_by"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .col(timestamp_null("revoked_at"))
            .take()
            .into(),
        index("ux_api_keys_key", "api_keys", ["key_id"])
            .unique()
            .take()
            .into(),
        index("ix_api_keys_tenant", "api_keys", ["tenant_id", "id"])
            .take()
            .into(),
        index("ix_api_keys_owner", "api_keys", ["owner_user_id"])
            .take()
            .into(),
    ]
}

fn codes() -> Vec<Change> {
    vec![
        table("otp_transactions")
            .col(id())
            .col(uuid("tenant_id"))
            .col(one_of("purpose", &["login", "bind", "reset"]))
            .col(bytes("phone_hash"))
            // Envelope.
            .col(text("phone"))
            .col(bytes("code_mac"))
            // Of the code before, so that it can be told from a wrong one.
            .col(bytes_null("previous_mac"))
            .col(text("device_client_id"))
            .col(uuid_null("user_id"))
            .col(text_null("ip"))
            .col(integer("tries"))
            .col(integer("resend_no"))
            .col(timestamp("created_at"))
            .col(timestamp("resend_at"))
            .col(timestamp("expires_at"))
            .col(timestamp_null("consumed_at"))
            .take()
            .into(),
        index(
            "ix_otp_phone",
            "otp_transactions",
            ["phone_hash", "created_at"],
        )
        .take()
        .into(),
        index("ix_otp_expires", "otp_transactions", ["expires_at"])
            .take()
            .into(),
        table("one_time_tokens")
            .col(bytes("hash").primary_key().take())
            .col(text("kind"))
            .col(uuid_null("tenant_id"))
            .col(uuid_null("user_id"))
            .col(json("payload"))
            .col(timestamp("created_at"))
            .col(timestamp("expires_at"))
            .col(timestamp_null("used_at"))
            .take()
            .into(),
        index("ix_one_time_expires", "one_time_tokens", ["expires_at"])
            .take()
            .into(),
        index("ix_one_time_user", "one_time_tokens", ["user_id", "kind"])
            .take()
            .into(),
        // What must answer the same when it is asked again (ID-32, ID-69).
        table("identity_replies")
            .col(text("scope"))
            .col(text("key"))
            .col(bytes("request_hash"))
            .col(uuid_null("user_id"))
            .col(timestamp("expires_at"))
            .primary_key(&mut key(["scope", "key"]))
            .take()
            .into(),
        index("ix_identity_replies", "identity_replies", ["expires_at"])
            .take()
            .into(),
    ]
}

fn invitations() -> Vec<Change> {
    vec![
        table("invitations")
            .col(id())
            .col(uuid("tenant_id"))
            .col(bytes("hash"))
            .col(text_null("email"))
            // The link went to the address by mail, so that whoever uses it reads what is sent there.
            .col(boolean("mailed"))
            .col(json("roles"))
            .col(text("locale"))
            .col(text("created_by"))
            .col(timestamp("created_at"))
            .col(timestamp("expires_at"))
            .col(timestamp_null("used_at"))
            .col(uuid_null("used_by"))
            .col(timestamp_null("revoked_at"))
            .take()
            .into(),
        index("ux_invitations_hash", "invitations", ["hash"])
            .unique()
            .take()
            .into(),
        index(
            "ix_invitations_tenant",
            "invitations",
            ["tenant_id", "created_at", "id"],
        )
        .take()
        .into(),
        table("erasure_tasks")
            .col(uuid("user_id"))
            .col(text("service"))
            .col(uuid("tenant_id"))
            .col(one_of("state", &["waiting", "done", "failed"]))
            .col(integer("tries"))
            .col(text_null("last_error"))
            .col(timestamp("updated_at"))
            .primary_key(&mut key(["user_id", "service"]))
            .take()
            .into(),
    ]
}

fn batches() -> Vec<Change> {
    vec![
        table("user_batches")
            .col(id())
            .col(uuid("tenant_id"))
            .col(json("wanted"))
            // Who ordered it, and what they might do then.
            .col(json("actor"))
            .col(big_integer("total"))
            .col(big_integer("done"))
            .col(big_integer("failed"))
            // Where the next run goes on.
            .col(json_null("position"))
            .col(timestamp("created_at"))
            .col(timestamp_null("finished_at"))
            .take()
            .into(),
        index(
            "ix_user_batches_tenant",
            "user_batches",
            ["tenant_id", "created_at", "id"],
        )
        .take()
        .into(),
        table("user_batch_rows")
            .col(uuid("batch_id"))
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            // Why it was not done.
            .col(text_null("code"))
            .primary_key(&mut key(["batch_id", "user_id"]))
            .foreign_key(&mut references(
                "user_batch_rows",
                "batch_id",
                "user_batches",
                "id",
            ))
            .take()
            .into(),
    ]
}

fn security() -> Vec<Change> {
    vec![
        table("ip_rules")
            .col(id())
            .col(text("cidr"))
            .col(one_of("kind", &["allow", "deny"]))
            .col(text("reason"))
            // Who made it: a person, or `stuffing`.
            .col(text("source"))
            .col(timestamp("created_at"))
            .col(timestamp_null("expires_at"))
            .take()
            .into(),
        index("ix_ip_rules_expires", "ip_rules", ["expires_at"])
            .take()
            .into(),
        // Waits after wrong passwords (ID-161). The subject is a keyed hash of the name that was typed, whether
        // there is such an account or not, or of a known device: the rows tell nothing about accounts.
        table("account_locks")
            .col(bytes("subject").primary_key().take())
            .col(big_integer("failures"))
            .col(timestamp("first_failure_at"))
            .col(timestamp_null("locked_until"))
            .take()
            .into(),
        index(
            "ix_account_locks_first",
            "account_locks",
            ["first_failure_at"],
        )
        .take()
        .into(),
    ]
}

fn logins() -> Vec<Change> {
    vec![
        table("login_events")
            .col(id())
            .col(uuid("tenant_id"))
            .col(uuid("user_id"))
            .col(text("kind"))
            .col(text("method"))
            .col(text_null("ip"))
            .col(text_null("user_agent"))
            .col(uuid_null("device_id"))
            .col(uuid_null("session_id"))
            .col(json("detail"))
            .col(timestamp("at"))
            .foreign_key(&mut references("login_events", "user_id", "users", "id"))
            .take()
            .into(),
        index(
            "ix_login_events_user",
            "login_events",
            ["user_id", "at", "id"],
        )
        .take()
        .into(),
        index("ix_login_events_at", "login_events", ["at"])
            .take()
            .into(),
    ]
}
