//! `/login/sms`, `/me/phone`, `/sms`: login codes, the own number, and the administration of messages (ID-50…59).

use axum::extract::{Path, State};
use axum::response::Response;
use chrono::NaiveDate;
use http::StatusCode;
use portico_base::{Access, Secret, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, page, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::way::Way;
use super::{Api, login};
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::domain::otp::{Purpose, is_code};
use crate::domain::sms::SmsRecord;
use crate::error::Error;
use crate::ops::login::tenant_of;
use crate::ops::sms as ops;
use crate::permissions::{SMS_READ, SMS_WRITE};
use crate::store::sms_records::Filter;

/// A number that is to get a code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SmsCodeWish)]
struct SendBody {
    /// E.164, or the national form of the default country.
    phone: String,
    /// `login` or `reset`; with `bind` the caller's own number, as `POST /me/phone`.
    #[serde(default = "login_purpose")]
    purpose: Purpose,
    /// The client's own name for its device; the code is good on this device only.
    #[serde(default)]
    device_id: Option<String>,
    /// Slug of the tenant; the host's, else `default` without it.
    #[serde(default)]
    tenant: Option<String>,
    /// Language of the message: `zh-CN` (default) or `en`.
    #[serde(default)]
    locale: Option<String>,
    /// Of an earlier answer: another code for the same transaction.
    #[serde(default)]
    transaction_id: Option<Uuid>,
}

/// A code was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsCodeSent)]
struct SentBody {
    transaction_id: Uuid,
    /// Another code can be asked for after so many seconds.
    resend_after_s: u32,
    /// The code is good for so many seconds.
    expires_in_s: u32,
}

/// A code as it arrived.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SmsLogin)]
struct VerifyBody {
    transaction_id: Uuid,
    /// Six digits.
    #[schema(value_type = String)]
    code: Secret<String>,
    /// Slug of the tenant, as with the wish.
    #[serde(default)]
    tenant: Option<String>,
    /// With the same `device_id` as the wish.
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
    /// Of a user that is made: `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
}

/// A number that is to be one's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnPhone)]
struct PhoneBody {
    /// E.164, or the national form of the default country.
    phone: String,
    /// Of an earlier answer: another code for the same transaction.
    #[serde(default)]
    transaction_id: Option<Uuid>,
}

/// The code that came to it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnPhoneConfirmation)]
struct PhoneCodeBody {
    transaction_id: Uuid,
    /// Six digits.
    #[schema(value_type = String)]
    code: Secret<String>,
}

/// Which attempts are listed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RecordQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
    provider: Option<String>,
    /// `sent`, `failed`, `ambiguous`, `delivered`, `undelivered`.
    status: Option<String>,
    /// The whole number.
    phone: Option<String>,
    transaction_id: Option<Uuid>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One provider was asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsRecord)]
struct RecordView {
    id: Uuid,
    transaction_id: Uuid,
    provider: String,
    attempt_no: u32,
    /// Masked.
    phone: String,
    /// Calling code.
    country: String,
    status: String,
    /// `sent`, `next`, `next_alert`, `stop`, `stop_alert`, `ambiguous`.
    class: String,
    /// News about the account and not a code.
    notice: bool,
    provider_code: String,
    provider_message: String,
    receipt_id: Option<String>,
    latency_ms: u32,
    segments: u32,
    /// Millionths of the account's currency.
    cost_micro: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// Which days are shown.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatsQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
    /// Today and the days before it, 1 to 31, default 7.
    days: Option<u32>,
}

/// Figures by provider and day of UTC.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsStats)]
struct StatsBody {
    /// Newest day first.
    items: Vec<DayView>,
    /// There are more attempts than are counted here.
    truncated: bool,
}

