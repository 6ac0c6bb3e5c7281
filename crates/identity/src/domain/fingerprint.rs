//! How much a device has changed: keyed hashes of its components, compared as a weighted score (ID-124).

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use portico_base::Secret;
use serde_json::Value;

use super::device::Fingerprint;

/// The components that count, and how much when no setting says otherwise.
pub(crate) const COMPONENTS: [(&str, u32); 8] = [
    ("platform", 25),
    ("model", 20),
    ("browser", 15),
    ("os", 10),
    ("app", 10),
    ("screen", 10),
    ("language", 5),
    ("time_zone", 5),
];
/// Under this name a stored fingerprint keeps the id of the master key behind its hashes.
const KID: &str = "_kid";

/// What a score leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// As before, or nearly.
    Same,
    /// Worth a line in the history.
    Note,
    /// The user is told.
    Mail,
    /// The session must authenticate again before anything that asks for strength.
    StepUp,
    /// The session ends.
    Kill,
}

/// Weights and thresholds of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    weights: [u32; COMPONENTS.len()],
    note: u32,
    mail: u32,
    step_up: u32,
    kill: u32,
}

impl Rules {
    /// Rules from their settings; what is missing or no number keeps its default.
    pub(crate) fn of(weights: &Value, thresholds: &Value) -> Self {
        let number = |from: &Value, name: &str, default: u32| {
            from.get(name)
                .and_then(Value::as_u64)
                .map_or(default, |n| u32::try_from(n.min(1_000)).unwrap_or(default))
        };
        Self {
            weights: COMPONENTS.map(|(name, default)| number(weights, name, default)),
            note: number(thresholds, "note", 30),
            mail: number(thresholds, "mail", 50),
            step_up: number(thresholds, "step_up", 70),
            kill: number(thresholds, "kill", 90),
        }
    }

    /// What a score leads to.
    pub(crate) const fn verdict(&self, score: u32) -> Verdict {
        match score {
            s if s >= self.kill => Verdict::Kill,
            s if s >= self.step_up => Verdict::StepUp,
            s if s >= self.mail => Verdict::Mail,
            s if s >= self.note => Verdict::Note,
            _ => Verdict::Same,
        }
    }

    /// Sum of the weights of what changed, at most 100. `whole`: what the device once had and does not show
    /// now counts as changed, so that leaving components away helps nobody.
    pub(crate) fn score(&self, before: &Fingerprint, now: &Fingerprint, whole: bool) -> u32 {
        let changed = |name: &str| match (before.get(name), now.get(name)) {
            (Some(before), Some(now)) => before != now,
            (Some(_), None) => whole,
            (None, _) => false,
        };
        let sum: u32 = COMPONENTS
            .iter()
            .zip(self.weights)
            .filter(|((name, _), _)| changed(name))
            .map(|(_, weight)| weight)
            .sum();
        sum.min(100)
    }
}

/// Id of the master key that a stored fingerprint was hashed with.
pub(crate) fn kid(stored: &Fingerprint) -> Option<&str> {
    stored.get(KID).map(String::as_str)
}

/// Where a fingerprint's key comes from: another one for each device, so that equal components of two
/// devices are not seen to be equal in the table.
pub(crate) fn key_info(device: uuid::Uuid) -> String {
    format!("portico/fingerprint/1|{}", device.simple())
}

/// Keyed hashes of the known components.
pub(crate) fn hashed(
    components: &BTreeMap<String, String>,
    kid: &str,
    key: &Secret<[u8; 32]>,
) -> Fingerprint {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut out: Fingerprint = COMPONENTS
        .iter()
        .filter_map(|(name, _)| {
            let value = components.get(*name).filter(|v| !v.is_empty())?;
            let tag = hmac::sign(&key, format!("{name}|{value}").as_bytes());
            Some(((*name).to_owned(), hex::encode(&tag.as_ref()[..16])))
        })
        .collect();
    out.insert(KID.to_owned(), kid.to_owned());
    out
}

