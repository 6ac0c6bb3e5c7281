//! Services, their versions and endpoints, and tenants for which they are switched off.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use portico_contract::directory::{DefaultAccess, Endpoint};
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use serde_json::Value;
use uuid::Uuid;

use super::{
    CHUNK, delete_by, from_json, from_opt_json, opt_json, scope, to_i64, to_json, to_u64, upsert,
};
use crate::domain::endpoint::EndpointView;
use crate::domain::service::{Contributions, Service, Version, semver_key};

const TABLE: &str = "services";
const VERSIONS: &str = "service_versions";
const ENDPOINTS: &str = "service_endpoints";
const TENANTS: &str = "tenant_services";
const BUILTIN: &str = "tenant_builtin_services";

/// Writes a service without its versions.
pub(crate) async fn put(conn: &impl ConnectionTrait, s: &Service) -> Result<(), DbError> {
    let access = match s.default_access {
        DefaultAccess::Authenticated => "authenticated",
        DefaultAccess::Public => "public",
    };
    upsert(
        conn,
        TABLE,
        &["id"],
        [
            "id",
            "tenant_id",
            "scope",
            "name",
            "display_name",
            "description",
            "owner",
            "default_access",
            "forward_credentials",
            "identity_statement",
            "openapi_url",
            "settings_schema",
            "console",
            "contributions",
            "enabled",
            "create_index",
            "created_at",
            "updated_at",
        ],
        [
            s.id.into(),
            s.tenant.into(),
            scope(s.tenant).into(),
            s.name.to_string().into(),
            s.display_name.to_string().into(),
            s.description.to_string().into(),
            to_json(&s.owner)?.into(),
            access.into(),
            s.forward_credentials.into(),
            s.identity_statement.into(),
            s.openapi_url.as_deref().map(str::to_owned).into(),
            opt_json(s.settings_schema.as_deref())?.into(),
            opt_json(s.console.as_deref())?.into(),
            to_json(&*s.contributions)?.into(),
            s.enabled.into(),
            to_i64(s.create_index).into(),
            s.created_at.into(),
            s.updated_at.into(),
        ],
    )
    .await
}

/// Writes a version and replaces its endpoints.
pub(crate) async fn put_version(
    conn: &impl ConnectionTrait,
    service: Uuid,
    version: &str,
    of: &Version,
    ids: &mut (dyn FnMut() -> Uuid + Send),
) -> Result<(), DbError> {
    upsert(
        conn,
        VERSIONS,
        &["service_id", "version"],
        ["service_id", "version", "semver_key", "created_at"],
        [
            service.into(),
            version.into(),
            semver_key(version).into(),
            of.created_at.into(),
        ],
    )
    .await?;
    let mut delete = Query::delete();
    delete
        .from_table(ENDPOINTS)
        .and_where(Expr::col("service_id").eq(service))
        .and_where(Expr::col("version").eq(version));
    conn.execute(&delete).await?;
    let rows: Vec<(usize, EndpointView, Uuid)> = of
        .endpoints
        .iter()
        .enumerate()
        .map(|(i, e)| (i, EndpointView::from(e), ids()))
        .collect();
    for chunk in rows.chunks(CHUNK) {
        let mut insert = Query::insert();
        insert.into_table(ENDPOINTS).columns([
            "id",
            "service_id",
            "version",
            "position",
            "method",
            "path",
            "description",
            "required_roles",
            "required_permissions",
            "is_public",
            "rate_limit",
            "timeout_ms",
            "cache",
            "idempotency_key",
        ]);
        for (position, e, id) in chunk {
            insert.values_panic([
                (*id).into(),
                service.into(),
                version.into(),
                i32::try_from(*position).unwrap_or(i32::MAX).into(),
                e.method.clone().unwrap_or_default().into(),
                e.path.clone().into(),
                e.description.clone().into(),
                to_json(&e.required_roles)?.into(),
                to_json(&e.required_permissions)?.into(),
                e.is_public.into(),
                opt_json(e.rate_limit.as_ref())?.into(),
                e.timeout_ms.map(i64::from).into(),
                opt_json(e.cache.as_ref())?.into(),
                e.idempotency_key.into(),
            ]);
        }
        conn.execute(&insert).await?;
    }
    Ok(())
}