/// Figures of a provider on a day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsDay)]
struct DayView {
    #[schema(value_type = String, format = Date)]
    day: NaiveDate,
    provider: String,
    sent: u32,
    failed: u32,
    /// No answer came: perhaps delivered.
    ambiguous: u32,
    /// Codes that came back.
    verified: u32,
    conversion_percent: Option<f64>,
    p95_ms: u32,
    segments: u64,
    /// Millionths of the account's currency.
    cost_micro: i64,
}

/// Whose chain is shown.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChainQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
}

/// The chain of providers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsChain)]
struct ChainBody {
    /// In the order in which they are asked.
    items: Vec<ProviderView>,
    /// Beginnings of the numbers that get messages.
    countries: Vec<String>,
    /// Numbers with a fixed code that get no message.
    test_numbers: Vec<TestNumberView>,
    /// What gets no codes now, in the whole installation.
    blocks: Vec<BlockView>,
    /// What somebody should look at.
    warnings: Vec<&'static str>,
}

/// A provider, as the process that answers knows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsProvider)]
struct ProviderView {
    name: String,
    /// Why it is not used; absent when it is.
    unused: Option<&'static str>,
    /// Failures in a row; five open the breaker.
    failures: u32,
    /// The breaker is open until then.
    #[schema(value_type = Option<String>, format = DateTime)]
    open_until: Option<Timestamp>,
    /// It refuses our configuration since then.
    #[schema(value_type = Option<String>, format = DateTime)]
    misconfigured_since: Option<Timestamp>,
    /// What its codes mean; a trailing `*` stands for any rest.
    codes: Vec<CodeView>,
}

/// What a code of a provider means.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsProviderCode)]
struct CodeView {
    code: &'static str,
    class: &'static str,
}

/// A number for tests.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsTestNumber)]
struct TestNumberView {
    /// Masked.
    phone: String,
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// Something that gets no codes for a while.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsBlock)]
struct BlockView {
    /// `prefix:<hash>`, `country:+86`, `budget:hour`, `budget:day`.
    subject: String,
    /// `conversion`, `budget`.
    reason: String,
    sent: u32,
    verified: u32,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// What a provider said to a try.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SmsTest)]
struct TestBody {
    /// `sent`, `next`, `next_alert`, `stop`, `stop_alert`, `ambiguous`.
    class: &'static str,
    provider_code: String,
    provider_message: String,
    receipt_id: Option<String>,
    latency_ms: u32,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(send))
        .add(Access::Public, routes!(verify))
        .add(Access::Authenticated, routes!(begin_phone, remove_phone))
        .add(Access::Authenticated, routes!(confirm_phone))
        .add(Access::Permission(SMS_READ), routes!(records))
        .add(Access::Permission(SMS_READ), routes!(stats))
        .add(Access::Permission(SMS_READ), routes!(chain))
        .add(Access::Permission(SMS_WRITE), routes!(test))
}

/// Send a login code
///
/// Numbers that nobody has answer as others do.
#[utoipa::path(post, path = "/login/sms/send", tag = "identity", request_body = SendBody,
    responses((status = 202, body = SentBody), (status = 400), (status = 429), (status = 503)))]
async fn send(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<SendBody>,
) -> ApiResult<(StatusCode, Json<SentBody>)> {
    if body.purpose == Purpose::Bind {
        let sent = ops::begin_phone(&core, &cx, &body.phone, body.transaction_id).await?;
        return Ok((StatusCode::ACCEPTED, Json(sent.into())));
    }
    let place = tenant_of(&core, way.host(), body.tenant.as_deref());
    let ask = ops::Ask {
        phone: body.phone,
        purpose: body.purpose,
        device: body
            .device_id
            .or_else(|| way.device_id().map(str::to_owned)),
        locale: body.locale,
        transaction: body.transaction_id,
    };
    let sent = Box::pin(ops::ask(&core, &cx, place, ask)).await?;
    Ok((StatusCode::ACCEPTED, Json(sent.into())))
}

