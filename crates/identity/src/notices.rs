//! Notices to people about their account: what each says, and by which way it goes.

use std::collections::BTreeMap;

use portico_base::{Secret, Timestamp};
use uuid::Uuid;

use crate::domain::device::Platform;
use crate::domain::user::User;
use crate::error::Result;
use crate::links::Links;
use crate::mail::{self, Letter};
use crate::ops::sms;
use crate::pages;
use crate::unit::Unit;

/// What somebody is told. Nothing in it is text that a user wrote.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// First login from a device or a country (ID-125); the link ends the session.
    NewDevice {
        place: Place,
        stranger: Secret<String>,
    },
    /// A known device has changed much (ID-124).
    DeviceChanged {
        place: Place,
        stranger: Secret<String>,
    },
    /// By its owner, or by a reset (ID-44).
    PasswordChanged,
    /// `totp`, `recovery_codes`.
    FactorAdded { factor: &'static str },
    /// `totp`, `recovery_codes`.
    FactorRemoved { factor: &'static str },
    /// An administrator took all factors away (ID-79).
    FactorsReset,
    /// A provider's identity can log in from now on (ID-84).
    IdentityLinked { provider: &'static str },
    /// It cannot any more.
    IdentityUnlinked { provider: &'static str },
    /// To the old address (ID-142).
    EmailChanged { undo: Secret<String> },
    /// To the mail address with its link, and to the old number without (ID-142).
    PhoneChanged { undo: Secret<String> },
    /// A refresh token was used twice; the session has ended (ID-102).
    RefreshReused,
    /// Somebody tried to register with this address (ID-33).
    AlreadyRegistered,
    /// 30 minutes (ID-140).
    ResetLink { token: Secret<String> },
    /// 24 hours (ID-140).
    VerifyEmail { token: Secret<String> },
    /// 7 days (ID-17).
    Invitation { token: Secret<String> },
    /// An API key ends soon (ID-136); `key_id` is its public part.
    KeyExpiring { key_id: String, at: Timestamp },
    /// The copy of the own data can be fetched for 24 hours (ID-150).
    ExportReady,
    /// The account will be erased then, unless its owner logs in (ID-151).
    DeletionScheduled { at: Timestamp },
    /// The account is erased (ID-152).
    Erased,
    /// An administrator tries whether mail works.
    Test,
}

/// Where a login came from, as far as we know it ourselves.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub platform: Platform,
    pub ip: Option<String>,
    /// From the operator's own table of networks.
    pub place: Option<String>,
}

/// To whom a notice goes when it is not the user's present, verified address.
#[derive(Debug, Clone)]
pub(crate) struct Recipient {
    pub tenant: Uuid,
    pub email: String,
    /// Display name; empty for none.
    pub name: String,
    /// `zh-CN` or `en`.
    pub locale: String,
}

impl Recipient {
    /// A user at any address: a new one to be verified, or the old one after a change.
    pub(crate) fn of(user: &User, email: &str) -> Self {
        Self {
            tenant: user.tenant,
            email: email.to_owned(),
            name: user.display_name.clone(),
            locale: user.locale.clone(),
        }
    }
}

/// By which way a notice went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Mail,
    Sms,
    /// There is no verified address or number, or nothing is there to carry it.
    None,
}

/// Sends notices.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    links: Links,
}

impl Notices {
    pub(crate) const fn new(links: Links) -> Self {
        Self { links }
    }

    /// Tells a user, with the unit of work: nothing is sent when that is undone. Goes to the verified
    /// address; to the verified number, without any link, where there is none; whoever has neither is not
    /// told, which the answer says.
    pub(crate) async fn send(&self, unit: &Unit, user: &User, notice: Notice) -> Result<Way> {
        let email = user.email.as_ref();
        if let Some(email) = email.filter(|_| user.email_verified_at.is_some())
            && unit.core.mail_on(user.tenant)
        {
            let to = Recipient::of(user, email);
            return self.send_to(unit, &to, notice).await;
        }
        match &user.phone {
            Some(phone) if user.phone_verified_at.is_some() => {
                self.send_sms(unit, user, phone, &notice).await
            }
            _ => Ok(Way::None),
        }
    }

    /// Tells whoever has a number, in a user's language. What carries a secret does not go this way.
    pub(crate) async fn send_sms(
        &self,
        unit: &Unit,
        user: &User,
        phone: &str,
        notice: &Notice,
    ) -> Result<Way> {
        let (tenant, locale) = (user.tenant, &user.locale);
        let queued = sms::queue_notice(unit, tenant, phone, locale, notice.template()).await?;
        Ok(if queued { Way::Sms } else { Way::None })
    }

    /// Tells whoever reads an address, verified or not.
    pub(crate) async fn send_to(&self, unit: &Unit, to: &Recipient, notice: Notice) -> Result<Way> {
        if !unit.core.mail_on(to.tenant) {
            return Ok(Way::None);
        }
        let letter = self.letter(to, &notice, unit.now());
        mail::queue(unit, to.tenant, &letter).await?;
        Ok(Way::Mail)
    }

