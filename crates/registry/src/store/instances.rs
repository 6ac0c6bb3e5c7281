//! Instances, with their secrets sealed for their row.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_base::envelope::{MasterKeys, Place};
use portico_base::secret::token_hash;
use portico_base::{Random, Secret, Timestamp};
use portico_contract::directory::Protocol;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{
    CHUNK, broken, delete_by, from_json, from_opt_json, opt_json, to_i64, to_json, to_u64, upsert,
};
use crate::domain::check::CheckSpec;
use crate::domain::instance::{Definition, Instance, InstanceSecret, Source, parse_state};

const TABLE: &str = "service_instances";

const COLUMNS: [&str; 37] = [
    "id",
    "service_id",
    "instance_key",
    "version",
    "host",
    "port",
    "base_path",
    "protocol",
    "tls_pin",
    "zone",
    "node",
    "weight",
    "weight_override",
    "metadata",
    "tags",
    "checks",
    "consul",
    "heartbeat_s",
    "last_heartbeat",
    "state",
    "state_reason",
    "state_since",
    "warning",
    "state_order",
    "secret",
    "secret_hash",
    "next_secret",
    "previous_hash",
    "previous_until",
    "secret_at",
    "secret_given",
    "source",
    "owner",
    "create_index",
    "modify_index",
    "created_at",
    "updated_at",
];

/// What seals secrets.
#[derive(Clone)]
pub(crate) struct Sealer {
    pub keys: Arc<MasterKeys>,
    pub random: Arc<dyn Random>,
}

impl Sealer {
    fn seal(&self, instance: Uuid, column: &str, secret: &Secret<String>) -> String {
        let row = instance.to_string();
        let place = Place {
            table: TABLE,
            row: &row,
            column,
        };
        self.keys
            .seal(place, secret.expose().as_bytes(), &*self.random)
    }

    /// A secret that cannot be opened (another master key) is as good as none: the instance gets a new
    /// one when it registers again.
    fn open(&self, instance: Uuid, column: &str, text: &str) -> Option<Arc<Secret<String>>> {
        let row = instance.to_string();
        let place = Place {
            table: TABLE,
            row: &row,
            column,
        };
        let plain = self.keys.open(place, text).ok()?;
        let text = String::from_utf8(plain.expose().clone()).ok()?;
        Some(Arc::new(Secret::new(text)))
    }
}

/// Inserts an instance or replaces its row.
pub(crate) async fn put(
    conn: &impl ConnectionTrait,
    sealer: &Sealer,
    i: &Instance,
) -> Result<(), DbError> {
    let values = values(sealer, i)?;
    upsert(conn, TABLE, &["id"], COLUMNS, values).await
}

fn values(sealer: &Sealer, i: &Instance) -> Result<[Expr; 37], DbError> {
    let d = &i.definition;
    let secret = i.secret.as_ref();
    let current = secret.map(|s| sealer.seal(i.id, "secret", &s.current));
    let hash = secret.map(|s| token_hash(s.current.expose()).to_vec());
    let next = secret
        .and_then(|s| s.next.as_ref())
        .map(|n| sealer.seal(i.id, "next_secret", n));
    let previous = secret.and_then(|s| s.previous);
    let protocol: Value = to_json(&d.protocol)?;
    Ok([
        i.id.into(),
        i.service.into(),
        i.key.to_string().into(),
        d.version.to_string().into(),
        d.host.to_string().into(),
        i32::from(d.port).into(),
        d.base_path.to_string().into(),
        protocol.as_str().unwrap_or_default().to_owned().into(),
        d.tls_pin.map(hex::encode).into(),
        d.zone.to_string().into(),
        d.node.to_string().into(),
        i32::from(d.weight).into(),
        i.weight_override.map(i32::from).into(),
        to_json(&*d.metadata)?.into(),
        to_json(&d.tags.to_vec())?.into(),
        to_json(&d.checks.to_vec())?.into(),
        opt_json(d.consul.as_deref())?.into(),
        d.heartbeat_s.and_then(|s| i32::try_from(s).ok()).into(),
        i.last_heartbeat.into(),
        i.state.as_str().into(),
        i.reason.to_string().into(),
        i.since.into(),
        i.warning.into(),
        opt_json(i.order.as_ref())?.into(),
        current.into(),
        hash.into(),
        next.into(),
        previous.map(|(hash, _)| hash.to_vec()).into(),
        previous.map(|(_, until)| until).into(),
        secret.map(|s| s.issued_at).into(),
        secret.is_some_and(|s| s.given).into(),
        i.source.as_str().into(),
        to_json(&i.owner)?.into(),
        to_i64(i.create_index).into(),
        to_i64(i.modify_index).into(),
        i.created_at.into(),
        i.updated_at.into(),
    ])
}

