//! Services, versions, endpoints, instances, tokens, events, history, nodes and checks.

use portico_db::schema::{
    big_integer, boolean, bytes, bytes_null, index, integer, json, json_null, key, one_of,
    references, table, text, text_null, timestamp, timestamp_null, uuid, uuid_null,
};
use portico_db::sea_query::{ColumnDef, Expr, ExprTrait as _, Query};
use portico_db::{Change, Step};

pub(super) fn step() -> Step {
    let mut changes = services();
    changes.extend(below_services());
    changes.extend(instances());
    changes.extend(history());
    changes.extend(names());
    changes.extend(sequence());
    changes.extend(nodes());
    Step::new("m0001_registry", changes)
}

fn id() -> ColumnDef {
    uuid("id").primary_key().take()
}

fn services() -> Vec<Change> {
    vec![
        table("services")
            .col(id())
            .col(uuid_null("tenant_id"))
            // The tenant again, or zeros for a global service: a unique key does not see NULLs.
            .col(uuid("scope"))
            .col(text("name"))
            .col(text("display_name"))
            .col(text("description"))
            .col(json("owner"))
            .col(one_of("default_access", &["authenticated", "public"]))
            .col(boolean("forward_credentials"))
            .col(boolean("identity_statement"))
            .col(text_null("openapi_url"))
            .col(json_null("settings_schema"))
            .col(json_null("console"))
            .col(json("contributions"))
            .col(boolean("enabled"))
            .col(big_integer("create_index"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .take()
            .into(),
        index("ux_services_scope_name", "services", ["scope", "name"])
            .unique()
            .take()
            .into(),
    ]
}

fn below_services() -> Vec<Change> {
    vec![
        table("service_versions")
            .col(uuid("service_id"))
            .col(text("version"))
            .col(text("semver_key"))
            .col(text_null("openapi_hash"))
            .col(timestamp_null("sunset_at"))
            .col(timestamp("created_at"))
            .primary_key(&mut key(["service_id", "version"]))
            .foreign_key(&mut references(
                "service_versions",
                "service_id",
                "services",
                "id",
            ))
            .take()
            .into(),
        table("service_endpoints")
            .col(id())
            .col(uuid("service_id"))
            .col(text("version"))
            .col(integer("position"))
            // Empty for every method.
            .col(text("method"))
            .col(text("path"))
            .col(text("description"))
            .col(json("required_roles"))
            .col(json("required_permissions"))
            .col(boolean("is_public"))
            .col(json_null("rate_limit"))
            .col(ColumnDef::new("timeout_ms").big_integer().take())
            .col(json_null("cache"))
            .col(boolean("idempotency_key"))
            .foreign_key(&mut references(
                "service_endpoints",
                "service_id",
                "services",
                "id",
            ))
            .take()
            .into(),
        index(
            "ux_service_endpoints",
            "service_endpoints",
            ["service_id", "version", "method", "path"],
        )
        .unique()
        .take()
        .into(),
        // Built-in services have no rows of their own: they are known by their names.
        table("tenant_builtin_services")
            .col(uuid("tenant_id"))
            .col(text("name"))
            .col(boolean("enabled"))
            .primary_key(&mut key(["tenant_id", "name"]))
            .take()
            .into(),
        table("tenant_services")
            .col(uuid("tenant_id"))
            .col(uuid("service_id"))
            .col(boolean("enabled"))
            .primary_key(&mut key(["tenant_id", "service_id"]))
            .foreign_key(&mut references(
                "tenant_services",
                "service_id",
                "services",
                "id",
            ))
            .take()
            .into(),
    ]
}

fn instances() -> Vec<Change> {
    let states: Vec<&'static str> = crate::domain::instance::STATES
        .iter()
        .map(|s| s.as_str())
        .collect();
    vec![
        table("service_instances")
            .col(id())
            .col(uuid("service_id"))
            .col(text("instance_key"))
            .col(text("version"))
            .col(text("host"))
            .col(
                integer("port")
                    .check(Expr::col("port").between(0, 65_535))
                    .take(),
            )
            .col(text("base_path"))
            .col(text("protocol"))
            .col(text_null("tls_pin"))
            .col(text("zone"))
            .col(text("node"))
            .col(
                integer("weight")
                    .check(Expr::col("weight").between(0, 1000))
                    .take(),
            )
            .col(ColumnDef::new("weight_override").integer().take())
            .col(json("metadata"))
            .col(json("tags"))
            .col(json("checks"))
            .col(json_null("consul"))
            .col(ColumnDef::new("heartbeat_s").integer().take())
            .col(timestamp("last_heartbeat"))
            .col(one_of("state", &states))
            .col(text("state_reason"))
            .col(timestamp("state_since"))
            .col(boolean("warning"))
            // What an operator or the instance itself ordered: drain until, maintenance.
            .col(json_null("state_order"))
            .col(text_null("secret"))
            .col(bytes_null("secret_hash"))
            .col(text_null("next_secret"))
            .col(bytes_null("previous_hash"))
            .col(timestamp_null("previous_until"))
            .col(timestamp_null("secret_at"))
            .col(boolean("secret_given"))
            .col(text("source"))
            .col(json("owner"))
            .col(big_integer("create_index"))
            .col(big_integer("modify_index"))
            .col(timestamp("created_at"))
            .col(timestamp("updated_at"))
            .foreign_key(&mut references(
                "service_instances",
                "service_id",
                "services",
                "id",
            ))
            .take()
            .into(),
        index(
            "ux_service_instances_key",
            "service_instances",
            ["service_id", "instance_key"],
        )
        .unique()
        .take()
        .into(),
    ]
}

fn history() -> Vec<Change> {
    vec![
        table("instance_history")
            .col(id())
            .col(uuid("instance_id"))
            .col(timestamp("at"))
            .col(big_integer("seq"))
            .col(text("from_state"))
            .col(text("to_state"))
            .col(text("reason"))
            .take()
            .into(),
        index(
            "ix_instance_history",
            "instance_history",
            ["instance_id", "at", "seq"],
        )
        .take()
        .into(),
        index("ix_instance_history_at", "instance_history", ["at"])
            .take()
            .into(),
    ]
}

fn names() -> Vec<Change> {
    vec![
        table("registration_tokens")
            .col(id())
            .col(text("name_pattern"))
            .col(json("scopes"))
            .col(integer("max_instances"))
            .col(boolean("allow_public"))
            .col(boolean("allow_credentials"))
            .col(uuid_null("tenant_id"))
            .col(bytes("hash"))
            .col(text("note"))
            .col(timestamp_null("expires_at"))
            .col(timestamp_null("used_at"))
            .col(text("created_by"))
            .col(timestamp("created_at"))
            .take()
            .into(),
        index(
            "ux_registration_tokens_hash",
            "registration_tokens",
            ["hash"],
        )
        .unique()
        .take()
        .into(),
        table("registry_reservations")
            .col(text("name").primary_key().take())
            .col(text("note"))
            .col(text("created_by"))
            .col(timestamp("created_at"))
            .take()
            .into(),
    ]
}

fn sequence() -> Vec<Change> {
    let mut first = Query::insert();
    first
        .into_table("registry_counter")
        .columns(["id", "index", "seq"])
        .values_panic([1.into(), 1_i64.into(), 0_i64.into()]);
    vec![
        table("registry_counter")
            .col(integer("id").primary_key().take())
            .col(big_integer("index"))
            .col(big_integer("seq"))
            .take()
            .into(),
        first.into(),
        table("registry_events")
            .col(big_integer("seq").primary_key().take())
            .col(text("kind"))
            .col(uuid_null("tenant_id"))
            .col(uuid_null("service_id"))
            .col(uuid_null("instance_id"))
            // What else followers must read again: a node, a check, a token, a reserved name.
            .col(json_null("subject"))
            .col(text("data"))
            .col(timestamp("at"))
            .take()
            .into(),
        index("ix_registry_events_at", "registry_events", ["at"])
            .take()
            .into(),
    ]
}

fn nodes() -> Vec<Change> {
    vec![
        table("consul_nodes")
            .col(uuid("scope"))
            .col(text("name"))
            .col(json("details"))
            .col(big_integer("create_index"))
            .col(big_integer("modify_index"))
            .primary_key(&mut key(["scope", "name"]))
            .take()
            .into(),
        table("consul_checks")
            .col(uuid("scope"))
            .col(text("node"))
            .col(text("check_id"))
            .col(uuid_null("instance_id"))
            .col(text("name"))
            .col(text("notes"))
            .col(json("spec"))
            .col(one_of("status", &["passing", "warning", "critical"]))
            .col(text("output"))
            .col(timestamp("since"))
            .col(big_integer("create_index"))
            .col(big_integer("modify_index"))
            .primary_key(&mut key(["scope", "node", "check_id"]))
            .foreign_key(&mut references(
                "consul_checks",
                "instance_id",
                "service_instances",
                "id",
            ))
            .take()
            .into(),
        index(
            "ix_consul_checks_instance",
            "consul_checks",
            ["instance_id"],
        )
        .take()
        .into(),
    ]
}
