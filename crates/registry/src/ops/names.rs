//! Reserving names, and releasing those that somebody owns (RG-9).

use std::sync::Arc;

use portico_base::{Context, Permission, name};

use super::{audited, need};
use crate::domain::event::EventKind;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::model::Reservation;
use crate::writer::Writer;

const WRITE: Permission = Permission::new("registry:name:write");
/// Reserved names of an installation.
const MOST: usize = 10_000;

/// Reserves a name: only tokens for exactly this name, and administrators, may register it from now on.
pub(crate) async fn reserve(
    core: &Arc<Core>,
    cx: &Context,
    wanted: &str,
    note: &str,
) -> Result<(Arc<Reservation>, bool)> {
    need(cx, WRITE)?;
    if !name::is_service_name(wanted) {
        return Err(Error::field(
            "name",
            "form",
            "must be 2 to 40 of a-z, 0-9 and `-`, a letter first",
        ));
    }
    if name::is_reserved(wanted) {
        return Err(Error::Conflict(
            "this name is reserved for the platform already",
        ));
    }
    if note.len() > 256 || note.chars().any(char::is_control) {
        return Err(Error::field(
            "note",
            "form",
            "must be at most 256 bytes without control characters",
        ));
    }
    let mut w = Writer::begin(core, cx).await?;
    {
        let model = core.model.read();
        if let Some(known) = model.reservation(wanted) {
            return Ok((Arc::clone(known), false));
        }
        if model.reservations().count() >= MOST {
            return Err(Error::Conflict(
                "there are as many reserved names as there may be",
            ));
        }
    }
    let reservation = Reservation {
        name: wanted.to_owned(),
        note: note.to_owned(),
        created_by: cx.principal().subject.to_string(),
        created_at: w.now(),
    };
    w.put_reservation(reservation.clone()).await?;
    w.audit(audited("registry.name.reserved", "name", wanted, None))
        .await?;
    w.commit().await?;
    Ok((Arc::new(reservation), true))
}

/// All reserved names.
pub(crate) fn list(core: &Core, cx: &Context) -> Result<Vec<Arc<Reservation>>> {
    need(cx, WRITE)?;
    Ok(core.model.read().reservations().map(Arc::clone).collect())
}

/// Releases a name: its reservation, and the services of this name that have no instance any more.
pub(crate) async fn release(core: &Arc<Core>, cx: &Context, wanted: &str) -> Result<()> {
    need(cx, WRITE)?;
    let mut w = Writer::begin(core, cx).await?;
    let (reserved, services) = {
        let model = core.model.read();
        let named: Vec<_> = model
            .services()
            .filter(|e| *e.service.name == *wanted)
            .collect();
        if named.iter().any(|e| !e.instances.is_empty()) {
            return Err(Error::Conflict("the service still has instances"));
        }
        let services: Vec<_> = named.iter().map(|e| Arc::clone(&e.service)).collect();
        (model.reservation(wanted).is_some(), services)
    };
    if !reserved && services.is_empty() {
        return Err(Error::UnknownName);
    }
    if reserved {
        w.drop_reservation(wanted).await?;
    }
    for service in &services {
        w.drop_service(service).await?;
        w.service_event(EventKind::ServiceRemoved, service);
    }
    w.audit(audited("registry.name.released", "name", wanted, None))
        .await?;
    w.commit().await?;
    Ok(())
}