/// Writes what a change of state changes, and nothing else.
pub(crate) async fn put_state(conn: &impl ConnectionTrait, i: &Instance) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("state", i.state.as_str())
        .value("state_reason", i.reason.to_string())
        .value("state_since", i.since)
        .value("warning", i.warning)
        .value("state_order", Expr::value(opt_json(i.order.as_ref())?))
        .value(
            "weight_override",
            Expr::value(i.weight_override.map(i32::from)),
        )
        .value("last_heartbeat", i.last_heartbeat)
        .value("modify_index", to_i64(i.modify_index))
        .value("updated_at", i.updated_at)
        .and_where(Expr::col("id").eq(i.id));
    conn.execute(&update).await?;
    Ok(())
}

/// Writes heartbeats: one statement a second of signs of life, because many instances share one.
pub(crate) async fn flush(
    conn: &impl ConnectionTrait,
    seen: &[(Uuid, Timestamp)],
) -> Result<(), DbError> {
    let mut by_second: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    for (id, at) in seen {
        by_second.entry(at.timestamp()).or_default().push(*id);
    }
    for (second, ids) in by_second {
        let at = portico_base::clock::from_unix_ms(second * 1_000);
        for chunk in ids.chunks(CHUNK) {
            let mut update = Query::update();
            update
                .table(TABLE)
                .value("last_heartbeat", at)
                .and_where(Expr::col("id").is_in(chunk.iter().copied()));
            conn.execute(&update).await?;
        }
    }
    Ok(())
}

/// Removes an instance; its checks go with it.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbError> {
    delete_by(conn, TABLE, "id", id).await?;
    Ok(())
}

/// All instances, or those with the ids.
pub(crate) async fn read(
    conn: &impl ConnectionTrait,
    sealer: &Sealer,
    ids: Option<&[Uuid]>,
) -> Result<Vec<Instance>, DbError> {
    let mut select = Query::select();
    select.columns(COLUMNS).from(TABLE);
    if let Some(ids) = ids {
        select.and_where(Expr::col("id").is_in(ids.iter().copied()));
    }
    let rows = conn.query_all(&select).await?;
    rows.iter().map(|row| instance(row, sealer)).collect()
}

/// Last heartbeats as the rows know them, for a comparison with memory.
pub(crate) async fn heartbeats(
    conn: &impl ConnectionTrait,
    since: Timestamp,
) -> Result<Vec<(Uuid, Timestamp)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["id", "last_heartbeat"])
        .from(TABLE)
        .and_where(Expr::col("last_heartbeat").gt(since));
    super::all(conn, &select, |r| {
        Ok((r.try_get("", "id")?, r.try_get("", "last_heartbeat")?))
    })
    .await
}

/// What a comparison of memory with the rows needs: id, index of the last change, state.
pub(crate) async fn marks(
    conn: &impl ConnectionTrait,
) -> Result<Vec<(Uuid, u64, String)>, DbError> {
    let mut select = Query::select();
    select.columns(["id", "modify_index", "state"]).from(TABLE);
    super::all(conn, &select, |r| {
        Ok((
            r.try_get("", "id")?,
            to_u64(r, "modify_index")?,
            r.try_get("", "state")?,
        ))
    })
    .await
}

