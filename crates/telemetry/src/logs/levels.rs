//! Levels per target that can change while the process runs (CT-133).

use std::sync::Arc;

use parking_lot::RwLock;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;

use super::LogError;

#[derive(Debug, Clone)]
pub(super) struct Levels(Arc<RwLock<Current>>);

#[derive(Debug)]
struct Current {
    text: String,
    targets: Targets,
}

impl Levels {
    pub(super) fn parse(text: &str) -> Result<Self, LogError> {
        Ok(Self(Arc::new(RwLock::new(Current::parse(text)?))))
    }

    pub(super) fn set(&self, text: &str) -> Result<(), LogError> {
        let current = Current::parse(text)?;
        *self.0.write() = current;
        // Every call site remembers whether it is wanted.
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        self.0.read().text.clone()
    }

    pub(super) fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Spans of ours carry the request's ids for lines of any level.
        let carries_ids = metadata.is_span()
            && *metadata.level() <= Level::INFO
            && metadata.target().starts_with("portico");
        carries_ids
            || self
                .0
                .read()
                .targets
                .would_enable(metadata.target(), metadata.level())
    }
}

impl Current {
    fn parse(text: &str) -> Result<Self, LogError> {
        let wrong = |why: String| LogError::Levels(text.to_owned(), why);
        for part in text.split(',').map(str::trim) {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            let known = ["off", "error", "warn", "info", "debug", "trace"];
            if !known.contains(&level.to_ascii_lowercase().as_str()) {
                return Err(wrong(format!("`{level}` is none of {}", known.join(", "))));
            }
        }
        let compact: String = text.split_ascii_whitespace().collect();
        let targets = compact.parse().map_err(|e| wrong(format!("{e}")))?;
        Ok(Self {
            text: compact,
            targets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_levels_change_nothing() {
        let levels = Levels::parse("info, portico_gateway=debug").unwrap();
        assert_eq!(levels.text(), "info,portico_gateway=debug");
        for bad in ["inf", "", "portico=", "info,,debug", "a=b=c"] {
            assert!(levels.set(bad).is_err(), "{bad}");
        }
        assert_eq!(levels.text(), "info,portico_gateway=debug");
        levels.set("warn").unwrap();
        assert_eq!(levels.text(), "warn");
    }
}
