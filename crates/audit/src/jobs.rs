//! Work that is due again and again: sealing is a worker of its own, verification and retention are here.

use std::sync::Arc;
use std::time::Duration;

use portico_jobs::{Cron, Handler, JobSet};

use crate::hub::Core;
use crate::ops::{retain, verify};
use crate::settings::{RETAIN_SCHEDULE, VERIFY_SCHEDULE};

/// A chain of 10,000,000 links takes minutes.
const LIMIT: Duration = Duration::from_secs(3_600);

/// All jobs.
pub(crate) fn all(core: &Arc<Core>) -> JobSet {
    let (daily, asked, old) = (Arc::clone(core), Arc::clone(core), Arc::clone(core));
    JobSet::new()
        .cron(
            Cron::new(
                "audit.verify",
                &core.settings,
                &VERIFY_SCHEDULE,
                move |_| {
                    let core = Arc::clone(&daily);
                    async move {
                        verify::run(&core, verify::Part::default()).await?;
                        Ok(())
                    }
                },
            )
            .limit(LIMIT),
        )
        .cron(
            Cron::new(
                "audit.retain",
                &core.settings,
                &RETAIN_SCHEDULE,
                move |job| {
                    let core = Arc::clone(&old);
                    async move {
                        retain::run(&core, &job.context, &job.cancel).await?;
                        Ok(())
                    }
                },
            )
            .limit(LIMIT),
        )
        .with_handler(
            Handler::new(verify::JOB, move |job| {
                let core = Arc::clone(&asked);
                async move {
                    verify::run(&core, job.payload()?).await?;
                    Ok(())
                }
            })
            .at_once(1)
            .limit(LIMIT),
        )
}