/// The family of a browser or client library by its `User-Agent`, never its version.
pub(crate) fn family(agent: &str) -> Option<&str> {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "edge"),
        ("OPR/", "opera"),
        ("MicroMessenger", "wechat"),
        ("Firefox/", "firefox"),
        ("Chrome/", "chrome"),
        ("Safari/", "safari"),
    ];
    let known = BROWSERS.iter().find(|(mark, _)| agent.contains(mark));
    known.map(|(_, name)| *name).or_else(|| {
        agent
            .split(['/', ' '])
            .next()
            .filter(|first| !first.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn print(pairs: &[(&str, &str)]) -> Fingerprint {
        let map = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        hashed(&map, "mk1", &Secret::new([7; 32]))
    }

    const ALL: [(&str, &str); 8] = [
        ("platform", "ios"),
        ("model", "iPhone17,1"),
        ("browser", "safari"),
        ("os", "18"),
        ("app", "portico"),
        ("screen", "phone"),
        ("language", "zh"),
        ("time_zone", "Asia/Shanghai"),
    ];

    #[test]
    fn an_update_is_no_attack_and_another_machine_is() {
        let rules = Rules::of(&json!({}), &json!({}));
        let before = print(&ALL);
        let with = |changes: &[(&str, &str)]| {
            let mut now: BTreeMap<&str, &str> = ALL.into_iter().collect();
            now.extend(changes.iter().copied());
            let now: Vec<_> = now.into_iter().collect();
            let score = rules.score(&before, &print(&now), true);
            (score, rules.verdict(score))
        };
        assert_eq!(with(&[]), (0, Verdict::Same));
        assert_eq!(with(&[("os", "19"), ("app", "beta")]), (20, Verdict::Same));
        assert_eq!(with(&[("model", "x"), ("os", "19")]), (30, Verdict::Note));
        assert_eq!(
            with(&[
                ("model", "x"),
                ("browser", "chrome"),
                ("os", "15"),
                ("app", "y")
            ]),
            (55, Verdict::Mail)
        );
        let other = [
            ("platform", "desktop"),
            ("model", "PC"),
            ("browser", "firefox"),
            ("os", "11"),
        ];
        assert_eq!(with(&other), (70, Verdict::StepUp));
        let all: Vec<_> = ALL.iter().map(|(k, _)| (*k, "other")).collect();
        assert_eq!(with(&all), (100, Verdict::Kill));
    }

    #[test]
    fn leaving_components_away_helps_only_whom_nobody_asked() {
        let rules = Rules::of(&json!({}), &json!({}));
        let few = print(&[("browser", "safari")]);
        assert_eq!(rules.score(&print(&ALL), &few, true), 85);
        assert_eq!(rules.score(&print(&ALL), &few, false), 0);
        assert_eq!(rules.score(&few, &print(&ALL), true), 0);
    }

    #[test]
    fn settings_replace_weights_and_thresholds() {
        let rules = Rules::of(
            &json!({"os": 100}),
            &json!({"kill": 100, "note": "no number"}),
        );
        let score = rules.score(&print(&[("os", "1")]), &print(&[("os", "2")]), true);
        assert_eq!((score, rules.verdict(score)), (100, Verdict::Kill));
        assert_eq!(rules.verdict(99), Verdict::StepUp);
        assert_eq!(rules.verdict(30), Verdict::Note);
    }

    #[test]
    fn hashes_tell_nothing_without_the_key() {
        let one = print(&[("os", "18"), ("unknown", "x")]);
        assert_eq!(one.len(), 2, "{one:?}");
        assert_eq!(kid(&one), Some("mk1"));
        let map = BTreeMap::from([("os".to_owned(), "18".to_owned())]);
        let other = hashed(&map, "mk1", &Secret::new([8; 32]));
        assert_ne!(one["os"], other["os"]);
    }

    #[test]
    fn families_have_no_versions() {
        let of = |agent| family(agent);
        let edge =
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0";
        assert_eq!(of(edge), Some("edge"));
        assert_eq!(
            of("Mozilla/5.0 (X11) Gecko/20100101 Firefox/140.0"),
            Some("firefox")
        );
        assert_eq!(of("okhttp/5.1.0"), Some("okhttp"));
        assert_eq!(of(""), None);
    }
}
