//! Items of the system page: a status, facts, and a sentence in both languages.

use serde_json::Value;

/// How something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Nothing is to be done.
    Ok,
    /// Somebody should look at it.
    Degraded,
    /// Something does not work.
    Failed,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "ok" => Self::Ok,
            "failed" => Self::Failed,
            _ => Self::Degraded,
        }
    }
}

/// One thing and how it does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) name: &'static str,
    pub(crate) status: Status,
    /// A sentence for people, in English and Chinese.
    pub(crate) verdict: (String, String),
    pub(crate) facts: Value,
}

impl Item {
    pub(crate) fn new(
        name: &'static str,
        status: Status,
        en: impl Into<String>,
        zh: impl Into<String>,
        facts: Value,
    ) -> Self {
        Self {
            name,
            status,
            verdict: (en.into(), zh.into()),
            facts,
        }
    }
}
