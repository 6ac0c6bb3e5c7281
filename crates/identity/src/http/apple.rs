//! `/login/apple`, `/webhooks/apple`, `/apple`: coming in with Apple, its notices, and how far it is set up (ID-65…69).

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use portico_base::{Access, FieldFault, Secret};
use portico_web::{ApiResult, Came, Cx, Json, Problem, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::way::{Way, cookie};
use super::{Api, login};
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::error::{Error, Result, reason};
use crate::ops::apple::{self as ops, Entrant, Form, Start};
use crate::ops::login::tenant_of;
use crate::permissions::APPLE_READ;

/// Cookie that binds a browser to the state with which it was sent to Apple.
const BROWSER: (&str, &str) = ("__Host-", "portico_ap");
/// As long as a state lives.
const BROWSER_AGE_S: u32 = 600;
/// Largest body that Apple sends, or lets a browser send.
const LARGEST: usize = 64 * 1024;

/// Whose nonce it is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = AppleNonceWish)]
pub(super) struct NonceWish {
    /// Slug of the tenant; the host's, else `default` without it.
    tenant: Option<String>,
}

/// A nonce for one native login.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppleNonce)]
pub(super) struct Nonce {
    /// Raw: comes back to us with the id token.
    nonce: String,
    /// SHA-256 of it in hexadecimal: goes to Apple.
    nonce_sha256: String,
    expires_in_s: i64,
}

/// What an app got from Apple.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AppleLogin)]
pub(super) struct LoginBody {
    /// Apple's identity token.
    #[schema(value_type = String)]
    id_token: Secret<String>,
    /// Raw, of `POST /login/apple/nonce`.
    #[schema(value_type = String)]
    nonce: Secret<String>,
    /// Apple's authorization code: lets us tell Apple when the account ends.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Display name of a user that is made; Apple gives it to the app at the first consent only.
    #[serde(default)]
    name: Option<String>,
    /// Of a user that is made: `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
    /// Slug of the tenant, as with the nonce.
    #[serde(default)]
    tenant: Option<String>,
    /// Token of an invitation, where only those who are invited can register.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    invitation: Option<Secret<String>>,
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
}

/// Where a browser wants to end.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StartQuery {
    /// One of `identity.apple.redirect_uris`, whole. Comes back with `code` (for `POST /login/exchange`, one
    /// minute), or with `error`.
    return_url: String,
    /// The client's own text, which comes back as it is: a client checks that it began the login itself.
    state: Option<String>,
    /// Slug of a tenant; the host's own comes first, `default` last.
    tenant: Option<String>,
}

/// What Apple sends.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = AppleNotice)]
pub(super) struct NoticeBody {
    /// Signed by Apple.
    #[schema(value_type = String)]
    payload: Secret<String>,
}

/// What Apple lets a browser post.
#[derive(ToSchema)]
#[schema(as = AppleCallback)]
#[expect(dead_code, reason = "describes the form that the use-case reads")]
pub(super) struct CallbackForm {
    state: String,
    code: Option<String>,
    id_token: Option<String>,
    /// JSON with the name, at the first consent only.
    user: Option<String>,
    error: Option<String>,
}

/// Whose account with Apple is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
}

/// How far Sign in with Apple is set up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppleStatus)]
pub(super) struct Status {
    /// Apps can log in.
    native: bool,
    /// Browsers can log in.
    web: bool,
    /// Settings that keep it from being used.
    faults: Vec<Fault>,
    /// To be entered at Apple as return URL of the Services ID.
    callback_url: String,
    /// To be entered at Apple as endpoint of server-to-server notices.
    notices_url: String,
}

/// What is wrong with a setting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppleFault)]
pub(super) struct Fault {
    /// Key of the setting.
    setting: String,
    code: String,
    message: String,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(nonce))
        .add(Access::Public, routes!(sign_in))
        .add(Access::Public, routes!(start))
        .add_foreign(routes!(callback))
        .add(Access::Public, routes!(notice))
        .add(Access::Permission(APPLE_READ), routes!(status))
}

/// Make a nonce for Apple
///
/// For a login in an app; good once, for ten minutes.
#[utoipa::path(post, path = "/login/apple/nonce", tag = "identity", request_body = NonceWish,
    responses((status = 200, body = Nonce), (status = 403), (status = 429)))]
pub(super) async fn nonce(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(wish): Json<NonceWish>,
) -> ApiResult<Response> {
    let place = tenant_of(&core, way.host(), wish.tenant.as_deref());
    let (nonce, ends) = ops::nonce(&core, &cx, place).await?;
    let nonce = Nonce {
        nonce_sha256: ops::hashed(nonce.expose()),
        nonce: nonce.expose().clone(),
        expires_in_s: (ends - cx.now()).num_seconds(),
    };
    Ok(no_store(Json(nonce).into_response()))
}

/// Log in with Apple
///
/// With what an app got from Apple. The user is found by Apple's subject, or made where registration is open;
/// `link_offered` means that somebody has the address already and can link the identity after logging in.
#[utoipa::path(post, path = "/login/apple", tag = "identity", request_body = LoginBody,
    responses((status = 200, body = LoginResult), (status = 400), (status = 401), (status = 403),
        (status = 429), (status = 503)))]
