//! Layers: what wins, where it came from, where the file is found.

use std::path::{Path, PathBuf};

use portico_config::{
    Auto, DatabaseKind, DatabaseTlsMode, Listen, Origin, RedisKind, Role, Seconds, show,
};

use crate::world::World;

fn file(path: &str, line: usize) -> Origin {
    Origin::File {
        path: PathBuf::from(path),
        line,
    }
}

#[test]
fn nothing_is_needed() {
    let loaded = World::new().load().unwrap();
    let config = &loaded.config;
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.file, None);
    assert_eq!(config.node.data_dir, Path::new("./portico-data"));
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen.https, Listen::Off);
    assert_eq!(
        config.database.url.expose(),
        "sqlite://./portico-data/portico.db"
    );
    assert_eq!(
        config.keys.master_file,
        Path::new("./portico-data/master.key")
    );
    assert!(config.has_role(Role::Fleet) && config.demo() && !config.scaled());
    assert_eq!(config.anonymous_consul(), Ok(()));
    assert!(config.drain_delay().is_zero());
    assert!(
        loaded
            .origins
            .iter()
            .all(|(_, origin)| *origin == Origin::Default)
    );
}

#[test]
fn each_layer_wins_over_the_one_before_and_is_told() {
    let mut world = World::new();
    let mut seen = Vec::new();
    let mut look = |world: &World| {
        let loaded = world.load().unwrap();
        seen.push((
            loaded.config.listen.http.to_string(),
            loaded.origins.of("listen.http").clone(),
        ));
    };
    look(&world);
    world = world.file("./portico.toml", "[listen]\n\nhttp = \"127.0.0.1:1\"\n");
    look(&world);
    world = world.env("PORTICO__LISTEN__HTTP", "127.0.0.1:2");
    look(&world);
    world = world.flag("--listen", "listen.http", "127.0.0.1:3");
    look(&world);
    assert_eq!(
        seen,
        [
            ("127.0.0.1:8080".to_owned(), Origin::Default),
            ("127.0.0.1:1".to_owned(), file("./portico.toml", 3)),
            (
                "127.0.0.1:2".to_owned(),
                Origin::Env("PORTICO__LISTEN__HTTP".to_owned())
            ),
            (
                "127.0.0.1:3".to_owned(),
                Origin::Flag("--listen".to_owned())
            ),
        ]
    );
}

#[test]
fn a_later_layer_can_take_a_value_back() {
    let world =
        World::with_toml("[server]\ndomain = \"example.com\"\n").env("PORTICO__SERVER__DOMAIN", "");
    let loaded = world.load().unwrap();
    assert_eq!(loaded.config.server.domain, None);
    assert_eq!(loaded.config.listen.http.to_string(), "127.0.0.1:8080");
}

#[test]
fn the_first_file_is_read() {
    let names = [
        ("./portico.toml", "[node]\nzone = \"0\""),
        ("./portico.yaml", "node: {zone: '1'}"),
        ("./portico.json", "{\"node\": {\"zone\": \"2\"}}"),
        ("/data/portico.toml", "[node]\nzone = \"3\""),
        ("/etc/portico/portico.toml", "[node]\nzone = \"4\""),
    ];
    for first in 0..names.len() {
        let mut world = World::new().flag("--data-dir", "node.data_dir", "/data");
        for (path, text) in &names[first..] {
            world = world.file(path, text);
        }
        let loaded = world.load().unwrap();
        assert_eq!(loaded.config.node.zone.unwrap().as_str(), first.to_string());
        assert_eq!(loaded.file.as_deref(), Some(Path::new(names[first].0)));
        assert_eq!(loaded.warnings.len(), names.len() - first - 1);
    }
}

#[test]
fn a_named_file_wins() {
    let world = World::with_toml("[node]\nzone = \"here\"")
        .file("/a.yml", "node: {zone: env}")
        .file("/b.json", "{\"node\": {\"zone\": \"flag\"}}")
        .env("PORTICO_CONFIG", "/a.yml");
    let zone = |world: &World| world.load().unwrap().config.node.zone.unwrap().to_string();
    assert_eq!(zone(&world), "env");
    assert_eq!(zone(&world.config("/b.json")), "flag");
}