fn instance(row: &QueryResult, sealer: &Sealer) -> Result<Instance, DbError> {
    let id: Uuid = row.try_get("", "id")?;
    let state: String = row.try_get("", "state")?;
    let source: String = row.try_get("", "source")?;
    Ok(Instance {
        id,
        service: row.try_get("", "service_id")?,
        key: text(row, "instance_key")?,
        source: Source::parse(&source).ok_or_else(|| broken("source"))?,
        owner: from_json(row, "owner")?,
        definition: definition(row)?,
        state: parse_state(&state).ok_or_else(|| broken("state"))?,
        reason: text(row, "state_reason")?,
        since: row.try_get("", "state_since")?,
        order: from_opt_json(row, "state_order")?,
        weight_override: row
            .try_get::<Option<i32>>("", "weight_override")?
            .and_then(|w| u16::try_from(w).ok()),
        warning: row.try_get("", "warning")?,
        secret: secret(row, sealer, id)?,
        last_heartbeat: row.try_get("", "last_heartbeat")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
        create_index: to_u64(row, "create_index")?,
        modify_index: to_u64(row, "modify_index")?,
    })
}

fn text(row: &QueryResult, column: &str) -> Result<Arc<str>, DbError> {
    Ok(Arc::from(row.try_get::<String>("", column)?))
}

fn definition(row: &QueryResult) -> Result<Definition, DbError> {
    let protocol: String = row.try_get("", "protocol")?;
    let pin: Option<String> = row.try_get("", "tls_pin")?;
    let small = |column: &str| -> Result<u16, DbError> {
        let value: i32 = row.try_get("", column)?;
        u16::try_from(value).map_err(|_| broken(column))
    };
    let heartbeat: Option<i32> = row.try_get("", "heartbeat_s")?;
    let mut tls_pin = None;
    if let Some(text) = pin {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| broken("pin"))?;
        tls_pin = Some(bytes);
    }
    Ok(Definition {
        version: text(row, "version")?,
        host: text(row, "host")?,
        port: small("port")?,
        base_path: text(row, "base_path")?,
        protocol: serde_json::from_value::<Protocol>(Value::String(protocol))?,
        tls_pin,
        weight: small("weight")?,
        zone: text(row, "zone")?,
        node: text(row, "node")?,
        tags: from_json::<Vec<String>>(row, "tags")?.into(),
        metadata: Arc::new(from_json(row, "metadata")?),
        heartbeat_s: heartbeat.and_then(|s| u32::try_from(s).ok()),
        checks: from_json::<Vec<CheckSpec>>(row, "checks")?.into(),
        consul: from_opt_json(row, "consul")?.map(Arc::new),
    })
}

fn secret(row: &QueryResult, sealer: &Sealer, id: Uuid) -> Result<Option<InstanceSecret>, DbError> {
    let sealed: Option<String> = row.try_get("", "secret")?;
    let next: Option<String> = row.try_get("", "next_secret")?;
    let issued_at: Option<Timestamp> = row.try_get("", "secret_at")?;
    let hash: Option<Vec<u8>> = row.try_get("", "previous_hash")?;
    let until: Option<Timestamp> = row.try_get("", "previous_until")?;
    let (Some(sealed), Some(issued_at)) = (sealed, issued_at) else {
        return Ok(None);
    };
    let Some(current) = sealer.open(id, "secret", &sealed) else {
        tracing::warn!(instance = %id, "the secret of an instance cannot be opened with this master key");
        return Ok(None);
    };
    let previous = hash
        .and_then(|h| <[u8; 32]>::try_from(h.as_slice()).ok())
        .zip(until);
    Ok(Some(InstanceSecret {
        given: row.try_get("", "secret_given")?,
        current,
        issued_at,
        next: next.and_then(|text| sealer.open(id, "next_secret", &text)),
        previous,
    }))
}
