//! Health checks: what is asked, how often, and what the answers mean.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::node::NodeKey;

/// Longest text kept of a check's output, in bytes (Consul's `CheckOutputMaxSize`).
pub(crate) const OUTPUT_MAX: usize = 4096;

/// What a check says. Ordered: the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical]
            .into_iter()
            .find(|s| s.as_str() == text)
    }
}

/// Which HTTP statuses are good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expect {
    /// Good statuses; empty means 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// Statuses that warn (Consul: 429).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warn: Vec<u16>,
    /// A regular expression that the first 64 KiB of the body must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Probe {
    /// Somebody reports within the time.
    Ttl { ttl_ms: u64 },
    /// An HTTP request. The target is a path of the instance or a whole URL.
    Http {
        target: String,
        #[serde(default = "get")]
        method: String,
        #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
        headers: IndexMap<String, Vec<String>>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
        expect: Expect,
        #[serde(default)]
        tls_skip_verify: bool,
    },
    /// A connection. Without a target: to the instance itself.
    Tcp { target: Option<String> },
    /// `grpc.health.v1.Health/Check`. Without a target: to the instance itself.
    Grpc {
        target: Option<String>,
        #[serde(default)]
        service: String,
        #[serde(default)]
        tls: bool,
    },
    /// The state of another service's instances on the same node, or of a node.
    Alias {
        service: Option<String>,
        node: Option<String>,
    },
    /// Whatever `catalog/register` says; nobody looks.
    Stated,
}

fn get() -> String {
    "GET".to_owned()
}

impl Probe {
    /// The kind in API, metrics and Consul's `Type`.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Ttl { .. } => "ttl",
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Grpc { .. } => "grpc",
            Self::Alias { .. } => "alias",
            Self::Stated => "",
        }
    }

    /// True when we go and look.
    pub(crate) const fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Http { .. } | Self::Tcp { .. } | Self::Grpc { .. }
        )
    }
}

/// A check's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckSpec {
    #[serde(flatten)]
    pub probe: Probe,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// Failures in a row that make it critical.
    pub fall: u8,
    /// Successes in a row that make it pass again.
    pub rise: u8,
    /// The instance is removed when the check was critical for so long; 0 never.
    #[serde(default)]
    pub deregister_after_ms: u64,
    /// The registrar may check other hosts than the instance's (`registry:check:foreign`).
    #[serde(default)]
    pub foreign: bool,
}

impl CheckSpec {
    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Identity of a check: ids are unique on a node (C§5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CheckKey {
    pub node: NodeKey,
    pub id: Arc<str>,
}

/// A check and what it says now.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub key: CheckKey,
    /// The instance that it belongs to; absent: the whole node.
    pub instance: Option<Uuid>,
    pub name: Arc<str>,
    pub notes: Arc<str>,
    pub spec: Arc<CheckSpec>,
    pub status: Status,
    /// It has said something since it was made or restored; until then `status` is only a default.
    pub answered: bool,
    pub output: Arc<str>,
    /// Since when it has this status.
    pub since: Timestamp,
    /// Has a row of its own (Consul); the others belong to an instance's registration.
    pub stored: bool,
    pub create_index: u64,
    pub modify_index: u64,
}

/// Counts successes and failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    good: u8,
    bad: u8,
}

impl Streak {
    /// Takes one result and answers the status that holds after it. The first success of a check that
    /// never passed is enough; a warning needs no repetition.
    pub(crate) fn take(
        &mut self,
        result: Status,
        present: Status,
        fresh: bool,
        spec: &CheckSpec,
    ) -> Status {
        if result == Status::Critical {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
            if self.bad >= spec.fall.max(1) {
                Status::Critical
            } else {
                present
            }
        } else {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
            let enough = fresh || present != Status::Critical || self.good >= spec.rise.max(1);
            if enough { result } else { present }
        }
    }
}

impl Streak {
    /// It failed so often in a row that it is critical.
    pub(crate) const fn is_down(self, spec: &CheckSpec) -> bool {
        let fall = if spec.fall == 0 { 1 } else { spec.fall };
        self.bad >= fall
    }
}

/// Cuts an output to its longest length at a character's border.
pub(crate) fn cut_output(text: &str) -> &str {
    if text.len() <= OUTPUT_MAX {
        return text;
    }
    let mut end = OUTPUT_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn tcp() -> CheckSpec {
        CheckSpec {
            probe: Probe::Tcp { target: None },
            interval_ms: 10_000,
            timeout_ms: 2_000,
            fall: 2,
            rise: 2,
            deregister_after_ms: 0,
            foreign: false,
        }
    }

    #[test]
    fn two_down_two_up() {
        use Status::{Critical, Passing};
        let spec = tcp();
        let mut streak = Streak::default();
        let mut status = Passing;
        let mut seen = Vec::new();
        for result in [
            Critical, Passing, Critical, Critical, Passing, Critical, Passing, Passing,
        ] {
            status = streak.take(result, status, false, &spec);
            seen.push(status);
        }
        assert_eq!(
            seen,
            [
                Passing, Passing, Passing, Critical, Critical, Critical, Critical, Passing
            ]
        );
        let mut first = Streak::default();
        assert_eq!(
            first.take(Passing, Critical, true, &spec),
            Passing,
            "the first success is enough"
        );
    }

    #[test]
    fn specs_are_stable_json() {
        let text = serde_json::to_string(&tcp()).unwrap();
        let back: CheckSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(back, tcp());
    }

    #[test]
    fn outputs_are_cut_between_characters() {
        let long = "é".repeat(OUTPUT_MAX);
        assert_eq!(cut_output(&long).len(), OUTPUT_MAX);
        let odd = format!("x{long}");
        assert_eq!(cut_output(&odd).len(), OUTPUT_MAX - 1);
    }
}
