//! What can be wrong with a release.

use http::HeaderName;
use portico_base::FieldFault;

use super::Faults;
use crate::objects::doc::{Candidate, GuardsDoc, HashBy, Matcher, PlanDoc, ReleaseDoc, Validate};

const MAX_STEPS: usize = 50;
/// A week.
const MAX_HOLD_S: u32 = 7 * 86_400;
const MAX_WINDOW_S: u32 = 86_400;

impl Validate for ReleaseDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        if let Some(stable) = &self.stable {
            version(&mut f, "stable", stable);
        }
        if let Some(candidate) = &self.candidate {
            trial(&mut f, candidate);
            let same = self.stable.as_deref() == Some(candidate.version.as_str());
            f.check(
                !same,
                "candidate.version",
                "conflict",
                "must be another version than `stable`",
            );
        }
        if let Some(pickable) = &self.pickable {
            f.list("pickable", pickable);
            for (i, one) in pickable.iter().enumerate() {
                version(&mut f, &format!("pickable[{i}]"), one);
            }
        }
        if let Some(plan) = &self.plan {
            steps(&mut f, plan);
            guards(&mut f, &plan.guards);
        }
        match self.balance.as_ref().and_then(|b| b.by.as_ref()) {
            Some(HashBy::Header(name)) => header(&mut f, "balance.by.header", name),
            Some(HashBy::Cookie(name)) => filled(&mut f, "balance.by.cookie", name),
            _ => {}
        }
        f.check(
            self.rollback_window_s.is_none_or(|s| s <= MAX_WINDOW_S),
            "rollback_window_s",
            "out_of_range",
            "must be at most 86400",
        );
        f.0
    }
}

fn trial(f: &mut Faults, candidate: &Candidate) {
    version(f, "candidate.version", &candidate.version);
    percent(f, "candidate.weight", candidate.weight);
    f.list("candidate.matchers", &candidate.matchers);
    for (i, matcher) in candidate.matchers.iter().enumerate() {
        let at = format!("candidate.matchers[{i}]");
        match matcher {
            Matcher::Header(one) => header(f, &format!("{at}.header.name"), &one.name),
            Matcher::Cookie(one) => filled(f, &format!("{at}.cookie.name"), &one.name),
            Matcher::User(text) | Matcher::Role(text) => filled(f, &at, text),
            Matcher::Percent(share) => percent(f, &format!("{at}.percent"), *share),
            Matcher::Tenant(_) => {}
        }
    }
}

fn steps(f: &mut Faults, plan: &PlanDoc) {
    f.check(
        (1..=MAX_STEPS).contains(&plan.steps.len()),
        "plan.steps",
        "out_of_range",
        "must be 1 to 50 weights",
    );
    for (i, step) in plan.steps.iter().enumerate().take(MAX_STEPS) {
        percent(f, &format!("plan.steps[{i}]"), *step);
    }
    let rising = plan.steps.windows(2).all(|two| two[0] < two[1]);
    f.check(
        rising && plan.steps.first().is_none_or(|first| *first > 0.0),
        "plan.steps",
        "order",
        "must be above 0 and rise",
    );
    f.check(
        (1..=MAX_HOLD_S).contains(&plan.hold_s),
        "plan.hold_s",
        "out_of_range",
        "must be from 1 to 604800",
    );
}

fn guards(f: &mut Faults, guards: &GuardsDoc) {
    f.check(
        (1..=1_000_000).contains(&guards.min_requests),
        "plan.guards.min_requests",
        "out_of_range",
        "must be from 1 to 1000000",
    );
    let within = |value: Option<f64>, least: f64, most: f64| {
        value.is_none_or(|v| (least..=most).contains(&v))
    };
    f.check(
        within(guards.error_points, 0.0, 100.0),
        "plan.guards.error_points",
        "out_of_range",
        "must be from 0 to 100",
    );
    f.check(
        within(guards.p95_ratio, 1.0, 1_000.0),
        "plan.guards.p95_ratio",
        "out_of_range",
        "must be from 1 to 1000",
    );
    f.check(
        within(Some(guards.p95_slack_ms), 0.0, 60_000.0),
        "plan.guards.p95_slack_ms",
        "out_of_range",
        "must be from 0 to 60000",
    );
}

fn version(f: &mut Faults, field: &str, text: &str) {
    f.check(
        !text.is_empty() && text.len() <= 64,
        field,
        "invalid",
        "must be a version of 1 to 64 bytes",
    );
}

fn header(f: &mut Faults, field: &str, name: &str) {
    let good = HeaderName::from_bytes(name.as_bytes()).is_ok();
    f.check(good, field, "invalid", "is not a header name");
}

fn filled(f: &mut Faults, field: &str, text: &str) {
    f.check(!text.is_empty(), field, "required", "must not be empty");
}

fn percent(f: &mut Faults, field: &str, share: f64) {
    let tenths = share * 10.0;
    let good = (0.0..=100.0).contains(&share) && (tenths - tenths.round()).abs() < 1e-9;
    f.check(
        good,
        field,
        "out_of_range",
        "must be from 0 to 100 in steps of 0.1",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(doc: serde_json::Value) -> Vec<String> {
        let doc: ReleaseDoc = serde_json::from_value(doc).expect("a release");
        doc.faults().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn all_faults_of_a_release_are_named() {
        let bad = json!({
            "stable": "", "candidate": { "version": "", "weight": 0.05, "matchers": [
                { "header": { "name": "a b" } }, { "cookie": { "name": "" } }, { "user": "" }, { "percent": 101 } ] },
            "pickable": [""], "rollback_window_s": 86_401, "balance": { "policy": "hash", "by": { "cookie": "" } },
            "plan": { "steps": [5, 5, 100.05], "hold_s": 0, "guards": {
                "min_requests": 0, "error_points": -1, "p95_ratio": 0.5, "p95_slack_ms": -1 } },
        });
        let wanted = [
            "stable",
            "candidate.version",
            "candidate.weight",
            "candidate.matchers[0].header.name",
            "candidate.matchers[1].cookie.name",
            "candidate.matchers[2]",
            "candidate.matchers[3].percent",
            "candidate.version",
            "pickable[0]",
            "plan.steps[2]",
            "plan.steps",
            "plan.hold_s",
            "plan.guards.min_requests",
            "plan.guards.error_points",
            "plan.guards.p95_ratio",
            "plan.guards.p95_slack_ms",
            "balance.by.cookie",
            "rollback_window_s",
        ];
        assert_eq!(fields(bad), wanted);
        assert_eq!(fields(json!({ "plan": { "steps": [] } })), ["plan.steps"]);
        assert!(fields(json!({ "plan": { "steps": [0] } })).contains(&"plan.steps".to_owned()));
    }

    #[test]
    fn a_plan_has_the_defaults_of_the_specification() {
        let doc: ReleaseDoc = serde_json::from_value(json!({ "plan": {} })).expect("a release");
        let plan = doc.plan.clone().expect("a plan");
        assert_eq!(plan.steps, [1.0, 5.0, 10.0, 25.0, 50.0, 100.0]);
        assert_eq!((plan.hold_s, plan.guards.min_requests), (300, 100));
        assert_eq!(
            (plan.guards.error_points, plan.guards.p95_ratio),
            (Some(1.0), Some(1.3))
        );
        assert_eq!(doc.faults(), []);
    }
}