/// Removes a version and its endpoints.
pub(crate) async fn delete_version(
    conn: &impl ConnectionTrait,
    service: Uuid,
    version: &str,
) -> Result<(), DbError> {
    for table in [ENDPOINTS, VERSIONS] {
        let mut delete = Query::delete();
        delete
            .from_table(table)
            .and_where(Expr::col("service_id").eq(service))
            .and_where(Expr::col("version").eq(version));
        conn.execute(&delete).await?;
    }
    Ok(())
}

/// Removes a service with everything below it.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbError> {
    delete_by(conn, TABLE, "id", id).await?;
    Ok(())
}

/// Switches a service on or off for a tenant.
pub(crate) async fn put_tenant(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    service: Uuid,
    enabled: bool,
) -> Result<(), DbError> {
    upsert(
        conn,
        TENANTS,
        &["tenant_id", "service_id"],
        ["tenant_id", "service_id", "enabled"],
        [tenant.into(), service.into(), enabled.into()],
    )
    .await
}

/// Switches a built-in service for a tenant.
pub(crate) async fn put_builtin(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    name: &str,
    enabled: bool,
) -> Result<(), DbError> {
    upsert(
        conn,
        BUILTIN,
        &["tenant_id", "name"],
        ["tenant_id", "name", "enabled"],
        [tenant.into(), name.into(), enabled.into()],
    )
    .await
}

/// For whom built-in services are switched off, by name.
pub(crate) async fn builtin_off(
    conn: &impl ConnectionTrait,
) -> Result<HashMap<String, Vec<Uuid>>, DbError> {
    let mut select = Query::select();
    select
        .columns(["tenant_id", "name"])
        .from(BUILTIN)
        .and_where(Expr::col("enabled").eq(false))
        .order_by("tenant_id", Order::Asc);
    let mut out: HashMap<String, Vec<Uuid>> = HashMap::new();
    for row in &conn.query_all(&select).await? {
        let name: String = row.try_get("", "name")?;
        out.entry(name)
            .or_default()
            .push(row.try_get("", "tenant_id")?);
    }
    Ok(out)
}

/// All services, or those with the ids.
pub(crate) async fn read(
    conn: &impl ConnectionTrait,
    ids: Option<&[Uuid]>,
) -> Result<Vec<Service>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "id",
            "tenant_id",
            "name",
            "display_name",
            "description",
            "owner",
            "default_access",
            "forward_credentials",
            "identity_statement",
            "openapi_url",
            "settings_schema",
            "console",
            "contributions",
            "enabled",
            "create_index",
            "created_at",
            "updated_at",
        ])
        .from(TABLE);
    only(&mut select, "id", ids);
    let rows = conn.query_all(&select).await?;
    let mut versions = versions(conn, ids).await?;
    let mut disabled = disabled(conn, ids).await?;
    rows.iter()
        .map(|row| {
            let mut service = service(row)?;
            service.versions = versions.remove(&service.id).unwrap_or_default();
            service.disabled_for = disabled.remove(&service.id).unwrap_or_default().into();
            Ok(service)
        })
        .collect()
}

fn only(select: &mut SelectStatement, column: &'static str, ids: Option<&[Uuid]>) {
    if let Some(ids) = ids {
        select.and_where(Expr::col(column).is_in(ids.iter().copied()));
    }
}

