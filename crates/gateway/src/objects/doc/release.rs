//! The release of a service: which version gets which requests, and how a new one is brought in (GW-80…83).

use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::BalanceDoc;

/// How traffic is divided among the versions of a service (GW-80); the object's name is the service's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = GatewayReleaseDoc)]
pub struct ReleaseDoc {
    /// The version that gets what the candidate does not; absent for the highest non-prerelease one.
    pub stable: Option<String>,
    /// The version on trial.
    pub candidate: Option<Candidate>,
    /// By what the same caller keeps the same side while the weight grows.
    pub sticky: Sticky,
    /// Versions that callers may choose; absent for stable, candidate, and the version before while its
    /// window is open.
    pub pickable: Option<Vec<String>>,
    /// How instances are chosen; absent for the setting.
    #[schema(value_type = Option<Object>)]
    pub balance: Option<BalanceDoc>,
    /// Seconds that the version before stays ready for `rollback` after a switch; 600 when absent.
    pub rollback_window_s: Option<u32>,
    /// Raises the candidate's weight step by step; absent where only people change it.
    pub plan: Option<PlanDoc>,
    /// How far it is. Written by Portico alone: what a caller sends here is ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ReleaseState>,
}

/// The version on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayReleaseCandidate)]
pub struct Candidate {
    /// Its version, as its instances registered it.
    pub version: String,
    /// Percent of the traffic in steps of 0.1.
    #[serde(default)]
    pub weight: f64,
    /// Whoever fits one of these gets the candidate, whatever the weight.
    #[serde(default)]
    pub matchers: Vec<Matcher>,
}

/// Chooses the candidate for some requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GatewayReleaseMatcher)]
pub enum Matcher {
    /// Requests with a header.
    Header(NameValue),
    /// Requests with a cookie.
    Cookie(NameValue),
    /// One user.
    User(String),
    /// Users of one tenant.
    Tenant(Uuid),
    /// Whoever has a role.
    Role(String),
    /// Percent of users, by a hash of the user.
    Percent(f64),
}

/// A name, and its value when not any will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayReleaseNameValue)]
pub struct NameValue {
    /// Of the header or cookie.
    pub name: String,
    /// Exactly this value; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// By what a caller is told from others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GatewayReleaseSticky)]
pub enum Sticky {
    /// The user, else the session, else the address.
    #[default]
    User,
    /// The session, else the address.
    Session,
    /// The address.
    Address,
    /// Each request anew.
    None,
}

/// Progressive delivery (GW-81): the weights in their order, how long each holds, and what stops it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = GatewayReleasePlan)]
pub struct PlanDoc {
    /// Percent, rising; `[1, 5, 10, 25, 50, 100]` when absent.
    pub steps: Vec<f64>,
    /// Seconds that each step holds; 300 when absent.
    pub hold_s: u32,
    /// What stops the candidate by itself.
    pub guards: GuardsDoc,
    /// After the hold of a last step of 100 % the candidate becomes the stable version by itself.
    pub promote: bool,
    /// No further step before each side had `guards.min_requests` requests in this trial. Without it the time
    /// alone decides where there is too little traffic to judge by.
    pub wait_for_traffic: bool,
}

impl Default for PlanDoc {
    fn default() -> Self {
        Self {
            steps: vec![1.0, 5.0, 10.0, 25.0, 50.0, 100.0],
            hold_s: 300,
            guards: GuardsDoc::default(),
            promote: true,
            wait_for_traffic: false,
        }
    }
}

/// What the candidate may do worse than the stable version at most; `null` switches a guard off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = GatewayReleaseGuards)]
pub struct GuardsDoc {
    /// Nothing is decided before each side had so many requests; 100 when absent.
    pub min_requests: u32,
    /// Points of percent that the error rate may be above the stable version's; 1 when absent.
    pub error_points: Option<f64>,
    /// How many times the stable version's 95th percentile the candidate's may be; 1.3 when absent.
    pub p95_ratio: Option<f64>,
    /// Differences of the 95th percentile up to so many milliseconds are noise; 1 when absent.
    pub p95_slack_ms: f64,
}

impl Default for GuardsDoc {
    fn default() -> Self {
        Self {
            min_requests: 100,
            error_points: Some(1.0),
            p95_ratio: Some(1.3),
            p95_slack_ms: 1.0,
        }
    }
}

/// How far a release is. Unknown fields are left alone, so that replicas of two releases of ours can share it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GatewayReleaseState)]
pub struct ReleaseState {
    /// What goes on.
    pub phase: Phase,
    /// Names this trial of the candidate: requests are counted under it, from zero, on every replica.
    #[serde(default)]
    pub run: i64,
    /// Steps of the plan that are reached; 0 before the first.
    #[serde(default)]
    pub step: u32,
    /// When the step or the phase began.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Milliseconds of the hold that were over when it was paused.
    #[serde(default)]
    pub held_ms: u64,
    /// The version before the last switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Why the candidate gets nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// What goes on with a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GatewayReleasePhase)]
pub enum Phase {
    /// No candidate.
    #[default]
    Steady,
    /// A candidate without a plan: people change its weight.
    Manual,
    /// The plan raises the weight.
    Progressing,
    /// The weight stays until somebody says `resume`; guards still watch.
    Paused,
    /// The last step is over: somebody must say `promote`.
    Waiting,
    /// Stopped by a guard or by hand: the candidate gets nothing, whatever its matchers say.
    Aborted,
}

impl Phase {
    /// The word in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Manual => "manual",
            Self::Progressing => "progressing",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Aborted => "aborted",
        }
    }
}

/// The version before the last switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = GatewayReleasePrevious)]
pub struct Previous {
    /// Its version.
    pub version: String,
    /// `rollback` returns to it until then.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// The window is over.
    #[serde(default)]
    pub over: bool,
}

/// Why and when a candidate was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GatewayReleaseStopped)]
pub struct Stopped {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The weight that it had.
    pub weight: f64,
    /// The guard that decided; absent when a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// The numbers that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
}

/// What is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GatewayReleaseGuard)]
pub enum Guard {
    /// Share of failed requests.
    ErrorRate,
    /// 95th percentile of the time to the first byte.
    P95,
}

impl Guard {
    /// All guards.
    pub const ALL: [Self; 2] = [Self::ErrorRate, Self::P95];

    /// The word in documents and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::P95 => "p95",
        }
    }
}

/// What a guard compared: percent for `error_rate`, milliseconds for `p95`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GatewayReleaseNumbers)]
pub struct Numbers {
    /// What was measured of the candidate.
    pub measured: f64,
    /// What it must not be above.
    pub limit: f64,
    /// The candidate's requests.
    pub candidate: Figures,
    /// The stable version's requests.
    pub stable: Figures,
}

/// Requests of one version, of all replicas together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GatewayReleaseFigures)]
pub struct Figures {
    /// How many.
    pub requests: u64,
    /// Answers of 5xx, and requests that got none.
    pub errors: u64,
    /// Their share in percent.
    pub error_percent: f64,
    /// 95th percentile of the time to the first byte; absent without requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
}