/// Log in with a code
///
/// A number that nobody has becomes a user where registration is open.
#[utoipa::path(post, path = "/login/sms/verify", tag = "identity", request_body = VerifyBody,
    responses((status = 200, body = LoginResult), (status = 401), (status = 403), (status = 429)))]
async fn verify(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<VerifyBody>,
) -> ApiResult<Response> {
    let place = tenant_of(&core, way.host(), body.tenant.as_deref());
    let wish = ops::Login {
        transaction: body.transaction_id,
        code: body.code,
        device: way.device(body.device),
        transport: way.transport(body.transport)?,
        locale: body.locale,
    };
    let result = Box::pin(ops::login(&core, &cx, place, wish)).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Ask for a code to an own number
///
/// The number is taken into use when its code is confirmed; needs a recent login.
#[utoipa::path(post, path = "/me/phone", tag = "identity", request_body = PhoneBody,
    responses((status = 202, body = SentBody), (status = 400), (status = 401), (status = 429), (status = 503)))]
async fn begin_phone(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<PhoneBody>,
) -> ApiResult<(StatusCode, Json<SentBody>)> {
    let sent = Box::pin(ops::begin_phone(
        &core,
        &cx,
        &body.phone,
        body.transaction_id,
    ))
    .await?;
    Ok((StatusCode::ACCEPTED, Json(sent.into())))
}

/// Confirm an own number
///
/// The mail address is told of the change, with a link that takes it back for 72 hours.
#[utoipa::path(post, path = "/me/phone/confirm", tag = "identity", request_body = PhoneCodeBody,
    responses((status = 204), (status = 401), (status = 409), (status = 429)))]
async fn confirm_phone(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<PhoneCodeBody>,
) -> ApiResult<StatusCode> {
    if !is_code(body.code.expose()) {
        return Err(Error::field("code", "form", "must be six digits").into());
    }
    ops::confirm_phone(&core, &cx, body.transaction_id, &body.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give the own number up
///
/// Refused when it is the last way to log in; needs a recent login.
#[utoipa::path(delete, path = "/me/phone", tag = "identity",
    responses((status = 204), (status = 401), (status = 404), (status = 409)))]
async fn remove_phone(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<StatusCode> {
    ops::remove_phone(&core, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List sent messages
///
/// One row for each time that a provider was asked, newest first; numbers are masked.
#[utoipa::path(get, path = "/sms/records", tag = "identity", params(RecordQuery),
    responses((status = 200, body = Page<RecordView>), (status = 403)))]
async fn records(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<RecordQuery>,
) -> ApiResult<Json<Page<RecordView>>> {
    let limit = page::limit(query.limit)?;
    let after = query
        .cursor
        .as_deref()
        .map(Cursor::<(Timestamp, Uuid)>::decode)
        .transpose()?;
    let filter = Filter {
        provider: query.provider,
        status: query.status,
        phone_hash: None,
        transaction: query.transaction_id,
        after: after.map(|cursor| cursor.0),
    };
    let (tenant, phone) = (query.tenant.as_deref(), query.phone.as_deref());
    let rows = ops::list(&core, &cx, tenant, phone, filter, limit as u64 + 1).await?;
    let items: Vec<RecordView> = rows.into_iter().map(RecordView::from).collect();
    Ok(Json(Page::cut(items, limit, |r| (r.at, r.id))))
}

/// Show figures of messages
///
/// By provider and day: sent, failed, verified, conversion, 95th percentile of the answer time, cost.
#[utoipa::path(get, path = "/sms/stats", tag = "identity", params(StatsQuery),
    responses((status = 200, body = StatsBody), (status = 403)))]
async fn stats(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<StatsQuery>,
) -> ApiResult<Json<StatsBody>> {
    let days = query.days.unwrap_or(7);
    let stats = ops::stats(&core, &cx, query.tenant.as_deref(), days).await?;
    Ok(Json(StatsBody {
        items: stats.days.into_iter().map(DayView::from).collect(),
        truncated: stats.truncated,
    }))
}