fn service(row: &QueryResult) -> Result<Service, DbError> {
    let access: String = row.try_get("", "default_access")?;
    let text = |column: &str| -> Result<Arc<str>, DbError> {
        Ok(Arc::from(row.try_get::<String>("", column)?))
    };
    let openapi: Option<String> = row.try_get("", "openapi_url")?;
    Ok(Service {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        name: text("name")?,
        display_name: text("display_name")?,
        description: text("description")?,
        owner: from_json(row, "owner")?,
        default_access: if access == "public" {
            DefaultAccess::Public
        } else {
            DefaultAccess::Authenticated
        },
        forward_credentials: row.try_get("", "forward_credentials")?,
        identity_statement: row.try_get("", "identity_statement")?,
        openapi_url: openapi.map(Arc::from),
        settings_schema: from_opt_json::<Value>(row, "settings_schema")?.map(Arc::new),
        console: from_opt_json::<Value>(row, "console")?.map(Arc::new),
        contributions: Arc::new(from_json::<Contributions>(row, "contributions")?),
        enabled: row.try_get("", "enabled")?,
        disabled_for: Arc::from([]),
        versions: BTreeMap::new(),
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
        builtin: false,
        create_index: to_u64(row, "create_index")?,
    })
}

type Versions = HashMap<Uuid, BTreeMap<Arc<str>, Version>>;

async fn versions(conn: &impl ConnectionTrait, ids: Option<&[Uuid]>) -> Result<Versions, DbError> {
    let mut endpoints = endpoints(conn, ids).await?;
    let mut select = Query::select();
    select
        .columns(["service_id", "version", "created_at"])
        .from(VERSIONS);
    only(&mut select, "service_id", ids);
    let mut out = Versions::new();
    for row in &conn.query_all(&select).await? {
        let service: Uuid = row.try_get("", "service_id")?;
        let version: String = row.try_get("", "version")?;
        let of = Version {
            created_at: row.try_get("", "created_at")?,
            endpoints: endpoints
                .remove(&(service, version.clone()))
                .unwrap_or_default()
                .into(),
        };
        out.entry(service).or_default().insert(version.into(), of);
    }
    Ok(out)
}

type Endpoints = HashMap<(Uuid, String), Vec<Endpoint>>;

async fn endpoints(
    conn: &impl ConnectionTrait,
    ids: Option<&[Uuid]>,
) -> Result<Endpoints, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "service_id",
            "version",
            "method",
            "path",
            "description",
            "required_roles",
            "required_permissions",
            "is_public",
            "rate_limit",
            "timeout_ms",
            "cache",
            "idempotency_key",
        ])
        .from(ENDPOINTS)
        .order_by("service_id", Order::Asc)
        .order_by("version", Order::Asc)
        .order_by("position", Order::Asc);
    only(&mut select, "service_id", ids);
    let mut out = Endpoints::new();
    for row in &conn.query_all(&select).await? {
        let service: Uuid = row.try_get("", "service_id")?;
        let version: String = row.try_get("", "version")?;
        let method: String = row.try_get("", "method")?;
        let timeout: Option<i64> = row.try_get("", "timeout_ms")?;
        let view = EndpointView {
            version: None,
            method: (!method.is_empty()).then_some(method),
            path: row.try_get("", "path")?,
            description: row.try_get("", "description")?,
            is_public: row.try_get("", "is_public")?,
            required_roles: from_json(row, "required_roles")?,
            required_permissions: from_json(row, "required_permissions")?,
            rate_limit: from_opt_json(row, "rate_limit")?,
            timeout_ms: timeout.and_then(|t| u32::try_from(t).ok()),
            cache: from_opt_json(row, "cache")?,
            idempotency_key: row.try_get("", "idempotency_key")?,
        };
        let endpoint = view.endpoint(Some(&version));
        out.entry((service, version)).or_default().push(endpoint);
    }
    Ok(out)
}

async fn disabled(
    conn: &impl ConnectionTrait,
    ids: Option<&[Uuid]>,
) -> Result<HashMap<Uuid, Vec<Uuid>>, DbError> {
    let mut select = Query::select();
    select
        .columns(["tenant_id", "service_id"])
        .from(TENANTS)
        .and_where(Expr::col("enabled").eq(false))
        .order_by("tenant_id", Order::Asc);
    only(&mut select, "service_id", ids);
    let mut out: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for row in &conn.query_all(&select).await? {
        out.entry(row.try_get("", "service_id")?)
            .or_default()
            .push(row.try_get("", "tenant_id")?);
    }
    Ok(out)
}
