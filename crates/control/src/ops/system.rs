//! The system page, and log levels for a while.

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, FieldFault, Timestamp, id};
use portico_contract::audit::Record;

use super::need;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::permissions::{SYSTEM_READ, SYSTEM_WRITE};
use crate::system::levels::{Raised, TOPIC};
use crate::system::{Item, look};
use crate::unit::Unit;

/// Longest time that a level is raised, in seconds.
pub(crate) const LONGEST_S: u32 = 3_600;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the system page shows.
pub(crate) struct Overview {
    pub items: Vec<Item>,
    pub replica: Arc<str>,
    /// Log levels of this process: of the configuration, and for a while.
    pub levels: (Option<String>, Vec<Raised>),
}

/// Looks at everything.
pub(crate) async fn overview(core: &Core, cx: &Context) -> Result<Overview> {
    need(cx, SYSTEM_READ)?;
    let items = look(&core.db, &core.system, cx.now()).await?;
    Ok(Overview {
        items,
        replica: Arc::clone(&core.system.replica),
        levels: core.system.levels.shown(),
    })
}

/// Changes the log level of a target in every process, for at most an hour; 0 seconds ends it.
pub(crate) async fn log_level(
    core: &Arc<Core>,
    cx: &Context,
    target: &str,
    level: &str,
    for_s: u32,
) -> Result<Timestamp> {
    need(cx, SYSTEM_WRITE)?;
    let faults = faults(target, level, for_s);
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let until = cx.now() + Duration::seconds(i64::from(for_s));
    let raised = Raised {
        target: target.to_owned(),
        level: level.to_owned(),
        until,
    };
    let unit = Unit::begin(core, cx).await?;
    unit.tx.publish(TOPIC, target, &raised)?;
    let shown = if target.is_empty() { "all" } else { target };
    let record = Record::done(
        "control.log_level.changed",
        "log_level",
        shown,
        id::TENANT_SYSTEM,
    )
    .change("level", None, Some(level.into()))
    .change("for_s", None, Some(for_s.into()));
    unit.audit(record).await?;
    unit.commit().await?;
    core.system.levels.put(raised);
    Ok(until)
}

fn faults(target: &str, level: &str, for_s: u32) -> Vec<FieldFault> {
    let mut faults = Vec::new();
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b':');
    if target.len() > 100 || !target.bytes().all(good) {
        let message = "must be a module path such as portico_gateway::pipeline";
        faults.push(FieldFault::new("target", "form", message));
    }
    if !LEVELS.contains(&level) {
        let message = format!("must be one of {}", LEVELS.join(", "));
        faults.push(FieldFault::new("level", "unknown", message));
    }
    if for_s > LONGEST_S {
        let message = format!("must be at most {LONGEST_S}");
        faults.push(FieldFault::new("for_s", "range", message));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_of_a_level_are_told() {
        assert!(faults("portico_gateway::pipeline", "debug", 3_600).is_empty());
        assert!(faults("", "off", 0).is_empty());
        let codes: Vec<_> = faults("a=b,c", "loud", 3_601)
            .into_iter()
            .map(|fault| fault.field)
            .collect();
        assert_eq!(codes, ["target", "level", "for_s"]);
    }
}
