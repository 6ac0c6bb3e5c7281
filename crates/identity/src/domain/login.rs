//! What a login needs and what it answers: one shape for every way in (ID-60).

use std::collections::BTreeMap;

use portico_base::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::device::{Device, Platform};
use super::user::User;

/// Where tokens go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// Into the answer.
    #[default]
    Body,
    /// Into cookies that scripts cannot read (ID-62).
    Cookie,
}

/// The client as it presents itself; everything but the proved secret is a claim.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LoginDevice)]
pub(crate) struct DeviceWish {
    /// Id that the client made for itself, 8 to 64 characters; without one the login is a new device.
    #[serde(default)]
    pub device_id: Option<String>,
    /// Secret that the server gave the device at its first login.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub device_secret: Option<Secret<String>>,
    /// SHA-256 of the secret, in the place of it when a ticket kept the wish.
    #[serde(skip)]
    #[schema(ignore)]
    pub secret_hash: Option<[u8; 32]>,
    pub platform: Platform,
    /// Name for people.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub app_version: String,
    #[serde(default)]
    pub os_version: String,
    /// Components of the fingerprint: `platform`, `os`, `model`, `app`, `browser`, `language`, `time_zone`, `screen`.
    #[serde(default)]
    pub fingerprint: BTreeMap<String, String>,
}

/// Somebody proved who they are; nothing is decided yet about factors, devices and consent.
#[derive(Debug)]
pub(crate) struct Proof {
    pub user: User,
    /// `password`, `sms`, `apple`, `invitation`, …
    pub method: &'static str,
    /// RFC 8176 values of what was shown.
    pub amr: Vec<String>,
    /// 1 for one factor, 2 for two.
    pub aal: u8,
    pub device: DeviceWish,
    pub transport: Transport,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoginStatus {
    Ok,
    MfaRequired,
    EnrolRequired,
    DeviceLimit,
    PasswordChangeRequired,
    /// Somebody has the verified address of the Apple account: whoever logs in to that account can link it
    /// with the ticket (`POST /me/identities`).
    LinkOffered,
    #[expect(
        dead_code,
        reason = "clients know the status from the beginning; terms of use come with their screens"
    )]
    ConsentRequired,
}

impl LoginStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::MfaRequired => "mfa_required",
            Self::EnrolRequired => "enrol_required",
            Self::DeviceLimit => "device_limit",
            Self::PasswordChangeRequired => "password_change_required",
            Self::LinkOffered => "link_offered",
            Self::ConsentRequired => "consent_required",
        }
    }
}

/// What every login answers (ID-60).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoginResult {
    pub status: LoginStatus,
    /// With `ok`, unless they went into cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// With every other status: opaque, single use, 5 minutes (10 for a new password).
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub ticket: Option<Secret<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ticket_expires_at: Option<Timestamp>,
    /// With `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserBrief>,
    /// With `mfa_required` and `enrol_required`: `totp`, `recovery_code`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// With `device_limit`: devices of which one may be logged out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceBrief>,
    /// With `ok`, after a second factor was set up: each is good once, and they are shown this once.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exposed_all")]
    #[schema(value_type = Vec<String>)]
    pub recovery_codes: Vec<Secret<String>>,
    /// With `ok`, when the tokens went into cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionBrief>,
    /// What goes into cookies.
    #[serde(skip)]
    pub cookies: Option<Tokens>,
}

impl LoginResult {
    /// A login that waits for a next step.
    pub(crate) fn step(status: LoginStatus, (ticket, ends): (Secret<String>, Timestamp)) -> Self {
        Self {
            status,
            tokens: None,
            ticket: Some(ticket),
            ticket_expires_at: Some(ends),
            user: None,
            methods: Vec::new(),
            devices: Vec::new(),
            recovery_codes: Vec::new(),
            session: None,
            cookies: None,
        }
    }

    /// A login that is done.
    pub(crate) fn done(tokens: Tokens, user: Option<UserBrief>, transport: Transport) -> Self {
        let session = SessionBrief {
            session_id: tokens.session_id,
            device_id: tokens.device_id.clone(),
            expires_in: tokens.expires_in,
            refresh_expires_in: tokens.refresh_expires_in,
        };
        let (tokens, session, cookies) = match transport {
            Transport::Body => (Some(tokens), None, None),
            Transport::Cookie => (None, Some(session), Some(tokens)),
        };
        Self {
            status: LoginStatus::Ok,
            tokens,
            ticket: None,
            ticket_expires_at: None,
            user,
            methods: Vec::new(),
            devices: Vec::new(),
            recovery_codes: Vec::new(),
            session,
            cookies,
        }
    }
}

/// What a client whose tokens are in cookies may know of them.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LoginSession)]
pub(crate) struct SessionBrief {
    pub session_id: Uuid,
    pub device_id: String,
    /// Seconds until the access token ends.
    pub expires_in: u32,
    /// Seconds until the session ends, unless it is refreshed.
    pub refresh_expires_in: u32,
}

/// Tokens of a session (ID-61).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Tokens {
    #[serde(serialize_with = "exposed_one")]
    #[schema(value_type = String)]
    pub access_token: Secret<String>,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u32,
    #[serde(serialize_with = "exposed_one")]
    #[schema(value_type = String)]
    pub refresh_token: Secret<String>,
    /// Seconds.
    pub refresh_expires_in: u32,
    pub session_id: Uuid,
    pub device_id: String,
    /// Only when the device is new: it proves the device from now on.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub device_secret: Option<Secret<String>>,
}

/// A user as its own client needs it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct UserBrief {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub username: Option<String>,
    pub display_name: String,
    pub locale: String,
    pub roles: Vec<String>,
    /// The login before this one (ID-63).
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_login_at: Option<Timestamp>,
    pub last_login_ip: Option<String>,
    pub last_login_method: Option<String>,
}

/// A device in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DeviceBrief {
    pub id: Uuid,
    pub platform: Platform,
    pub name: String,
    pub model: String,
    pub last_place: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub last_active_at: Timestamp,
}

impl DeviceBrief {
    /// A device whose session was active at a moment.
    pub(crate) fn of(device: &Device, last_active_at: Timestamp) -> Self {
        Self {
            id: device.id,
            platform: device.platform,
            name: device.name.clone(),
            model: device.model.clone(),
            last_place: device.last_place.clone(),
            last_active_at,
        }
    }
}

fn exposed<S: serde::Serializer>(
    secret: &Option<Secret<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret
        .as_ref()
        .map(|s| s.expose().as_str())
        .serialize(serializer)
}

fn exposed_one<S: serde::Serializer>(
    secret: &Secret<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn exposed_all<S: serde::Serializer>(
    secrets: &[Secret<String>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|s| s.expose().as_str()))
}
