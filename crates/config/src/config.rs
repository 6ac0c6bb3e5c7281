//! Questions about a configuration that several services ask.

use std::time::Duration;

use crate::fault::Fault;
use crate::free::{FirstValue, SettingKey, claim};
use crate::net::Listen;
use crate::sections::{Config, Role};
use crate::types::Seconds;
use crate::urls::DatabaseKind;

impl Config {
    /// True when the process has a role, by name or by `all`.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.node
            .roles
            .iter()
            .any(|have| *have == role || *have == Role::All)
    }

    /// True in scaled mode: the database is PostgreSQL and replicas share it.
    #[must_use]
    pub fn scaled(&self) -> bool {
        self.database.url.kind() == DatabaseKind::Postgres
    }

    /// `shutdown.drain_delay_s`, with `auto` decided: 5 s in scaled mode, none in single mode.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        let auto = if self.scaled() {
            Seconds(5)
        } else {
            Seconds(0)
        };
        self.shutdown.drain_delay_s.unwrap_or(auto).get()
    }

    /// Whether the demo plug-ins may start (PL-30).
    #[must_use]
    pub fn demo(&self) -> bool {
        let listen = &self.listen;
        let private = [listen.http, listen.https, listen.consul, listen.admin]
            .into_iter()
            .all(Listen::is_private);
        self.node.demo
            && self.server.domain.is_none()
            && !self.scaled()
            && private
            && listen.http != Listen::Off
    }

    /// Whether clients without a token on the Consul listener can be `anonymous-local` (RG-46). The
    /// setting `registry.anonymous` can switch it off beside that.
    ///
    /// # Errors
    /// Why not, as a clause.
    pub fn anonymous_consul(&self) -> Result<(), &'static str> {
        let server = &self.server;
        match self.listen.consul {
            Listen::Off => Err("listen.consul is off"),
            listen if !listen.is_private() => Err("listen.consul is not on loopback"),
            _ if server.domain.is_some() => Err("server.domain is set"),
            _ if server.public_url.is_some() => Err("server.public_url is set"),
            _ if !server.trusted_proxies.is_empty() => Err("server.trusted_proxies is set"),
            _ => Ok(()),
        }
    }

    /// Matches `[settings]` and `[settings_tenant]` with the settings that services declare; unknown
    /// keys and unreadable secret files are faults. Types and bounds are the caller's to check.
    #[must_use]
    pub fn claim_settings(
        &self,
        declared: &[SettingKey<'_>],
        read: &dyn Fn(&std::path::Path) -> std::io::Result<Vec<u8>>,
    ) -> (Vec<FirstValue>, Vec<Fault>) {
        claim(&self.settings, &self.settings_tenant, declared, read)
    }

    /// The text of one setting of `[settings]`, as written.
    pub(crate) fn setting_text(&self, key: &str) -> Option<&'static str> {
        let leaves = self.settings.leaves();
        let (_, raw, _) = leaves.iter().find(|(found, ..)| found == key)?;
        ["off", "loopback"]
            .into_iter()
            .find(|word| raw.as_text() == Some(word))
    }
}
