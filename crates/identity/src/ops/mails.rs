//! Mail as administrators see it: whether it works, what a template looks like, and a test.

use std::sync::Arc;

use portico_base::{Context, FieldFault};
use portico_contract::audit::Record;
use serde_json::Map;
use uuid::Uuid;

use super::need;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::mail::smtp::Server;
use crate::mail::templates::{self, Mail, Template};
use crate::notices::{Notice, Recipient};
use crate::permissions::MAIL_WRITE;
use crate::settings::mail::{FROM, HOST};
use crate::store;
use crate::unit::Unit;

/// Whether mails are sent, and why not.
#[derive(Debug)]
pub(crate) struct Status {
    pub on: bool,
    /// Settings that are missing.
    pub missing: Vec<&'static str>,
    /// Notices that have a template.
    pub notices: Vec<&'static str>,
}

/// What is known of mail.
pub(crate) fn status(core: &Core, cx: &Context) -> Result<Status> {
    need(cx, MAIL_WRITE)?;
    let missing = [&HOST, &FROM]
        .into_iter()
        .filter(|key| core.settings.system(key).is_empty())
        .map(|key| key.declaration.key)
        .collect();
    Ok(Status {
        on: core.mail_on(cx.tenant()),
        missing,
        notices: Notice::samples(cx.now())
            .iter()
            .map(Notice::template)
            .collect(),
    })
}

/// A notice as a mail, by its present template or by one that is not stored yet.
pub(crate) fn preview(
    core: &Core,
    cx: &Context,
    name: &str,
    locale: &str,
    changed: Option<&Template>,
) -> Result<Mail> {
    need(cx, MAIL_WRITE)?;
    let samples = Notice::samples(cx.now());
    let notice = samples.iter().find(|notice| notice.template() == name);
    let mut faults = Vec::new();
    if notice.is_none() {
        faults.push(FieldFault::new(
            "notice",
            "unknown",
            "there is no such notice",
        ));
    }
    if !templates::LOCALES.contains(&locale) {
        let all = templates::LOCALES.join(", ");
        faults.push(FieldFault::new(
            "locale",
            "unknown",
            format!("one of {all}"),
        ));
    }
    let (Some(notice), true) = (notice, faults.is_empty()) else {
        return Err(Error::Invalid(faults));
    };
    let to = Recipient {
        tenant: cx.tenant(),
        email: "anna@example.com".to_owned(),
        name: "Anna".to_owned(),
        locale: locale.to_owned(),
    };
    let letter = core.notices.letter(&to, notice, cx.now());
    match changed {
        None => Ok(templates::render(&core.settings, to.tenant, &letter)),
        Some(changed) => {
            let faults = templates::faults(&letter, changed);
            if faults.is_empty() {
                Ok(templates::render_with(&letter, changed))
            } else {
                Err(Error::Invalid(faults))
            }
        }
    }
}

/// Sends a test at once, so that what the server answers can be seen: to the caller's own address, or to
/// the one that is named. Gives the address.
pub(crate) async fn test(core: &Arc<Core>, cx: &Context, to: Option<&str>) -> Result<String> {
    need(cx, MAIL_WRITE)?;
    let server = Server::of(&core.settings).ok_or(reason::MAIL_OFF)?;
    let to = recipient(core, cx, to).await?;
    let letter = core.notices.letter(&to, &Notice::Test, cx.now());
    let mail = templates::render(&core.settings, to.tenant, &letter);
    let sent = server
        .send(&to.email, &mail, &cx.new_id().to_string())
        .await;
    sent.map_err(|error| {
        let members = Map::from_iter([("detail".to_owned(), error.to_string().into())]);
        Error::With(reason::MAIL_FAILED, members)
    })?;
    let unit = Unit::begin(core, cx).await?;
    let what = portico_base::mask::email(&to.email);
    let record = Record::done("identity.mail.tested", "address", what, to.tenant);
    unit.audit(record).await?;
    unit.commit().await?;
    Ok(to.email)
}

async fn recipient(core: &Core, cx: &Context, to: Option<&str>) -> Result<Recipient> {
    let user = match cx.principal().id {
        Some(id) => own(core, cx, id).await?,
        None => None,
    };
    let named = to.map(str::to_owned);
    let own = user.as_ref().and_then(|user| user.email.clone());
    let email = named
        .or(own)
        .ok_or_else(|| Error::field("to", "missing", "you have no e-mail address of your own"))?;
    if email.len() > 254 || email.parse::<lettre::Address>().is_err() {
        return Err(Error::field("to", "malformed", "is not an e-mail address"));
    }
    Ok(match user {
        Some(user) => Recipient::of(&user, &email),
        None => Recipient {
            tenant: cx.tenant(),
            email,
            name: String::new(),
            locale: "en".to_owned(),
        },
    })
}

async fn own(core: &Core, cx: &Context, id: Uuid) -> Result<Option<crate::domain::user::User>> {
    Ok(store::users::get(core.db.reader(), cx.tenant(), id).await?)
}
