//! The services of this binary, and which process role opens which of them. No other crate asks for roles.

use std::sync::Arc;

use portico_backup::House;
use portico_config::{Config, Fault, Origins, Role};
use portico_contract::settings::Declaration;
use portico_db::Migrations;
use portico_host::{Composition, Entry, Service};

use crate::version::{COMMIT, RUSTC, VERSION};

/// Services in the order in which they are built: whoever provides a contract before whoever needs
/// it, the gateway last because it leads to all others.
fn services() -> Vec<(Role, Box<dyn Service>)> {
    vec![
        (Role::Control, Box::new(portico_settings::Settings)),
        (Role::Control, Box::new(portico_audit::Audit)),
        (Role::Registry, Box::new(portico_registry::Registry)),
        (Role::Identity, Box::new(portico_identity::Identity)),
        (Role::Control, Box::new(portico_control::Control)),
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

/// The migration steps of this binary.
pub(crate) fn migration_sets() -> Vec<(&'static str, Migrations)> {
    let services = all_services();
    portico_host::migrations(services.iter().map(|service| &**service))
}

/// Into what a backup is restored.
pub(crate) fn house() -> House {
    let services = all_services();
    House {
        migrations: Arc::new(migration_sets()),
        parts: portico_host::after_restore(services.iter().map(|service| &**service)),
        version: VERSION,
    }
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

    /// Permissions that code asks for: `Permission::new("service:resource:action")` outside of tests.
    fn asked_for(dir: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    asked_for(&path, found);
                }
                continue;
            }
            let name = path.file_name().unwrap_or_default();
            if path.extension().is_none_or(|e| e != "rs") || name == "tests.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let literals = code.split('"').skip(1).step_by(2);
            found.extend(
                literals
                    .filter(|l| portico_base::Permission::parse(l).is_ok() && !l.contains('*'))
                    .map(str::to_owned),
            );
        }
    }

    #[test]
    fn every_permission_that_code_asks_for_is_declared_once() {
        let mut declared = BTreeSet::new();
        for service in all_services() {
            for permission in service.permissions() {
                assert!(
                    declared.insert(permission.name),
                    "{} twice",
                    permission.name
                );
                assert!(portico_base::Permission::parse(permission.name).is_ok());
                assert!(!permission.title.is_empty() && !permission.title_zh.is_empty());
            }
        }
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut asked = BTreeSet::new();
        for service in all_services() {
            asked_for(&crates.join(service.name()).join("src"), &mut asked);
        }
        // The first closes what could not be read, so that nobody may hold it; the others are an auditor's,
        // of services that are to come.
        for name in [
            "registry:endpoint:closed",
            "audit:record:read",
            "control:stats:read",
            "settings:value:read",
        ] {
            asked.remove(name);
        }
        let unknown: Vec<&String> = asked
            .iter()
            .filter(|p| !declared.contains(p.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(asked.len() > 40, "{asked:?}");
    }
}
