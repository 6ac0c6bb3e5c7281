//! Faults and warnings: what is wrong, where it was written, what is allowed, and the nearest key.

use std::fmt;

use serde::Serialize;

use crate::origin::Origin;

/// Exit code of a program that stops because of its configuration (operations §5).
pub const EXIT_CODE: u8 = 2;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where it was written.
    pub origin: Origin,
    /// The key as written; empty when the fault is about a whole file.
    pub key: String,
    /// What is wrong, without secrets.
    pub problem: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// The nearest valid name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
}

impl Fault {
    /// A fault of one key.
    pub fn new(origin: &Origin, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            key: key.into(),
            problem: problem.into(),
            allowed: None,
            did_you_mean: None,
        }
    }

    /// Adds what is allowed.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Adds the nearest valid name, if there is one.
    #[must_use]
    pub fn did_you_mean(mut self, name: Option<String>) -> Self {
        self.did_you_mean = name;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if let Some(name) = &self.did_you_mean {
            write!(f, ", did you mean `{name}`?")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        Ok(())
    }
}

/// Every mistake that was found, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 configuration error:")?,
            n => write!(f, "{n} configuration errors:")?,
        }
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// Something that works but should be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Where it was written.
    pub origin: Origin,
    /// The key; empty when it is about a file or a variable.
    pub key: String,
    /// What to know and what to do.
    pub message: String,
}

impl Warning {
    /// A warning about one key.
    pub fn new(origin: &Origin, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: `{}`: {}", self.origin, self.key, self.message)
        }
    }
}

/// The candidate that someone who wrote `name` most likely meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<String> {
    let wanted = plain(name);
    if wanted.len() > 128 {
        return None;
    }
    // A part of the path was left out: `log.level` for `telemetry.log.level`.
    let tail = format!(".{wanted}");
    let mut tails = candidates
        .clone()
        .filter(|candidate| candidate.ends_with(&tail));
    if let (Some(only), None) = (tails.next(), tails.next()) {
        return Some(only.to_owned());
    }
    let limit = (wanted.chars().count() / 4).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::osa_distance(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, candidate)| (*distance, candidate.len()))
        .map(|(_, candidate)| candidate.to_owned())
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}
