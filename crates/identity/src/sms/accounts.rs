//! Providers of a tenant by its settings: the chain, and what is missing for each of it.

use std::sync::Arc;

use portico_base::Secret;
use portico_contract::settings::{Key, Settings};
use portico_sms::{Aliyun, Console, Endpoint, Link, Provider, Tencent, Twilio};
use uuid::Uuid;

use crate::settings::sms as keys;

/// Every provider that there is.
pub(crate) const KNOWN: [&str; 4] = ["aliyun", "tencent", "twilio", Console::NAME];

/// A provider in the chain.
pub(crate) struct Account {
    pub name: String,
    /// The provider, or why it is not used.
    pub link: Result<Link, &'static str>,
}

/// The providers of a tenant's chain. In development the console comes last, where the chain does not name it.
pub(super) fn of(settings: &Settings, tenant: Uuid, dev: bool) -> Vec<Account> {
    let read = Reader { settings, tenant };
    let mut names = settings.get(tenant, &keys::CHAIN);
    if dev && !names.iter().any(|name| name == Console::NAME) {
        names.push(Console::NAME.to_owned());
    }
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = !seen.contains(name);
        seen.push(name.clone());
        new
    });
    names
        .into_iter()
        .map(|name| Account {
            link: match name.as_str() {
                "aliyun" => read.aliyun(),
                "tencent" => read.tencent(),
                "twilio" => read.twilio(),
                Console::NAME => console(dev),
                _ => Err("there is no such provider"),
            },
            name,
        })
        .collect()
}

const OFF: &str = "it is switched off";
const NO_ACCOUNT: &str = "its credentials are not set";
const BAD_ENDPOINT: &str = "its address is not an https address";

struct Reader<'a> {
    settings: &'a Settings,
    tenant: Uuid,
}

impl Reader<'_> {
    fn text(&self, key: &Key<String>) -> Option<String> {
        Some(self.settings.get(self.tenant, key)).filter(|text| !text.is_empty())
    }

    fn secret(&self, key: &Key<String>) -> Option<Secret<String>> {
        self.text(key).map(Secret::new)
    }

    fn link(
        &self,
        provider: impl Provider + 'static,
        countries: &Key<Vec<String>>,
        cost: &Key<i64>,
    ) -> Link {
        Link {
            provider: Arc::new(provider),
            countries: self.settings.get(self.tenant, countries),
            cost_micro: self.settings.get(self.tenant, cost),
        }
    }

    fn endpoint(&self, key: &Key<String>) -> Result<Endpoint, &'static str> {
        Endpoint::parse(&self.settings.system(key)).map_err(|_| BAD_ENDPOINT)
    }

    fn aliyun(&self) -> Result<Link, &'static str> {
        if !self.settings.get(self.tenant, &keys::ALIYUN_ENABLED) {
            return Err(OFF);
        }
        let provider = Aliyun {
            endpoint: self.endpoint(&keys::ALIYUN_ENDPOINT)?,
            access_key_id: self.text(&keys::ALIYUN_ID).ok_or(NO_ACCOUNT)?,
            access_key_secret: self.secret(&keys::ALIYUN_SECRET).ok_or(NO_ACCOUNT)?,
            security_token: self.secret(&keys::ALIYUN_TOKEN),
            signs: self.settings.get(self.tenant, &keys::ALIYUN_SIGNS),
            templates: self.settings.get(self.tenant, &keys::ALIYUN_TEMPLATES),
            notices: self.settings.get(self.tenant, &keys::ALIYUN_NOTICES),
        };
        if provider.templates.0.is_empty() || provider.signs.0.is_empty() {
            return Err("its signatures or templates are not set");
        }
        Ok(self.link(provider, &keys::ALIYUN_COUNTRIES, &keys::ALIYUN_COST))
    }

    fn tencent(&self) -> Result<Link, &'static str> {
        if !self.settings.get(self.tenant, &keys::TENCENT_ENABLED) {
            return Err(OFF);
        }
        let provider = Tencent {
            endpoint: self.endpoint(&keys::TENCENT_ENDPOINT)?,
            secret_id: self.text(&keys::TENCENT_ID).ok_or(NO_ACCOUNT)?,
            secret_key: self.secret(&keys::TENCENT_SECRET).ok_or(NO_ACCOUNT)?,
            sdk_app_id: self.text(&keys::TENCENT_APP).ok_or(NO_ACCOUNT)?,
            region: self.settings.get(self.tenant, &keys::TENCENT_REGION),
            signs: self.settings.get(self.tenant, &keys::TENCENT_SIGNS),
            templates: self.settings.get(self.tenant, &keys::TENCENT_TEMPLATES),
            notices: self.settings.get(self.tenant, &keys::TENCENT_NOTICES),
        };
        if provider.templates.0.is_empty() {
            return Err("its templates are not set");
        }
        Ok(self.link(provider, &keys::TENCENT_COUNTRIES, &keys::TENCENT_COST))
    }

    fn twilio(&self) -> Result<Link, &'static str> {
        if !self.settings.get(self.tenant, &keys::TWILIO_ENABLED) {
            return Err(OFF);
        }
        let provider = Twilio {
            endpoint: self.endpoint(&keys::TWILIO_ENDPOINT)?,
            account_sid: self.text(&keys::TWILIO_ACCOUNT).ok_or(NO_ACCOUNT)?,
            api_key: self.text(&keys::TWILIO_KEY),
            secret: self.secret(&keys::TWILIO_SECRET).ok_or(NO_ACCOUNT)?,
            from: self.text(&keys::TWILIO_FROM),
            messaging_service: self.text(&keys::TWILIO_SERVICE),
            texts: self.settings.get(self.tenant, &keys::TWILIO_TEXTS),
            notices: self.settings.get(self.tenant, &keys::TWILIO_NOTICES),
        };
        if provider.from.is_none() && provider.messaging_service.is_none() {
            return Err("its sender is not set");
        }
        Ok(self.link(provider, &keys::TWILIO_COUNTRIES, &keys::TWILIO_COST))
    }
}

fn console(dev: bool) -> Result<Link, &'static str> {
    if !dev {
        return Err("it needs `node.dev = true`, which a node with a domain cannot have");
    }
    Ok(Link {
        provider: Arc::new(Console),
        countries: Vec::new(),
        cost_micro: 0,
    })
}

#[cfg(test)]
mod tests {
    use portico_base::id::TENANT_DEFAULT;

    use super::*;

    fn state(dev: bool) -> Vec<(String, Option<&'static str>)> {
        of(&Settings::defaults(), TENANT_DEFAULT, dev)
            .into_iter()
            .map(|a| (a.name, a.link.err()))
            .collect()
    }

    #[test]
    fn the_console_is_for_development_only() {
        let names = |dev| {
            state(dev)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["aliyun", "tencent", "twilio"]);
        assert_eq!(names(true), ["aliyun", "tencent", "twilio", "console"]);
        assert_eq!(state(true)[3].1, None);
        assert!(console(false).is_err());
        assert!(state(false).iter().all(|(_, why)| *why == Some(NO_ACCOUNT)));
    }
}
