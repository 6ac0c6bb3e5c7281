//! Reload: which changes are taken over and which wait for a restart.

use portico_config::diff;

use crate::world::World;

fn changed(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let (old, new) = (
        World::with_toml(old).load().unwrap(),
        World::with_toml(new).load().unwrap(),
    );
    let changes = diff(&old, &new);
    let lines = |changes: &[portico_config::Change]| {
        changes
            .iter()
            .map(|c| format!("{}: {} -> {}", c.key, c.from, c.to))
            .collect()
    };
    (lines(&changes.reloadable), lines(&changes.restart))
}

#[test]
fn the_same_is_no_change() {
    let old = World::with_toml("[redis]\npool = 9\n[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n");
    let new = World::new()
        .env("PORTICO__REDIS__POOL", "9")
        .env("PORTICO__SERVER__TRUSTED_PROXIES", "10.0.0.0/8");
    assert!(diff(&old.load().unwrap(), &new.load().unwrap()).is_empty());
}

#[test]
fn some_keys_are_taken_over() {
    let (reloadable, restart) = changed(
        "[settings]\n\"a.b.c\" = 1\n\"a.b.gone\" = true\n",
        "[settings]\n\"a.b.c\" = 2\n[telemetry.log]\nlevel = \"debug\"\n[telemetry.traces]\nratio = 0.5\n\
         otlp_endpoint = \"http://127.0.0.1:4317\"\n[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n",
    );
    assert_eq!(
        reloadable,
        [
            "server.trusted_proxies: [] -> [\"10.0.0.0/8\"]",
            "telemetry.log.level: \"info\" -> \"debug\"",
            "telemetry.traces.otlp_endpoint: \"\" -> \"http://127.0.0.1:4317\"",
            "telemetry.traces.ratio: 0.01 -> 0.5",
            "settings.a.b.c: 1 -> 2",
            "settings.a.b.gone: true -> ",
        ]
    );
    assert_eq!(restart, [""; 0]);
}

#[test]
fn others_wait_for_a_restart_and_stay_masked() {
    let (reloadable, restart) = changed(
        "[database]\nurl = \"postgres://u:one@db/p\"\n[agents]\nx = 1\n",
        "[database]\nurl = \"postgres://u:two@db/p\"\n[listen]\nhttp = \":80\"\n",
    );
    assert_eq!(reloadable, [""; 0]);
    assert_eq!(
        restart,
        [
            "listen.http: \"127.0.0.1:8080\" -> \":80\"",
            "database.url: \"postgres://u:«masked»@db/p\" -> \"postgres://u:«masked»@db/p\"",
            "agents.x: 1 -> ",
        ]
    );
}
