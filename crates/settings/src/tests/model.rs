//! Applying and rolling back in any order always equals a model that is three lines long (§10.1).

use std::collections::BTreeMap;

use portico_base::Random as _;
use portico_base::random::SeededRandom;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{DEFAULT, Rig, SYSTEM, With};

const KEYS: [&str; 4] = ["demo.text", "demo.data", "demo.on", "demo.secret"];
const STEPS: usize = 120;

fn any_value(random: &SeededRandom, key: &str) -> Value {
    let n = random.below(5);
    match key {
        "demo.on" => json!(n.is_multiple_of(2)),
        "demo.data" => json!({ "n": n, "list": [n, n + 1] }),
        _ => json!(format!("text {n}")),
    }
}

type Values = BTreeMap<(Uuid, &'static str), Value>;

/// What was true after each step.
#[derive(Default)]
struct Model {
    values: Values,
    versions: BTreeMap<(Uuid, &'static str), Vec<Option<Value>>>,
    at: BTreeMap<u64, Values>,
}

impl Model {
    fn put(&mut self, scope: Uuid, key: &'static str, value: Option<Value>) {
        let place = (scope, key);
        if self.values.get(&place) == value.as_ref() {
            return;
        }
        match &value {
            Some(value) => self.values.insert(place, value.clone()),
            None => self.values.remove(&place),
        };
        self.versions.entry(place).or_default().push(value);
    }
}

#[tokio::test]
async fn any_order_of_changes_and_rollbacks_equals_the_model() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let random = SeededRandom::new(42);
        let mut model = Model::default();
        model.at.insert(0, Values::new());
        for step in 0..STEPS {
            let scope = [SYSTEM, DEFAULT][usize::try_from(random.below(2)).unwrap()];
            let key = KEYS[usize::try_from(random.below(4)).unwrap()];
            match random.below(4) {
                0 => roll_key(&rig, &random, &mut model, scope, key).await,
                1 => roll_moment(&rig, &random, &mut model, scope).await,
                _ => set(&rig, &random, &mut model, scope).await,
            }
            let seq = rig.core.live.state().seq;
            model.at.insert(seq, model.values.clone());
            compare(&rig, &model, step);
        }
        let again = Rig::another(db, With::default()).await;
        compare(&again, &model, STEPS);
    })
    .await;
}

async fn set(rig: &Rig, random: &SeededRandom, model: &mut Model, scope: Uuid) {
    let mut values = Vec::new();
    for key in KEYS {
        if random.below(2) == 0 {
            continue;
        }
        let value = (random.below(5) > 0).then(|| any_value(random, key));
        values.push((key, value.unwrap_or_default()));
    }
    if values.is_empty() {
        return;
    }
    rig.set(scope, &values).await;
    for (key, value) in values {
        model.put(scope, key, (!value.is_null()).then_some(value));
    }
}

async fn roll_key(
    rig: &Rig,
    random: &SeededRandom,
    model: &mut Model,
    scope: Uuid,
    key: &'static str,
) {
    let versions = model.versions.entry((scope, key)).or_default();
    if versions.is_empty() {
        return;
    }
    let i = usize::try_from(random.below(versions.len() as u64)).unwrap();
    let value = versions[i].clone();
    let word = if scope == SYSTEM {
        json!("system")
    } else {
        json!(scope)
    };
    let body = json!({ "version": i + 1, "scope": word });
    let (status, done) = rig
        .ask("POST", &format!("/{key}/rollback"), Some(body))
        .await;
    assert_eq!(status, 200, "{done}");
    model.put(scope, key, value);
}

async fn roll_moment(rig: &Rig, random: &SeededRandom, model: &mut Model, scope: Uuid) {
    let all: Vec<u64> = model.at.keys().copied().collect();
    let seq = all[usize::try_from(random.below(all.len() as u64)).unwrap()];
    let word = if scope == SYSTEM {
        json!("system")
    } else {
        json!(scope)
    };
    let (status, done) = rig
        .ask(
            "POST",
            "/rollback",
            Some(json!({ "seq": seq, "scope": word })),
        )
        .await;
    assert_eq!(status, 200, "{done}");
    let then = model.at[&seq].clone();
    for key in KEYS {
        model.put(scope, key, then.get(&(scope, key)).cloned());
    }
}

fn compare(rig: &Rig, model: &Model, step: usize) {
    let state = rig.core.live.state();
    for scope in [SYSTEM, DEFAULT] {
        for key in KEYS {
            let stored = state.own(scope, key).map(|v| (*v).clone());
            assert_eq!(
                stored.as_ref(),
                model.values.get(&(scope, key)),
                "{key} of {scope} at step {step}"
            );
            let versions = model.versions.get(&(scope, key)).map_or(0, Vec::len);
            assert_eq!(
                state.version(scope, key),
                versions as u64,
                "{key} of {scope} at step {step}"
            );
        }
    }
}
