//! Reading: what is declared and what is in force. From memory, so that it goes on without the database.

use std::sync::Arc;

use portico_base::Context;

use super::scope::Sight;
use crate::domain::declared::Declared;
use crate::error::Result;
use crate::hub::Core;
use crate::views::{Setting, setting};

/// Declarations behind a key, at most `limit` and one more.
pub(crate) fn declarations(
    core: &Core,
    sight: &Sight,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<Arc<Declared>> {
    core.catalogue
        .list(prefix, sight.scope())
        .into_iter()
        .filter(|d| sight.sees(d) && after.is_none_or(|after| &*d.key > after))
        .take(limit + 1)
        .collect()
}

/// Values in force behind a key, at most `limit` and one more.
pub(crate) fn list(
    core: &Core,
    sight: &Sight,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<Setting> {
    let state = core.live.state();
    declarations(core, sight, prefix, after, limit)
        .iter()
        .map(|d| setting(core, &state, sight, d))
        .collect()
}

/// One value in force.
pub(crate) fn get(core: &Core, cx: &Context, scope: Option<&str>, key: &str) -> Result<Setting> {
    let sight = Sight::of(cx, scope)?;
    let declared = core
        .catalogue
        .get(key, sight.scope())
        .filter(|d| sight.sees(d))
        .ok_or_else(|| core.catalogue.missing(key))?;
    Ok(setting(core, &core.live.state(), &sight, &declared))
}
