//! `/me/identities`, `/users/{id}/identities`: identities of other providers, linked and unlinked (ID-68, ID-84).

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use portico_base::{Access, Secret, Timestamp};
use portico_web::{ApiResult, Cx, Json, Page, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::apple::{Browser, bind, no_store};
use super::way::Way;
use crate::domain::contact::masked_email;
use crate::domain::identity::ExternalIdentity;
use crate::error::{Error, Result};
use crate::ops::apple::{self as ops, Start, With};
use crate::permissions::{PII_READ, USER_READ};

/// Providers whose identities can be linked.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IdentityProvider)]
enum Provider {
    Apple,
}

/// An identity that is the caller's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IdentityLink)]
struct LinkBody {
    #[expect(dead_code, reason = "there is one, and clients name it")]
    provider: Provider,
    /// With a nonce: Apple's identity token, as an app got it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    id_token: Option<Secret<String>>,
    /// Raw, of `POST /login/apple/nonce`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    nonce: Option<Secret<String>>,
    /// Apple's authorization code.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Instead of these: the ticket of a login that answered `link_offered`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ticket: Option<Secret<String>>,
}

/// Where the browser ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IdentityLinkStart)]
struct StartBody {
    /// One of `identity.apple.redirect_uris`, whole. Comes back with `linked=apple`, or with `error`.
    return_url: String,
    /// The client's own text, which comes back as it is.
    #[serde(default)]
    state: Option<String>,
}

/// Where the browser goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IdentityLinkStarted)]
struct StartedView {
    url: String,
}

/// An identity of another provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
struct View {
    id: Uuid,
    /// `apple`.
    provider: String,
    /// As the provider has it. Masked for callers without `identity:pii:read`, unless it is their own.
    email: Option<String>,
    email_verified: bool,
    /// The provider made the address; it forwards mail to a person who hides theirs.
    private_email: bool,
    /// Mail to a private address is forwarded.
    email_enabled: bool,
    #[schema(value_type = String, format = DateTime)]
    linked_at: Timestamp,
    /// Last proof.
    #[schema(value_type = String, format = DateTime)]
    proved_at: Timestamp,
}

impl View {
    fn of(identity: ExternalIdentity, masked: bool) -> Self {
        let mask = |address: String| {
            if masked {
                masked_email(&address)
            } else {
                address
            }
        };
        Self {
            id: identity.id,
            provider: identity.provider,
            email: identity.email.map(mask),
            email_verified: identity.email_verified,
            private_email: identity.is_private_email,
            email_enabled: identity.email_enabled,
            linked_at: identity.linked_at,
            proved_at: identity.proved_at,
        }
    }
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Authenticated, routes!(list, link))
        .add(Access::Authenticated, routes!(start))
        .add(Access::Authenticated, routes!(unlink))
        .add(Access::Permission(USER_READ), routes!(of_user))
}

/// List own identities
///
/// Of other providers, oldest first.
#[utoipa::path(get, path = "/me/identities", tag = "me", responses((status = 200, body = Page<View>)))]
async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Page<View>>> {
    Ok(Json(whole(ops::own(&core, &cx).await?, false)))
}

/// Link an identity
///
/// By the provider's statement, or by the ticket of a login that found the own address. Needs a fresh session.
#[utoipa::path(post, path = "/me/identities", tag = "me", request_body = LinkBody,
    responses((status = 201, body = View), (status = 400), (status = 401), (status = 409), (status = 503)))]
async fn link(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<LinkBody>,
) -> ApiResult<(StatusCode, Json<View>)> {
    let linked = Box::pin(ops::link(&core, &cx, with(body)?)).await?;
    Ok((StatusCode::CREATED, Json(View::of(linked, false))))
}

/// Begin linking Apple in a browser
///
/// Answers the address that the browser goes to, and binds the browser by a cookie. Needs a fresh session.
#[utoipa::path(post, path = "/me/identities/apple/start", tag = "me", request_body = StartBody,
    responses((status = 200, body = StartedView), (status = 400), (status = 401), (status = 403)))]
async fn start(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    browser: Browser,
    Json(body): Json<StartBody>,
) -> ApiResult<Response> {
    let wish = Start {
        place: None,
        host: way.host().map(str::to_owned),
        return_url: body.return_url,
        state: body.state,
        browser: browser.over_tls()?,
        links: true,
    };
    let started = ops::start(&core, &cx, wish).await?;
    let url = started.location;
    let mut response = no_store(Json(StartedView { url }).into_response());
    bind(response.headers_mut(), &started.browser);
    Ok(response)
}

/// Unlink an identity
///
/// The provider is told. The last way to log in stays. Needs a fresh session.
#[utoipa::path(delete, path = "/me/identities/{id}", tag = "me",
    params(("id" = Uuid, Path, description = "id of the identity")),
    responses((status = 204), (status = 401), (status = 404), (status = 409)))]
async fn unlink(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    ops::unlink(&core, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a user's identities
///
/// Of other providers, oldest first.
#[utoipa::path(get, path = "/users/{id}/identities", tag = "users",
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 200, body = Page<View>), (status = 403), (status = 404)))]
async fn of_user(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<Page<View>>> {
    let masked = !cx.principal().may(&PII_READ);
    Ok(Json(whole(ops::of_user(&core, &cx, id).await?, masked)))
}

fn whole(all: Vec<ExternalIdentity>, masked: bool) -> Page<View> {
    let view = |identity| View::of(identity, masked);
    Page {
        items: all.into_iter().map(view).collect(),
        next_cursor: None,
    }
}

fn with(body: LinkBody) -> Result<With> {
    match (body.id_token, body.nonce, body.code, body.ticket) {
        (Some(id_token), Some(nonce), code, None) => Ok(With::Statement {
            id_token,
            nonce,
            code,
        }),
        (None, None, None, Some(ticket)) => Ok(With::Ticket(ticket)),
        _ => {
            let message = "an id token with its nonce is needed, or a ticket alone";
            Err(Error::field("id_token", "required", message))
        }
    }
}
