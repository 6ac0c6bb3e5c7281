//! Property tests: whatever stands in a layer, loading answers, and never with a secret.

use std::sync::LazyLock;

use portico_config::rows;
use proptest::prelude::*;

use crate::world::World;

static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut keys: Vec<String> = rows(&World::new().load().unwrap())
        .into_iter()
        .map(|row| row.key)
        .collect();
    for free in [
        "settings.a.b",
        "settings_tenant.t.a",
        "agents.x",
        "database.url_file",
        "nowhere.x",
    ] {
        keys.push(free.to_owned());
    }
    keys
});

fn any_key() -> impl Strategy<Value = String> {
    (0..KEYS.len()).prop_map(|at| KEYS[at].clone())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,30}",
        "[a-z]{1,8}://[a-z@:/?#,.\\[\\]%0-9]{0,30}",
        "[0-9:.\\[\\]/-]{0,20}",
        "(<data>|\\$\\{[A-Z]{0,3}(:-)?|\\}|,|=|auto|off|true|-1|1e9|0){0,6}",
        "[\u{0}-\u{7f}]{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_variable(pairs in prop::collection::vec((any_key(), any_text()), 1..5)) {
        let mut world = World::new();
        for (key, text) in &pairs {
            let name = format!("PORTICO__{}", key.replace('.', "__").to_uppercase());
            world = world.env(&name, text);
        }
        answers(&world)?;
    }

    #[test]
    fn any_flag_and_file(flag in (any_key(), any_text()), key in any_key(), text in any_text()) {
        let (section, last) = key.rsplit_once('.').unwrap();
        let toml = format!("[{section}]\n{last} = {}\n", serde_json::to_string(&text).unwrap());
        let json = format!("{{{:?}: {}}}", key, serde_json::to_string(&text).unwrap());
        for world in [World::with_toml(&toml), World::new().file("./portico.json", &json)] {
            answers(&world.flag("--any", &flag.0, &flag.1))?;
        }
    }

    #[test]
    fn any_shape(key in any_key(), shape in "(true|-?[0-9]{1,12}|0\\.[0-9]{1,3}|\\[\\]|\\[\\[1\\]\\]|\\{\\}|\\{\"a\": [0-9]\\}|null|\\[\"x\", null\\])") {
        let json = format!("{{{key:?}: {shape}}}");
        answers(&World::new().file("./portico.json", &json))?;
    }

    #[test]
    fn no_password_comes_out(secret in "[A-Z]{12}", wrap in 0..6_usize, key in any_key()) {
        let url = match wrap {
            0 => format!("postgres://u:{secret}@h/d"),
            1 => format!("postgres://u:{secret}@h:x/d"),
            2 => format!("redis://:{secret}@h"),
            3 => format!("mysql://u:{secret}@h/d"),
            4 => format!("redis-cluster://u:{secret}@a,b"),
            _ => format!("postgres://h/d?password={secret}"),
        };
        let name = format!("PORTICO__{}", key.replace('.', "__").to_uppercase());
        if ["database.url", "database.read_url", "redis.url", "telemetry.metrics.token", "keys.master"].contains(&key.as_str()) {
            let text = answers(&World::new().env(&name, &url))?;
            prop_assert!(!text.contains(&secret), "{text}");
        }
    }
}

/// The report of a load, in every form in which it is printed.
fn answers(world: &World) -> Result<String, TestCaseError> {
    match world.load() {
        Ok(loaded) => Ok(format!("{loaded:?}{}", portico_config::show(&loaded, true))),
        Err(faults) => {
            prop_assert!(!faults.0.is_empty());
            Ok(format!(
                "{faults}{faults:?}{}",
                serde_json::to_string(&faults).unwrap()
            ))
        }
    }
}