    /// The letter of a notice: which template, and what is filled in.
    pub(crate) fn letter(&self, to: &Recipient, notice: &Notice, now: Timestamp) -> Letter {
        let mut values = self.values(notice);
        values.insert("time", shown(now));
        values.insert("home", self.links.base());
        Letter {
            to: to.email.clone(),
            name: mail::plain_name(&to.name),
            locale: to.locale.clone(),
            template: notice.template().to_owned(),
            values: values
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }

    fn values(&self, notice: &Notice) -> BTreeMap<&'static str, String> {
        let link = |page, token| BTreeMap::from([("link", self.links.with_token(page, token))]);
        match notice {
            Notice::NewDevice { place, stranger } | Notice::DeviceChanged { place, stranger } => {
                let mut values = link(pages::STRANGER, stranger);
                values.insert("platform", platform(place.platform).to_owned());
                let unknown = || "–".to_owned();
                values.insert("ip", place.ip.clone().unwrap_or_else(unknown));
                values.insert("place", place.place.clone().unwrap_or_else(unknown));
                values
            }
            Notice::FactorAdded { factor } | Notice::FactorRemoved { factor } => {
                BTreeMap::from([("factor", (*factor).to_owned())])
            }
            Notice::IdentityLinked { provider } | Notice::IdentityUnlinked { provider } => {
                BTreeMap::from([("provider", (*provider).to_owned())])
            }
            Notice::EmailChanged { undo } | Notice::PhoneChanged { undo } => {
                link(pages::UNDO, undo)
            }
            Notice::ResetLink { token } => link(pages::RESET, token),
            Notice::VerifyEmail { token } => link(pages::VERIFY, token),
            Notice::Invitation { token } => link(pages::INVITATION, token),
            Notice::KeyExpiring { key_id, at } => {
                BTreeMap::from([("key", key_id.clone()), ("until", shown(*at))])
            }
            Notice::DeletionScheduled { at } => BTreeMap::from([("until", shown(*at))]),
            Notice::PasswordChanged
            | Notice::FactorsReset
            | Notice::RefreshReused
            | Notice::AlreadyRegistered
            | Notice::ExportReady
            | Notice::Erased
            | Notice::Test => BTreeMap::new(),
        }
    }
}

impl Notice {
    /// Name of its template.
    pub(crate) const fn template(&self) -> &'static str {
        match self {
            Self::NewDevice { .. } => "new_device",
            Self::DeviceChanged { .. } => "device_changed",
            Self::PasswordChanged => "password_changed",
            Self::FactorAdded { .. } => "factor_added",
            Self::FactorRemoved { .. } => "factor_removed",
            Self::FactorsReset => "factors_reset",
            Self::IdentityLinked { .. } => "identity_linked",
            Self::IdentityUnlinked { .. } => "identity_unlinked",
            Self::EmailChanged { .. } => "email_changed",
            Self::PhoneChanged { .. } => "phone_changed",
            Self::RefreshReused => "refresh_reused",
            Self::AlreadyRegistered => "already_registered",
            Self::ResetLink { .. } => "reset_link",
            Self::VerifyEmail { .. } => "verify_email",
            Self::Invitation { .. } => "invitation",
            Self::KeyExpiring { .. } => "key_expiring",
            Self::ExportReady => "export_ready",
            Self::DeletionScheduled { .. } => "deletion_scheduled",
            Self::Erased => "erased",
            Self::Test => "test",
        }
    }

    /// One of each, with values that show what it looks like: for previews.
    pub(crate) fn samples(now: Timestamp) -> Vec<Self> {
        let token = || Secret::from("sample");
        let place = || Place {
            platform: Platform::Web,
            ip: Some("203.0.113.7".to_owned()),
            place: None,
        };
        vec![
            Self::NewDevice {
                place: place(),
                stranger: token(),
            },
            Self::DeviceChanged {
                place: place(),
                stranger: token(),
            },
            Self::PasswordChanged,
            Self::FactorAdded { factor: "totp" },
            Self::FactorRemoved { factor: "totp" },
            Self::FactorsReset,
            Self::IdentityLinked { provider: "Apple" },
            Self::IdentityUnlinked { provider: "Apple" },
            Self::EmailChanged { undo: token() },
            Self::PhoneChanged { undo: token() },
            Self::RefreshReused,
            Self::AlreadyRegistered,
            Self::ResetLink { token: token() },
            Self::VerifyEmail { token: token() },
            Self::Invitation { token: token() },
            Self::KeyExpiring {
                key_id: "k3y1d0000000".to_owned(),
                at: now,
            },
            Self::ExportReady,
            Self::DeletionScheduled { at: now },
            Self::Erased,
            Self::Test,
        ]
    }
}

/// Times in mails say their zone: the reader's is not known for sure.
fn shown(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

const fn platform(platform: Platform) -> &'static str {
    match platform {
        Platform::Ios => "iOS",
        Platform::Android => "Android",
        Platform::Web => "Web",
        Platform::Desktop => "Desktop",
        Platform::Tv => "TV",
        Platform::Cli => "CLI",
    }
}