pub(super) async fn sign_in(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<LoginBody>,
) -> ApiResult<Response> {
    let place = tenant_of(&core, way.host(), body.tenant.as_deref());
    let wish = Entrant {
        id_token: body.id_token,
        nonce: body.nonce,
        code: body.code,
        name: body.name,
        locale: body.locale,
        invitation: body.invitation,
        device: way.device(body.device),
        transport: way.transport(body.transport)?,
    };
    let result = Box::pin(ops::login(&core, &cx, place, wish)).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Begin a login with Apple in a browser
///
/// Sends the browser to Apple and binds it to the login by a cookie. Apple sends it back to us, and we to
/// `return_url`.
#[utoipa::path(get, path = "/login/apple/start", tag = "identity", params(StartQuery),
    responses((status = 302), (status = 400), (status = 403), (status = 429)))]
pub(super) async fn start(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    browser: Browser,
    Query(query): Query<StartQuery>,
) -> ApiResult<Response> {
    let wish = Start {
        place: tenant_of(&core, way.host(), query.tenant.as_deref()),
        host: way.host().map(str::to_owned),
        return_url: query.return_url,
        state: query.state,
        browser: browser.over_tls()?,
        links: false,
    };
    let started = ops::start(&core, &cx, wish).await?;
    let mut response = redirect(StatusCode::FOUND, &started.location)?;
    bind(response.headers_mut(), &started.browser);
    Ok(response)
}

/// Come back from Apple
///
/// Apple lets the browser post this form. Answers with a redirect to the `return_url` of the beginning.
#[utoipa::path(post, path = "/login/apple/callback", tag = "identity",
    request_body(content = CallbackForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303), (status = 400), (status = 401), (status = 429)))]
pub(super) async fn callback(
    State(core): State<Api>,
    Cx(cx): Cx,
    browser: Browser,
    body: Bytes,
) -> ApiResult<Response> {
    let form: Form = serde_urlencoded::from_bytes(small(&body)?).map_err(|_| {
        let fault = FieldFault::new("body", "form", "must be the form that Apple makes");
        Problem::invalid("identity.invalid", vec![fault])
    })?;
    let location = Box::pin(ops::callback(&core, &cx, form, browser.mark)).await?;
    Ok(redirect(StatusCode::SEE_OTHER, &location)?)
}

/// Take a notice of Apple
///
/// Signed by Apple: consent was revoked, the Apple account deleted, mail to a private address switched.
#[utoipa::path(post, path = "/webhooks/apple", tag = "identity", request_body = NoticeBody,
    responses((status = 200), (status = 400), (status = 401), (status = 503)))]
pub(super) async fn notice(
    State(core): State<Api>,
    Cx(cx): Cx,
    body: Bytes,
) -> ApiResult<StatusCode> {
    let notice: NoticeBody = portico_web::extract::parse(small(&body)?)?;
    ops::take_notice(&core, &cx, &notice.payload).await?;
    Ok(StatusCode::OK)
}

/// Read how Sign in with Apple is set up
///
/// What is wrong with the settings, and the addresses that are to be entered at Apple.
#[utoipa::path(get, path = "/apple", tag = "identity", params(StatusQuery),
    responses((status = 200, body = Status), (status = 403), (status = 404)))]
pub(super) async fn status(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<StatusQuery>,
) -> ApiResult<Json<Status>> {
    let status = ops::status(&core, &cx, query.tenant.as_deref()).await?;
    let fault = |fault: FieldFault| Fault {
        setting: fault.field,
        code: fault.code,
        message: fault.message,
    };
    Ok(Json(Status {
        native: status.native,
        web: status.web,
        faults: status.faults.into_iter().map(fault).collect(),
        callback_url: status.callback_url,
        notices_url: status.notices_url,
    }))
}

/// The browser behind a request, as its cookie knows it.
pub(super) struct Browser {
    mark: Option<Secret<String>>,
    https: bool,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Browser {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _state: &S,
    ) -> std::result::Result<Self, Problem> {
        let came = parts.extensions.get::<Came>().copied().unwrap_or_default();
        // The cookie is sent by another site's form, which browsers do over TLS alone.
        let mark = cookie(&parts.headers, true, BROWSER.0, BROWSER.1);
        Ok(Self {
            mark: mark.map(Secret::from),
            https: came.https,
        })
    }
}

impl Browser {
    /// What the cookie says; without TLS it would not come back, and Apple knows no such address.
    pub(super) fn over_tls(self) -> Result<Option<Secret<String>>> {
        if self.https {
            Ok(self.mark)
        } else {
            Err(reason::HTTPS_REQUIRED.into())
        }
    }
}

/// Gives the browser the cookie that binds it.
pub(super) fn bind(headers: &mut HeaderMap, browser: &Secret<String>) {
    let text = format!(
        "{}{}={}; Path=/; Max-Age={BROWSER_AGE_S}; HttpOnly; Secure; SameSite=None",
        BROWSER.0,
        BROWSER.1,
        browser.expose()
    );
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true);
        headers.append(header::SET_COOKIE, value);
    }
}

/// An answer that no cache keeps.
pub(super) fn no_store(mut response: Response) -> Response {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}

fn redirect(status: StatusCode, location: &str) -> Result<Response> {
    let mut location =
        HeaderValue::try_from(location).map_err(|e| Error::Internal(e.to_string()))?;
    location.set_sensitive(true);
    let mut response = no_store(status.into_response());
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    // The code is in the address: the page tells nobody where it was opened from.
    let policy = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, policy);
    Ok(response)
}

fn small(body: &Bytes) -> std::result::Result<&Bytes, Problem> {
    if body.len() > LARGEST {
        return Err(Problem::new(413, "system.body_too_large"));
    }
    Ok(body)
}
