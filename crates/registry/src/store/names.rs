//! Registration tokens and reserved names.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use uuid::Uuid;

use super::{broken, delete_by, from_json, to_json, upsert};
use crate::domain::token::{NamePattern, Token, registrar};
use crate::model::Reservation;

const TOKENS: &str = "registration_tokens";
const RESERVATIONS: &str = "registry_reservations";

const COLUMNS: [&str; 13] = [
    "id",
    "name_pattern",
    "scopes",
    "max_instances",
    "allow_public",
    "allow_credentials",
    "tenant_id",
    "hash",
    "note",
    "expires_at",
    "used_at",
    "created_by",
    "created_at",
];

/// Writes a token.
pub(crate) async fn put_token(conn: &impl ConnectionTrait, t: &Token) -> Result<(), DbError> {
    upsert(
        conn,
        TOKENS,
        &["id"],
        COLUMNS,
        [
            t.id.into(),
            t.pattern.text().into(),
            to_json(&t.scopes)?.into(),
            i32::try_from(t.max_instances).unwrap_or(i32::MAX).into(),
            t.allow_public.into(),
            t.allow_credentials.into(),
            t.tenant.into(),
            t.hash.to_vec().into(),
            t.note.clone().into(),
            t.expires_at.into(),
            t.used_at.into(),
            t.created_by.clone().into(),
            t.created_at.into(),
        ],
    )
    .await
}

/// Remembers when a token was used last.
pub(crate) async fn use_token(
    conn: &impl ConnectionTrait,
    id: Uuid,
    at: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TOKENS)
        .value("used_at", at)
        .and_where(Expr::col("id").eq(id));
    conn.execute(&update).await?;
    Ok(())
}

/// Removes a token.
pub(crate) async fn delete_token(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbError> {
    delete_by(conn, TOKENS, "id", id).await?;
    Ok(())
}

/// All tokens, or those with the ids.
pub(crate) async fn tokens(
    conn: &impl ConnectionTrait,
    ids: Option<&[Uuid]>,
) -> Result<Vec<Token>, DbError> {
    let mut select = Query::select();
    select.columns(COLUMNS).from(TOKENS);
    if let Some(ids) = ids {
        select.and_where(Expr::col("id").is_in(ids.iter().copied()));
    }
    super::all(conn, &select, token).await
}

fn token(row: &QueryResult) -> Result<Token, DbError> {
    let id: Uuid = row.try_get("", "id")?;
    let tenant: Option<Uuid> = row.try_get("", "tenant_id")?;
    let pattern: String = row.try_get("", "name_pattern")?;
    let pattern = NamePattern::parse(&pattern).map_err(|_| broken("name pattern"))?;
    let scopes: Vec<String> = from_json(row, "scopes")?;
    let hash: Vec<u8> = row.try_get("", "hash")?;
    let max: i32 = row.try_get("", "max_instances")?;
    Ok(Token {
        id,
        principal: registrar(id, &pattern, tenant, &scopes),
        pattern,
        scopes,
        max_instances: u32::try_from(max).unwrap_or(0),
        allow_public: row.try_get("", "allow_public")?,
        allow_credentials: row.try_get("", "allow_credentials")?,
        tenant,
        hash: hash.as_slice().try_into().map_err(|_| broken("hash"))?,
        note: row.try_get("", "note")?,
        expires_at: row.try_get("", "expires_at")?,
        used_at: row.try_get("", "used_at")?,
        created_by: row.try_get("", "created_by")?,
        created_at: row.try_get("", "created_at")?,
    })
}

/// Writes a reserved name.
pub(crate) async fn put_reservation(
    conn: &impl ConnectionTrait,
    r: &Reservation,
) -> Result<(), DbError> {
    upsert(
        conn,
        RESERVATIONS,
        &["name"],
        ["name", "note", "created_by", "created_at"],
        [
            r.name.clone().into(),
            r.note.clone().into(),
            r.created_by.clone().into(),
            r.created_at.into(),
        ],
    )
    .await
}

/// Removes a reserved name.
pub(crate) async fn delete_reservation(
    conn: &impl ConnectionTrait,
    name: &str,
) -> Result<(), DbError> {
    delete_by(conn, RESERVATIONS, "name", name).await?;
    Ok(())
}

/// All reserved names, or one.
pub(crate) async fn reservations(
    conn: &impl ConnectionTrait,
    names: Option<&[String]>,
) -> Result<Vec<Reservation>, DbError> {
    let mut select = Query::select();
    select
        .columns(["name", "note", "created_by", "created_at"])
        .from(RESERVATIONS);
    if let Some(names) = names {
        select.and_where(Expr::col("name").is_in(names.iter().cloned()));
    }
    super::all(conn, &select, |row| {
        Ok(Reservation {
            name: row.try_get("", "name")?,
            note: row.try_get("", "note")?,
            created_by: row.try_get("", "created_by")?,
            created_at: row.try_get("", "created_at")?,
        })
    })
    .await
}