#[test]
fn lists_and_numbers_come_from_text() {
    let loaded = World::new()
        .env("PORTICO__NODE__ROLES", "gateway, registry")
        .env("PORTICO__DATABASE__URL", "postgresql://db/portico")
        .env("PORTICO__SHUTDOWN__DRAIN_DELAY_S", "3")
        .env("PORTICO__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.7")
        .env("PORTICO__TELEMETRY__TRACES__RATIO", "0.5")
        .flag("--no-demo", "node.demo", "false")
        .load()
        .unwrap();
    let config = loaded.config;
    assert_eq!(config.node.roles, [Role::Gateway, Role::Registry]);
    assert!(config.has_role(Role::Gateway) && !config.has_role(Role::Worker));
    assert_eq!(config.database.url.kind(), DatabaseKind::Postgres);
    assert_eq!(config.shutdown.drain_delay_s, Auto::Is(Seconds(3)));
    assert!(
        config
            .server
            .trusted_proxies
            .contains("192.0.2.7".parse().unwrap())
    );
    assert!((config.telemetry.traces.ratio - 0.5).abs() < f64::EPSILON);
    assert!(!config.node.demo);
}

#[test]
fn variables_are_expanded_in_files_only() {
    let world = World::with_toml(
        "[node]\nzone = \"${ZONE:-z1}\"\nworkers = \"${WORKERS}\"\n[server]\nhosts = [\"${H}.example\"]\n",
    )
    .env("WORKERS", "3")
    .env("H", "a")
    .env("PORTICO__NODE__DATA_DIR", "/d/${H}");
    let config = world.load().unwrap().config;
    assert_eq!(config.node.zone.unwrap().as_str(), "z1");
    assert_eq!(config.node.workers, Auto::Is(3));
    assert_eq!(config.server.hosts[0].as_str(), "a.example");
    assert_eq!(config.node.data_dir, Path::new("/d/${H}"));
}

#[test]
fn a_secret_comes_from_its_file() {
    let world = World::with_toml(
        "[database]\nurl_file = \"/run/db\"\n[redis]\nurl = \"redis://localhost\"\n",
    )
    .file("/run/db", "postgres://me:pass-word@db:5432/portico\n")
    .file("/run/redis", "rediss://:pass-word@cache/1\r\n")
    .env("PORTICO__REDIS__URL_FILE", "/run/redis");
    let loaded = world.load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        loaded.config.database.url.expose(),
        "postgres://me:pass-word@db:5432/portico"
    );
    assert_eq!(loaded.config.database.url.host().as_deref(), Some("db"));
    let redis = loaded.config.redis.url.as_ref().unwrap();
    assert_eq!((redis.kind(), redis.tls()), (RedisKind::Single, true));
    assert_eq!(
        loaded.origins.of("database.url").to_string(),
        "/run/db (named by ./portico.toml:2)"
    );
    assert_eq!(loaded.origins.of("redis.url").layer(), "environment");
    let printed = format!("{:?} {}", loaded, show(&loaded, true));
    assert!(!printed.contains("pass-word"), "{printed}");
    assert!(printed.contains("postgres://me:«masked»@db:5432/portico"));
}

#[test]
fn a_later_value_replaces_an_earlier_file_and_the_other_way() {
    let toml = "[database]\nurl_file = \"/run/db\"\n";
    let world = World::with_toml(toml).flag("--database", "database.url", "sqlite:///x.db");
    // The file that nobody needs any more is not looked for.
    assert_eq!(
        world.load().unwrap().config.database.url.expose(),
        "sqlite:///x.db"
    );
    let world = World::with_toml("[database]\nurl = \"sqlite:///x.db\"\n")
        .file("/run/db", "sqlite:///y.db")
        .env("PORTICO__DATABASE__URL_FILE", "/run/db");
    assert_eq!(
        world.load().unwrap().config.database.url.expose(),
        "sqlite:///y.db"
    );
}

#[test]
fn the_data_directory_reaches_the_values_that_name_it() {
    let world =
        World::with_toml("[node]\ndata_dir = \"/srv/p\"\n[telemetry.log]\ndir = \"<data>/l\"\n");
    let config = world.load().unwrap().config;
    assert_eq!(config.database.url.expose(), "sqlite:///srv/p/portico.db");
    assert_eq!(config.telemetry.log.dir, Path::new("/srv/p/l"));
    assert_eq!(config.backup.dir, Path::new("/srv/p/backups"));
}

#[test]
fn a_strange_data_directory_breaks_no_url() {
    let world = World::new().flag("--data-dir", "node.data_dir", "/a?b#c%20d");
    let config = world.load().unwrap().config;
    assert_eq!(
        config.database.url.expose(),
        "sqlite:///a%3Fb%23c%2520d/portico.db"
    );
    assert_eq!(config.telemetry.log.dir, Path::new("/a?b#c%20d/logs"));
    let long = "a".repeat(4000);
    let faults = World::new()
        .flag("--data-dir", "node.data_dir", &long)
        .load()
        .unwrap_err();
    assert_eq!(faults.0.len(), 1);
    assert!(faults.0[0].problem.contains("longer than 1024"));
}

