//! `/api-keys` and `/me/api-keys`: keys for programs (ID-130…136).

use axum::extract::{Path, State};
use chrono::Duration;
use http::{HeaderName, HeaderValue, StatusCode, header};
use portico_base::{Access, Context, Secret, Timestamp, mask};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, page, routes};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::api_key::{ApiKey, Written};
use crate::error::{Error, reason};
use crate::ops::api_keys::{self as ops, Edit, NewKey, Wanted, Whose};
use crate::permissions::{API_KEY_READ, API_KEY_WRITE, PII_READ};

/// A wish for a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApiKeyWish)]
pub(super) struct Wish {
    /// What it is for, 1 to 64 characters.
    name: String,
    /// Whose things it reaches; default the caller. Not for `/me/api-keys`.
    #[serde(default)]
    owner_user_id: Option<Uuid>,
    /// Permissions, all of them the owner's.
    #[serde(default)]
    scopes: Vec<String>,
    /// Services that it opens; none means all.
    #[serde(default)]
    services: Vec<String>,
    /// Addresses and networks that it is used from; none means all.
    #[serde(default)]
    cidrs: Vec<String>,
    /// Requests a second.
    #[serde(default)]
    per_s: Option<f64>,
    /// When it ends, at most two years ahead; default `identity.api_key.default_days`.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// What changes of a key; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApiKeyChange)]
pub(super) struct Change {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    services: Option<Vec<String>>,
    #[serde(default)]
    cidrs: Option<Vec<String>>,
    /// `null` takes the limit away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    per_s: Option<Option<f64>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// How a key is rotated.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApiKeyRotation)]
pub(super) struct Rotation {
    /// Seconds for which the old secret stays good: 0 to 604800.
    #[serde(default)]
    overlap_s: u32,
}

/// A key as it is shown: never its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(super) struct Shown {
    id: Uuid,
    /// How its text begins.
    prefix: String,
    tenant_id: Uuid,
    owner_user_id: Uuid,
    name: String,
    scopes: Vec<String>,
    services: Vec<String>,
    cidrs: Vec<String>,
    per_s: Option<f64>,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// The secret before this one is good until then.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<Timestamp>,
    /// To the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Masked for whoever may not read personal data.
    last_used_ip: Option<String>,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A key with its text, shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewApiKey)]
pub(super) struct Made {
    /// The whole key: it is not kept and cannot be shown again.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    key: Secret<String>,
    #[serde(flatten)]
    shown: Shown,
}

/// Which keys are listed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Slug or id, for administrators of all tenants.
    tenant: Option<String>,
    /// Keys of one user.
    owner_user_id: Option<Uuid>,
}

type MadeAnswer = (StatusCode, [(HeaderName, HeaderValue); 1], Json<Made>);

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = Access::Permission(API_KEY_READ);
    let write = Access::Permission(API_KEY_WRITE);
    let own = Access::Authenticated;
    all.add(read.clone(), routes!(list))
        .add(read.clone(), routes!(get))
        .add(read, routes!(list_of))
        .add(write.clone(), routes!(create))
        .add(write.clone(), routes!(edit, revoke))
        .add(write, routes!(rotate))
        .add(own.clone(), routes!(list_own, create_own))
        .add(own.clone(), routes!(revoke_own))
        .add(own, routes!(rotate_own))
}

/// List API keys
///
/// Newest first, never their secrets.
#[utoipa::path(get, path = "/api-keys", tag = "identity", params(Filter),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(filter): Query<Filter>,
) -> ApiResult<Json<Page<Shown>>> {
    answer(&core, &cx, Whose::Any, filter).await
}

/// List a user's API keys
///
/// Newest first, never their secrets.
#[utoipa::path(get, path = "/users/{id}/api-keys", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the user"), page::PageQuery),
    responses((status = 200, body = Page<Shown>), (status = 404)))]
pub(super) async fn list_of(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(query): Query<page::PageQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let owner = Uuid::parse_str(&id).map_err(|_| Error::from(reason::USER_NOT_FOUND))?;
    let filter = Filter {
        limit: query.limit,
        cursor: query.cursor,
        tenant: None,
        owner_user_id: Some(owner),
    };
    answer(&core, &cx, Whose::Any, filter).await
}

/// List own API keys
///
/// Newest first, never their secrets.
#[utoipa::path(get, path = "/me/api-keys", tag = "identity", params(page::PageQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list_own(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<page::PageQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let filter = Filter {
        limit: query.limit,
        cursor: query.cursor,
        tenant: None,
        owner_user_id: None,
    };
    answer(&core, &cx, Whose::Own, filter).await
}

/// Read an API key
///
/// Never its secret.
#[utoipa::path(get, path = "/api-keys/{id}", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 200, body = Shown), (status = 404)))]
pub(super) async fn get(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    let key = ops::get(&core, &cx, parse(&id)?).await?;
    Ok(Json(Shown::of(key, &cx)))
}

/// Make an API key
///
/// Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/api-keys", tag = "identity", request_body = Wish,
    responses((status = 201, body = Made), (status = 403), (status = 409)))]
pub(super) async fn create(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<MadeAnswer> {
    let made = ops::create(&core, &cx, Whose::Any, wish.read()).await?;
    Ok(hand_out(StatusCode::CREATED, made, &cx))
}

/// Make an own API key
///
/// Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/me/api-keys", tag = "identity", request_body = Wish,
    responses((status = 201, body = Made), (status = 403), (status = 409)))]
