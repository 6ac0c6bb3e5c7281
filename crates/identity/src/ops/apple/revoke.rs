//! Telling Apple that an account is not used any more, until it has heard it: an App Store rule (ID-70).

use std::sync::Arc;
use std::time::Duration;

use portico_base::envelope::Place;
use portico_jobs::{Failure, Handler, Job, JobRun};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{column, opened, sealed};
use crate::apple;
use crate::domain::identity::ExternalIdentity;
use crate::domain::user::User;
use crate::error::Result;
use crate::hub::Core;
use crate::store;
use crate::unit::Unit;

/// Kind of the job.
const KIND: &str = "identity.apple.revoke";
/// With waits from 5 minutes, doubled up to 8 hours, the last try is about a day after the first.
const TRIES: u32 = 10;
const FIRST: Duration = Duration::from_secs(300);
const MOST: Duration = Duration::from_secs(8 * 3_600);

/// A token in the queue. The row that it came from may be gone by then.
#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    /// Row of the envelope's place.
    row: Uuid,
    team: String,
    client_id: String,
    sealed: String,
}

/// Unlinks all identities of a user within the unit and lets Apple be told of each: for the end of an
/// account. Answers how many there were.
pub(crate) async fn revoke_all(unit: &Unit, user: &User) -> Result<usize> {
    let all = store::identities::of_user(&unit.tx, user.tenant, user.id).await?;
    for identity in &all {
        enqueue(unit, identity).await?;
        store::identities::delete(&unit.tx, user.tenant, identity.id).await?;
    }
    Ok(all.len())
}

/// Lets Apple be told that one identity is not used any more. Without a refresh token there is nothing that it
/// could be told.
pub(super) async fn enqueue(unit: &Unit, identity: &ExternalIdentity) -> Result<()> {
    let Some(kept) = &identity.refresh_token else {
        return Ok(());
    };
    let core = &unit.core;
    let token = opened(core, column(&identity.id.to_string()), kept)?;
    let row = unit.cx.new_id();
    let queued = Queued {
        row,
        team: identity.issuer_key.clone(),
        client_id: identity.client_id.clone(),
        sealed: sealed(core, payload(&row.to_string()), &token),
    };
    let job = Job::new(KIND, &queued)?
        .tenant(identity.tenant)
        .max_tries(TRIES);
    portico_jobs::enqueue(&unit.tx, &unit.cx, job).await?;
    Ok(())
}

/// What tells Apple.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job| {
        let core = Arc::clone(&core);
        async move { tell(&core, &job).await }
    })
    .at_once(2)
    .limit(Duration::from_secs(30))
    .backoff(FIRST, MOST)
}

async fn tell(core: &Core, job: &JobRun) -> std::result::Result<(), Failure> {
    let queued: Queued = job.payload()?;
    let token = opened(core, payload(&queued.row.to_string()), &queued.sealed)
        .map_err(|error| Failure::dead(error.to_string()))?;
    let tenant = job.tenant().unwrap_or(portico_base::id::TENANT_DEFAULT);
    // Somebody may set the account right again before the last try.
    let account =
        apple::account(&core.settings, tenant).map_err(|_| "sign in with apple is not set up")?;
    if account.team != queued.team {
        return Err("the token belongs to another team".into());
    }
    let now_s = core.clock.now().timestamp();
    let (client, url) = (&core.apple.client, &core.apple.endpoints.revoke);
    match client
        .revoke(url, &account, &queued.client_id, &token, now_s)
        .await
    {
        Ok(()) => Ok(()),
        // Not good any more is what was wanted.
        Err(apple::Failure::Refused(word)) if word == "invalid_grant" => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const fn payload(row: &str) -> Place<'_> {
    Place {
        table: "jobs",
        row,
        column: "payload",
    }
}