/// Show the chain of providers
///
/// In their order, with their health, what their codes mean, and what is blocked now.
#[utoipa::path(get, path = "/sms/providers", tag = "identity", params(ChainQuery),
    responses((status = 200, body = ChainBody), (status = 403)))]
async fn chain(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ChainQuery>,
) -> ApiResult<Json<ChainBody>> {
    let chain = ops::chain(&core, &cx, query.tenant.as_deref()).await?;
    Ok(Json(chain.into()))
}

/// Try a provider
///
/// Sends a code that opens nothing to the caller's own verified number.
#[utoipa::path(post, path = "/sms/providers/{name}/test", tag = "identity",
    params(("name" = String, Path, description = "`aliyun`, `tencent`, `twilio` or `console`")),
    responses((status = 200, body = TestBody), (status = 404), (status = 409), (status = 429)))]
async fn test(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
) -> ApiResult<Json<TestBody>> {
    let tested = Box::pin(ops::test(&core, &cx, &name)).await?;
    Ok(Json(TestBody {
        class: tested.verdict.class.as_str(),
        provider_code: tested.verdict.code,
        provider_message: tested.verdict.message,
        receipt_id: tested.verdict.receipt,
        latency_ms: tested.latency_ms,
    }))
}

const fn login_purpose() -> Purpose {
    Purpose::Login
}

impl From<ops::Sent> for SentBody {
    fn from(sent: ops::Sent) -> Self {
        Self {
            transaction_id: sent.transaction,
            resend_after_s: sent.resend_after_s,
            expires_in_s: sent.expires_in_s,
        }
    }
}

impl From<SmsRecord> for RecordView {
    fn from(r: SmsRecord) -> Self {
        Self {
            id: r.id,
            transaction_id: r.transaction,
            provider: r.provider,
            attempt_no: r.attempt_no,
            phone: r.phone_masked,
            country: r.country,
            status: r.status,
            class: r.class,
            notice: r.notice,
            provider_code: r.provider_code,
            provider_message: r.provider_message,
            receipt_id: r.receipt_id,
            latency_ms: r.latency_ms,
            segments: r.segments,
            cost_micro: r.cost_micro,
            verified_at: r.verified_at,
            at: r.at,
        }
    }
}

impl From<ops::Day> for DayView {
    fn from(d: ops::Day) -> Self {
        Self {
            day: d.day,
            provider: d.provider,
            sent: d.sent,
            failed: d.failed,
            ambiguous: d.ambiguous,
            verified: d.verified,
            conversion_percent: d.conversion_percent,
            p95_ms: d.p95_ms,
            segments: d.segments,
            cost_micro: d.cost_micro,
        }
    }
}

impl From<ops::Chain> for ChainBody {
    fn from(chain: ops::Chain) -> Self {
        let codes = |rows: &'static [(&'static str, portico_sms::Class)]| {
            rows.iter()
                .map(|(code, class)| CodeView {
                    code,
                    class: class.as_str(),
                })
                .collect()
        };
        Self {
            items: chain
                .providers
                .into_iter()
                .map(|p| ProviderView {
                    name: p.name,
                    unused: p.unused,
                    failures: p.failures,
                    open_until: p.open_until,
                    misconfigured_since: p.misconfigured_since,
                    codes: codes(p.codes),
                })
                .collect(),
            countries: chain.countries,
            test_numbers: chain
                .test_numbers
                .into_iter()
                .map(|(phone, until)| TestNumberView { phone, until })
                .collect(),
            blocks: chain
                .blocks
                .into_iter()
                .map(|b| BlockView {
                    subject: b.subject,
                    reason: b.reason,
                    sent: b.sent,
                    verified: b.verified,
                    at: b.at,
                    until: b.until,
                })
                .collect(),
            warnings: chain.warnings,
        }
    }
}
