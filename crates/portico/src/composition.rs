//! The services of this binary, and which process role opens which of them. No other crate asks for roles.

use portico_config::{Config, Fault, Origins, Role};
use portico_contract::settings::Declaration;
use portico_host::{Composition, Entry, Service};

use crate::version::{COMMIT, RUSTC, VERSION};

/// Services in the order in which they are built: whoever provides a contract before whoever needs
/// it, the gateway last because it leads to all others.
fn services() -> Vec<(Role, Box<dyn Service>)> {
    vec![
        (Role::Registry, Box::new(portico_registry::Registry)),
        (Role::Identity, Box::new(portico_identity::Identity)),
        (Role::Gateway, Box::new(portico_gateway::Gateway)),
    ]
}

/// The binary with the roles of this process.
pub(crate) fn composition(config: &Config) -> Composition {
    let roles = &config.node.roles;
    let entries = services()
        .into_iter()
        .map(|(role, service)| Entry {
            service,
            active: roles.contains(&Role::All) || roles.contains(&role),
        })
        .collect();
    Composition {
        entries,
        version: VERSION,
        commit: COMMIT,
        rustc: RUSTC,
    }
}

/// All services, whatever the roles are.
pub(crate) fn all_services() -> Vec<Box<dyn Service>> {
    services().into_iter().map(|(_, service)| service).collect()
}

/// All declared settings.
pub(crate) fn declarations() -> Vec<Declaration> {
    all_services()
        .iter()
        .flat_map(|service| service.settings().iter().copied())
        .collect()
}

/// Checks the settings in the configuration against their declarations.
pub(crate) fn check_settings(config: &Config, _origins: &Origins) -> Vec<Fault> {
    portico_host::check_settings(config, &declarations())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_declared_default_fits_its_own_declaration() {
        let mut keys = BTreeSet::new();
        for declaration in declarations() {
            let default: serde_json::Value = serde_json::from_str(declaration.default)
                .unwrap_or_else(|e| panic!("{}: {e}", declaration.key));
            assert_eq!(declaration.check(&default), Ok(()), "{}", declaration.key);
            assert!(
                keys.insert(declaration.key),
                "{} is declared twice",
                declaration.key
            );
            assert!(!declaration.title.is_empty() && !declaration.title_zh.is_empty());
        }
        assert!(keys.contains("gateway.breaker.open_s"));
    }
}