pub(super) async fn create_own(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<MadeAnswer> {
    if wish.owner_user_id.is_some() {
        return Err(Error::field("owner_user_id", "unknown", "is the caller here").into());
    }
    let made = ops::create(&core, &cx, Whose::Own, wish.read()).await?;
    Ok(hand_out(StatusCode::CREATED, made, &cx))
}

/// Change an API key
///
/// Its name, end and limits; the scopes within what its owner may do.
#[utoipa::path(patch, path = "/api-keys/{id}", tag = "identity", request_body = Change,
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 200, body = Shown), (status = 403), (status = 404)))]
pub(super) async fn edit(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(change): Json<Change>,
) -> ApiResult<Json<Shown>> {
    let edit = Edit {
        name: change.name,
        scopes: change.scopes,
        services: change.services,
        cidrs: change.cidrs,
        per_s: change.per_s,
        expires_at: change.expires_at,
    };
    let key = ops::edit(&core, &cx, parse(&id)?, edit).await?;
    Ok(Json(Shown::of(key, &cx)))
}

/// Revoke an API key
///
/// It is refused everywhere within a second.
#[utoipa::path(delete, path = "/api-keys/{id}", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 204), (status = 404)))]
pub(super) async fn revoke(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::revoke(&core, &cx, Whose::Any, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke an own API key
///
/// It is refused everywhere within a second.
#[utoipa::path(delete, path = "/me/api-keys/{id}", tag = "identity",
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 204), (status = 404)))]
pub(super) async fn revoke_own(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::revoke(&core, &cx, Whose::Own, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate an API key
///
/// The new text is in this answer and nowhere else; the old one stays good for the overlap.
#[utoipa::path(post, path = "/api-keys/{id}/rotate", tag = "identity", request_body = Rotation,
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 200, body = Made), (status = 403), (status = 404)))]
pub(super) async fn rotate(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<Rotation>,
) -> ApiResult<MadeAnswer> {
    let overlap = Duration::seconds(i64::from(body.overlap_s));
    let made = ops::rotate(&core, &cx, Whose::Any, parse(&id)?, overlap).await?;
    Ok(hand_out(StatusCode::OK, made, &cx))
}

/// Rotate an own API key
///
/// The new text is in this answer and nowhere else; the old one stays good for the overlap.
#[utoipa::path(post, path = "/me/api-keys/{id}/rotate", tag = "identity", request_body = Rotation,
    params(("id" = Uuid, Path, description = "id of the key")),
    responses((status = 200, body = Made), (status = 403), (status = 404)))]
pub(super) async fn rotate_own(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<Rotation>,
) -> ApiResult<MadeAnswer> {
    let overlap = Duration::seconds(i64::from(body.overlap_s));
    let made = ops::rotate(&core, &cx, Whose::Own, parse(&id)?, overlap).await?;
    Ok(hand_out(StatusCode::OK, made, &cx))
}

impl Wish {
    fn read(self) -> NewKey {
        NewKey {
            owner: self.owner_user_id,
            name: self.name,
            written: Written {
                scopes: self.scopes,
                services: self.services,
                cidrs: self.cidrs,
                per_s: self.per_s,
            },
            expires_at: self.expires_at,
        }
    }
}

impl Shown {
    fn of(key: ApiKey, cx: &Context) -> Self {
        let own = cx.principal().user() == Some(key.owner);
        let plain = own || cx.principal().may(&PII_READ);
        let ip = key.last_used_ip;
        Self {
            id: key.id,
            prefix: format!("ptk_live_{}", key.key_id),
            tenant_id: key.tenant,
            owner_user_id: key.owner,
            name: key.name,
            scopes: texts(&key.wish.scopes),
            services: key.wish.services,
            cidrs: texts(&key.wish.networks),
            per_s: key.wish.per_s,
            expires_at: key.expires_at,
            previous_until: key
                .previous
                .map(|(_, until)| until)
                .filter(|until| *until > cx.now()),
            last_used_at: key.last_used_at,
            last_used_ip: ip.map(|ip| if plain { ip } else { mask::MASKED.to_owned() }),
            created_by: key.created_by,
            created_at: key.created_at,
            updated_at: key.updated_at,
        }
    }
}

async fn answer(
    core: &Api,
    cx: &Context,
    whose: Whose,
    filter: Filter,
) -> ApiResult<Json<Page<Shown>>> {
    let limit = page::limit(filter.limit)?;
    let after = filter
        .cursor
        .as_deref()
        .map(Cursor::<Uuid>::decode)
        .transpose()?;
    let wanted = Wanted {
        tenant: filter.tenant,
        owner: filter.owner_user_id,
        after: after.map(|cursor| cursor.0),
    };
    let keys = ops::list(core, cx, whose, &wanted, limit as u64 + 1).await?;
    let items = keys.into_iter().map(|key| Shown::of(key, cx)).collect();
    Ok(Json(Page::cut(items, limit, |key: &Shown| key.id)))
}

fn hand_out(status: StatusCode, (key, text): (ApiKey, Secret<String>), cx: &Context) -> MadeAnswer {
    let made = Made {
        key: text,
        shown: Shown::of(key, cx),
    };
    let secret = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, secret, Json(made))
}

fn parse(id: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(id).map_err(|_| reason::NOT_FOUND.into())
}

fn texts<T: ToString>(of: &[T]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

/// A member that is there, `null` or not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn exposed<S: serde::Serializer>(
    secret: &Secret<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
