//! Records bound tokens that came from another network (ID-95): the data plane notices, this writes.

use std::sync::Arc;

use portico_contract::audit::{Outcome, Record};
use tokio_util::sync::CancellationToken;

use crate::edge::Mismatch;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::unit::Unit;

/// Records what the edge notices until told to stop.
pub(crate) async fn follow(core: &Arc<Core>, stop: &CancellationToken) {
    while let Some(noticed) = stop.run_until_cancelled(core.edge.mismatches()).await {
        if let Err(error) = record(core, &noticed).await {
            tracing::warn!(err = %error, "a token from a foreign network could not be recorded");
        }
    }
}

/// Writes one record a session.
pub(crate) async fn record(core: &Arc<Core>, noticed: &[Mismatch]) -> Result<()> {
    let mut cx = core.own_context("identity.mismatches");
    for mismatch in noticed {
        cx.caller.address = mismatch.address;
        let unit = Unit::begin(core, &cx).await?;
        let user = mismatch.user.to_string();
        let record = Record {
            outcome: Outcome::Denied,
            code: Some(reason::IP_MISMATCH.code),
            ..Record::done(
                "identity.session.ip_mismatch",
                "session",
                mismatch.session.to_string(),
                mismatch.tenant,
            )
            .change("user", None, Some(user.into()))
        };
        unit.audit(record).await?;
        unit.commit().await?;
    }
    Ok(())
}
