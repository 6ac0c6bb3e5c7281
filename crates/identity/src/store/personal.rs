//! What identity keeps about a person, table by table: read for a copy, removed for good.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Func, Order, Query, SelectStatement};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::all;

/// Rows of one read.
const STEP: u64 = 1_000;

/// How a column is read.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Id,
    Time,
    Flag,
    Number,
    Json,
}

type Column = (&'static str, Kind);

/// One file of a copy: rows of a table that belong to the person.
pub(crate) struct Part {
    /// Name of the file, without its ending.
    pub file: &'static str,
    table: &'static str,
    owner: &'static str,
    columns: &'static [Column],
}

use Kind::{Flag, Id, Json, Number, Text, Time};

/// Everything but what is secret and what only counts.
pub(crate) const PARTS: &[Part] = &[
    Part {
        file: "profile",
        table: "users",
        owner: "id",
        columns: &[
            ("id", Id),
            ("tenant_id", Id),
            ("username", Text),
            ("email", Text),
            ("email_verified_at", Time),
            ("phone", Text),
            ("phone_verified_at", Time),
            ("display_name", Text),
            ("avatar_object", Text),
            ("locale", Text),
            ("time_zone", Text),
            ("status", Text),
            ("disabled_reason", Text),
            ("disabled_until", Time),
            ("must_change_password", Flag),
            ("last_login_at", Time),
            ("last_login_ip", Text),
            ("last_login_method", Text),
            ("delete_at", Time),
            ("created_at", Time),
            ("updated_at", Time),
        ],
    },
    Part {
        file: "identities",
        table: "identities",
        owner: "user_id",
        columns: &[
            ("id", Id),
            ("provider", Text),
            ("issuer_key", Text),
            ("subject", Text),
            ("client_id", Text),
            ("email", Text),
            ("email_verified", Flag),
            ("is_private_email", Flag),
            ("email_enabled", Flag),
            ("linked_at", Time),
        ],
    },
    Part {
        file: "devices",
        table: "devices",
        owner: "user_id",
        columns: &[
            ("id", Id),
            ("client_id", Text),
            ("platform", Text),
            ("name", Text),
            ("model", Text),
            ("app_version", Text),
            ("os_version", Text),
            ("last_ip", Text),
            ("last_place", Text),
            ("first_seen_at", Time),
            ("last_active_at", Time),
            ("revoked_at", Time),
        ],
    },
    Part {
        file: "sessions",
        table: "sessions",
        owner: "user_id",
        columns: &[
            ("id", Id),
            ("device_id", Id),
            ("method", Text),
            ("amr", Json),
            ("aal", Number),
            ("auth_time", Time),
            ("ip", Text),
            ("user_agent", Text),
            ("cookie", Flag),
            ("created_at", Time),
            ("last_active_at", Time),
            ("idle_expires_at", Time),
            ("abs_expires_at", Time),
            ("revoked_at", Time),
            ("revoke_reason", Text),
        ],
    },
    Part {
        file: "logins",
        table: "login_events",
        owner: "user_id",
        columns: &[
            ("at", Time),
            ("kind", Text),
            ("method", Text),
            ("ip", Text),
            ("user_agent", Text),
            ("device_id", Id),
            ("session_id", Id),
            ("detail", Json),
        ],
    },
    Part {
        file: "api_keys",
        table: "api_keys",
        owner: "owner_user_id",
        columns: &[
            ("id", Id),
            ("key_id", Text),
            ("name", Text),
            ("scopes", Json),
            ("services", Json),
            ("cidrs", Json),
            ("created_at", Time),
            ("expires_at", Time),
            ("last_used_at", Time),
            ("last_used_ip", Text),
            ("revoked_at", Time),
        ],
    },
];

/// Invitations that the person made.
const INVITATIONS: Part = Part {
    file: "invitations",
    table: "invitations",
    owner: "created_by",
    columns: &[
        ("id", Id),
        ("email", Text),
        ("mailed", Flag),
        ("roles", Json),
        ("locale", Text),
        ("created_at", Time),
        ("expires_at", Time),
        ("used_at", Time),
        ("revoked_at", Time),
    ],
};

/// Messages to the person's number.
const MESSAGES: Part = Part {
    file: "messages",
    table: "sms_records",
    owner: "phone_hash",
    columns: &[
        ("at", Time),
        ("phone_masked", Text),
        ("country", Text),
        ("provider", Text),
        ("status", Text),
        ("notice", Flag),
        ("verified_at", Time),
    ],
};

/// The rows of a part that belong to a user.
pub(crate) async fn rows(
    conn: &impl ConnectionTrait,
    part: &Part,
    tenant: Uuid,
    user: Uuid,
) -> Result<Vec<Value>, DbError> {
    read_all(conn, part, tenant, user.into()).await
}

/// Invitations that a user made.
pub(crate) async fn invitations(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
) -> Result<Vec<Value>, DbError> {
    read_all(conn, &INVITATIONS, tenant, user.to_string().into()).await
}

/// Messages that went to a number.
pub(crate) async fn messages(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    phone_hash: [u8; 32],
) -> Result<Vec<Value>, DbError> {
    read_all(conn, &MESSAGES, tenant, phone_hash.to_vec().into()).await
}

async fn read_all(
    conn: &impl ConnectionTrait,
    part: &Part,
    tenant: Uuid,
    owner: Expr,
) -> Result<Vec<Value>, DbError> {
    let mut found = Vec::new();
    let mut after: Option<Uuid> = None;
    loop {
        let select = page(part, tenant, owner.clone(), after);
        let rows = all(conn, &select, |row| {
            let id: Uuid = row.try_get("", "row_id")?;
            Ok((id, object(row, part.columns)?))
        })
        .await?;
        let more = rows.len() as u64 == STEP;
        after = rows.last().map(|(id, _)| *id);
        found.extend(rows.into_iter().map(|(_, value)| value));
        if !more {
            return Ok(found);
        }
    }
}

fn page(part: &Part, tenant: Uuid, owner: Expr, after: Option<Uuid>) -> SelectStatement {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id"), "row_id")
        .columns(part.columns.iter().map(|(name, _)| *name))
        .from(part.table)
        .and_where(Expr::col(part.owner).eq(owner))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("id", Order::Asc)
        .limit(STEP);
    if let Some(after) = after {
        select.and_where(Expr::col("id").gt(after));
    }
    select
}

fn object(row: &QueryResult, columns: &[Column]) -> Result<Value, DbError> {
    let mut object = Map::new();
    for (name, kind) in columns {
        let value = match kind {
            Text => row.try_get::<Option<String>>("", name)?.map(Value::from),
            Id => {
                let id = row.try_get::<Option<Uuid>>("", name)?;
                id.map(|id| id.to_string().into())
            }
            Time => {
                let at = row.try_get::<Option<Timestamp>>("", name)?;
                at.map(|at| at.to_rfc3339().into())
            }
            Flag => row.try_get::<Option<bool>>("", name)?.map(Value::from),
            Number => row.try_get::<Option<i32>>("", name)?.map(Value::from),
            Json => row.try_get::<Option<Value>>("", name)?,
        };
        object.insert((*name).to_owned(), value.unwrap_or(Value::Null));
    }
    Ok(object.into())
}

/// What a person is called elsewhere in our tables.
pub(crate) struct Names<'a> {
    pub email_key: Option<&'a str>,
    pub phone_hash: Option<[u8; 32]>,
}

