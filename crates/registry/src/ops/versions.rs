//! Forgetting versions that nobody runs any more: their endpoints would hold for ever.

use std::sync::Arc;

use chrono::Duration;
use portico_base::Context;
use uuid::Uuid;

use crate::domain::event::EventKind;
use crate::domain::service::Service;
use crate::error::Result;
use crate::hub::Core;
use crate::store;
use crate::writer::Writer;

/// A version without instances is kept so long after it was first seen: a restart is no end.
const KEPT: Duration = Duration::days(1);

/// Removes versions without instances from services that have another one. Answers how many.
pub(crate) async fn forget(core: &Arc<Core>, cx: &Context) -> Result<usize> {
    let mut gone = 0;
    for id in candidates(core, cx) {
        let mut w = Writer::begin(core, cx).await?;
        let Some((service, unused)) = unused(core, cx, id) else {
            continue;
        };
        let mut next = Service::clone(&service);
        for version in &unused {
            next.versions.remove(version);
            store::services::delete_version(w.tx(), id, version).await?;
        }
        next.updated_at = w.now();
        let next = Arc::new(next);
        w.put_service(&next, &[]).await?;
        w.service_event(EventKind::ServiceChanged, &next);
        w.commit().await?;
        gone += unused.len();
    }
    Ok(gone)
}

fn candidates(core: &Core, cx: &Context) -> Vec<Uuid> {
    let ids: Vec<Uuid> = core
        .model
        .read()
        .services()
        .filter(|e| !e.service.builtin)
        .map(|e| e.service.id)
        .collect();
    ids.into_iter()
        .filter(|id| unused(core, cx, *id).is_some())
        .collect()
}

fn unused(core: &Core, cx: &Context, id: Uuid) -> Option<(Arc<Service>, Vec<Arc<str>>)> {
    let model = core.model.read();
    let entry = model.service(id)?;
    let used: Vec<Arc<str>> = entry
        .instances
        .iter()
        .filter_map(|i| model.instance(*i))
        .map(|e| Arc::clone(&e.instance.definition.version))
        .collect();
    if used.is_empty() {
        // The service is down, not changed: what it declares holds when it comes back.
        return None;
    }
    let unused: Vec<Arc<str>> = entry
        .service
        .versions
        .iter()
        .filter(|(version, of)| !used.contains(version) && cx.now() - of.created_at >= KEPT)
        .map(|(version, _)| Arc::clone(version))
        .collect();
    (!unused.is_empty()).then(|| (Arc::clone(&entry.service), unused))
}
