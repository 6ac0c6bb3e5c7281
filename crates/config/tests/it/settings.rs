//! First values of settings, matched with declarations that only the caller has.

use portico_config::{Config, Fault, Origins, SettingKey};
use serde_json::json;

use crate::world::World;

const DECLARED: &[SettingKey<'static>] = &[
    SettingKey {
        key: "gateway.breaker.open_s",
        secret: false,
    },
    SettingKey {
        key: "gateway.maintenance",
        secret: false,
    },
    SettingKey {
        key: "registry.anonymous",
        secret: false,
    },
    SettingKey {
        key: "mail.password",
        secret: true,
    },
];

fn claimed(world: &World) -> Vec<String> {
    let config = world.load().unwrap().config;
    let (values, faults) = config.claim_settings(DECLARED, &|path| world.read(path));
    let tenant = |tenant: Option<String>| tenant.map_or(String::new(), |slug| format!("{slug}/"));
    let values = values
        .into_iter()
        .map(|v| format!("{}{} = {} ({})", tenant(v.tenant), v.key, v.value, v.origin));
    values
        .chain(faults.into_iter().map(|fault| fault.to_string()))
        .collect()
}

#[test]
fn keys_may_be_quoted_or_nested() {
    for text in [
        "[settings]\n\"gateway.breaker.open_s\" = 30\n",
        "[settings.gateway.breaker]\nopen_s = 30\n",
        "[settings.gateway]\n\"breaker.open_s\" = 30\n",
    ] {
        assert_eq!(
            claimed(&World::with_toml(text)),
            ["gateway.breaker.open_s = 30 (./portico.toml:2)"]
        );
    }
}

#[test]
fn objects_layers_and_tenants() {
    let world = World::with_toml(
        "[settings]\n\"gateway.maintenance\" = { on = true, \"a.b\" = 1 }\n\
         \"gateway.breaker.open_s\" = 5\n[settings_tenant.acme.gateway.breaker]\nopen_s = 7\n",
    )
    .env("PORTICO__SETTINGS__GATEWAY__BREAKER__OPEN_S", "60")
    .env("PORTICO__SETTINGS_TENANT__BETA__REGISTRY__ANONYMOUS", "off");
    assert_eq!(
        claimed(&world),
        [
            "gateway.breaker.open_s = 60 (environment PORTICO__SETTINGS__GATEWAY__BREAKER__OPEN_S)",
            "gateway.maintenance = {\"a.b\":1,\"on\":true} (./portico.toml:2)",
            "acme/gateway.breaker.open_s = 7 (./portico.toml:5)",
            "beta/registry.anonymous = \"off\" (environment PORTICO__SETTINGS_TENANT__BETA__REGISTRY__ANONYMOUS)",
        ]
    );
    let agents = World::with_toml("[agents]\nx = [1]\n").env("PORTICO__AGENTS__Y__Z", "[2]");
    assert_eq!(
        agents.load().unwrap().config.agents.to_json(),
        json!({ "x": [1], "y": { "z": [2] } })
    );
}

#[test]
fn secrets_come_from_files_and_wrong_keys_are_told() {
    let world = World::with_toml(
        "[settings]\n\"mail.password_file\" = \"/run/mail\"\n\"gateway.braker.open_s\" = 1\n\
         \"registry.anonymous_file\" = \"/run/x\"\n",
    )
    .file("/run/mail", "s3cret\n");
    assert_eq!(
        claimed(&world),
        [
            "mail.password = \"s3cret\" (/run/mail (named by ./portico.toml:2))",
            "./portico.toml:3: `settings.gateway.braker.open_s`: unknown setting, did you mean `settings.gateway.breaker.open_s`?",
            "./portico.toml:4: `settings.registry.anonymous_file`: unknown setting",
        ]
    );
}

#[test]
fn further_checks_report_with_the_built_in_ones() {
    let world =
        World::with_toml("[node]\nworkers = 0\n[settings]\n\"gateway.braker.open_s\" = 1\n");
    let also = |config: &Config, origins: &Origins| -> Vec<Fault> {
        assert!(!origins.is_default("settings.gateway.braker.open_s"));
        config.claim_settings(DECLARED, &|path| world.read(path)).1
    };
    let faults = world.load_also(vec![&also]).unwrap_err();
    let keys: Vec<_> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["node.workers", "settings.gateway.braker.open_s"]);
}

#[test]
fn secrets_of_settings_are_masked() {
    let world = World::with_toml(
        "[settings]\n\"mail.password\" = \"s3cret\"\n\"mail.url\" = \"smtp://u:s3cret@m\"\n\
         \"identity.providers\" = [{ name = \"a\", client_secret = \"s3cret\" }]\n",
    )
    .env(
        "PORTICO__SETTINGS__X__LIST",
        "[{\"api_token\": \"s3cret\"}]",
    );
    let loaded = world.load().unwrap();
    let printed = format!("{}{:?}", portico_config::show(&loaded, true), loaded);
    assert!(printed.contains("settings.mail.password") && printed.contains("settings.x.list"));
    assert!(!printed.contains("s3cret"), "{printed}");
}