/// Removes every row of a user but the user's own. Done twice it does the same as once.
pub(crate) async fn erase(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
    names: &Names<'_>,
) -> Result<(), DbError> {
    // In the order of the foreign keys.
    for (table, owner) in [
        ("sessions", "user_id"),
        ("devices", "user_id"),
        ("login_events", "user_id"),
        ("identities", "user_id"),
        ("user_roles", "user_id"),
        ("api_keys", "owner_user_id"),
        ("otp_transactions", "user_id"),
        ("user_batch_rows", "user_id"),
    ] {
        let mut delete = Query::delete();
        delete
            .from_table(table)
            .and_where(Expr::col(owner).eq(user))
            .and_where(Expr::col("tenant_id").eq(tenant));
        conn.execute(&delete).await?;
    }
    // These know no tenant but that of their user; the id is nobody else's.
    for table in [
        "recovery_codes",
        "user_secrets",
        "one_time_tokens",
        "identity_replies",
    ] {
        let mut delete = Query::delete();
        delete
            .from_table(table)
            .and_where(Expr::col("user_id").eq(user));
        conn.execute(&delete).await?;
    }
    let mut invited = Cond::any().add(Expr::col("used_by").eq(user));
    if let Some(key) = names.email_key {
        invited = invited.add(Expr::expr(Func::lower(Expr::col("email"))).eq(key));
    }
    let mut delete = Query::delete();
    delete
        .from_table("invitations")
        .and_where(Expr::col("tenant_id").eq(tenant))
        .cond_where(invited);
    conn.execute(&delete).await?;
    if let Some(hash) = names.phone_hash {
        forget_number(conn, tenant, hash).await?;
    }
    Ok(())
}

/// What was sent still counts and costs, but says no more to whom.
async fn forget_number(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    hash: [u8; 32],
) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table("otp_transactions")
        .and_where(Expr::col("phone_hash").eq(hash.to_vec()))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.execute(&delete).await?;
    let mut update = Query::update();
    update
        .table("sms_records")
        .value("phone_masked", "")
        .value("phone_hash", vec![0_u8; 32])
        .value("provider_message", "")
        .and_where(Expr::col("phone_hash").eq(hash.to_vec()))
        .and_where(Expr::col("tenant_id").eq(tenant));
    conn.execute(&update).await?;
    Ok(())
}