#[test]
fn some_defaults_follow_other_keys() {
    let pem = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
    let world = World::with_toml(
        "[server]\ndomain = \"Example.COM\"\n[tls]\ncert_file = \"/c\"\nkey_file = \"/c\"\n\
         [database]\nurl = \"postgres://db/p\"\n[database.tls]\nca_file = \"/c\"\n",
    )
    .file("/c", pem);
    let loaded = world.load().unwrap();
    let config = &loaded.config;
    assert_eq!(
        config.server.domain.as_ref().unwrap().as_str(),
        "example.com"
    );
    assert_eq!(config.listen.http.to_string(), "0.0.0.0:80");
    assert_eq!(config.listen.https.to_string(), "0.0.0.0:443");
    assert_eq!(config.database.tls.mode, DatabaseTlsMode::VerifyFull);
    assert_eq!(config.drain_delay().as_secs(), 5);
    assert!(!config.demo());
    assert_eq!(config.anonymous_consul(), Err("server.domain is set"));
    assert_eq!(
        loaded.origins.of("listen.http").to_string(),
        "default, because server.domain is set"
    );
    assert!(loaded.origins.is_default("listen.http"));
}

#[test]
fn open_listeners_with_a_reason_are_fine() {
    let token = "[telemetry.metrics]\ntoken_file = \"/run/token\"\n";
    let world = World::with_toml(token)
        .file("/run/token", "0123456789abcdef\n")
        .flag("--admin-listen", "listen.admin", "0.0.0.0:9100");
    assert_eq!(world.load().unwrap().warnings, []);
    let world = World::with_toml("[settings.registry]\nanonymous = \"off\"\n").flag(
        "--consul-listen",
        "listen.consul",
        ":8500",
    );
    assert_eq!(world.load().unwrap().warnings, []);
    let world = World::new()
        .flag("--admin-listen", "listen.admin", ":9100")
        .flag("--consul-listen", "listen.consul", ":8500")
        .flag("--insecure-listen", "listen.insecure", "true");
    let config = world.load().unwrap().config;
    assert!(config.anonymous_consul().is_err() && !config.demo());
}

#[test]
fn a_socket_of_redis_needs_no_encryption() {
    let world = World::new().flag("--redis", "redis.url", "unix:///run/redis/redis.sock?db=1");
    let loaded = world.load().unwrap();
    assert_eq!(loaded.warnings, []);
    assert!(loaded.config.redis.url.unwrap().hosts().is_empty());
}

/// PL-30: a stranger must never meet the demo.
#[test]
fn the_demo_stays_on_this_machine() {
    assert!(World::new().load().unwrap().config.demo());
    for (flag, key, value) in [
        ("--listen", "listen.http", "0.0.0.0:8080"),
        ("--listen", "listen.http", "[::]:8080"),
        ("--listen", "listen.http", "off"),
        ("--no-demo", "node.demo", "false"),
        ("--database", "database.url", "postgres://127.0.0.1/p"),
    ] {
        let config = World::new().flag(flag, key, value).load().unwrap().config;
        assert!(!config.demo(), "{flag} {value}");
    }
    for (flag, key) in [
        ("--consul-listen", "listen.consul"),
        ("--admin-listen", "listen.admin"),
    ] {
        let world = World::new().flag(flag, key, ":9000").flag(
            "--insecure-listen",
            "listen.insecure",
            "true",
        );
        assert!(!world.load().unwrap().config.demo(), "{flag}");
    }
}

#[test]
fn port_zero_is_free_for_everyone() {
    let mut world = World::new();
    for key in ["http", "consul", "admin"] {
        world = world.flag("--x", &format!("listen.{key}"), "127.0.0.1:0");
    }
    assert_eq!(world.load().unwrap().warnings, []);
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    let world = World::new()
        .flag("--listen", "listen.http", "127.0.0.1:1")
        .flag("--listen", "listen.http", "127.0.0.1:2");
    assert_eq!(
        world.load().unwrap().config.listen.http.to_string(),
        "127.0.0.1:2"
    );
}

#[test]
fn a_file_can_say_what_it_is() {
    for (name, text) in [
        (
            "./portico.yaml",
            "apiVersion: portico/v1\nkind: PorticoConfig\nnode: {zone: a}",
        ),
        (
            "./portico.json",
            "{\"$schema\": \"x\", \"apiVersion\": \"portico/v1\", \"node\": {\"zone\": \"a\"}}",
        ),
    ] {
        let loaded = World::new().file(name, text).load().unwrap();
        assert_eq!(loaded.config.node.zone.unwrap().as_str(), "a");
    }
}
