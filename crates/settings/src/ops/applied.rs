//! Who runs which version (CT-6, CT-12), and the configuration, which nobody changes here (CT-11).

use std::collections::HashMap;

use portico_base::id::TENANT_SYSTEM;
use portico_base::{Context, Timestamp};
use portico_config::Row;
use portico_db::ReplicaState;
use serde::Serialize;
use utoipa::ToSchema;

use super::scope::need;
use crate::error::Result;
use crate::hub::Core;
use crate::live;
use crate::permissions::{SYSTEM_WRITE, VALUE_READ};
use crate::store;
use crate::store::applied::{Applied, Rejected};

/// Behind for longer than this is worth a warning.
const LAGGING: chrono::Duration = chrono::Duration::seconds(5);

/// What every replica has in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsApplied)]
pub(crate) struct Overview {
    /// Position of the last change.
    pub seq: u64,
    pub replicas: Vec<Standing>,
}

/// Where one replica is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsReplica)]
pub(crate) struct Standing {
    pub replica: String,
    /// Position of the last change that it took over.
    pub seq: u64,
    /// It is behind for more than five seconds.
    pub lagging: bool,
    /// Values that it does not take over, with the reason; the values before stay in force there.
    pub rejected: Vec<Rejected>,
    /// When it said so.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Seconds since this process last heard from the database; of the asked process only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<i64>,
}

/// What every replica has in force. Without the database: what this one knows.
pub(crate) async fn overview(core: &Core, cx: &Context) -> Result<Overview> {
    of_installation(cx)?;
    let now = core.clock.now();
    let state = core.live.state();
    let own = Standing {
        replica: core.replica.to_string(),
        seq: state.seq,
        lagging: false,
        rejected: live::rejected(&state),
        at: core.live.looked_at(),
        age_s: Some((now - core.live.looked_at()).num_seconds().max(0)),
    };
    let others = match others(core).await {
        Ok(others) => others,
        Err(error) => {
            tracing::debug!(err = %error, "other replicas' positions are not known");
            Vec::new()
        }
    };
    let conn = core.db.reader();
    // Without the database this process's own position is the last that is known.
    let head = store::sets::newest(conn).await.unwrap_or_default();
    let (seq, since) = head.unwrap_or((state.seq, now));
    let late = |at: u64| at < seq && now - since > LAGGING;
    let mut replicas: Vec<Standing> = others
        .into_iter()
        .filter(|word| word.replica != own.replica)
        .map(|word| Standing {
            lagging: late(word.seq),
            replica: word.replica,
            seq: word.seq,
            rejected: word.rejected,
            at: word.at,
            age_s: None,
        })
        .collect();
    replicas.push(Standing {
        lagging: late(own.seq),
        ..own
    });
    replicas.sort_by(|a, b| a.replica.cmp(&b.replica));
    Ok(Overview {
        seq: seq.max(state.seq),
        replicas,
    })
}

/// Replicas that are alive, with what they said last.
async fn others(core: &Core) -> Result<Vec<Applied>> {
    let mut said: HashMap<String, Applied> = store::applied::list(core.db.reader())
        .await?
        .into_iter()
        .map(|word| (word.replica.clone(), word))
        .collect();
    let replicas = core.db.replicas().list().await?;
    let alive = replicas
        .iter()
        .filter(|replica| replica.state != ReplicaState::Lost);
    Ok(alive.filter_map(|r| said.remove(&r.name)).collect())
}

/// The configuration in force, secrets masked.
pub(crate) fn configuration(core: &Core, cx: &Context) -> Result<std::sync::Arc<Vec<Row>>> {
    of_installation(cx)?;
    Ok(core.configuration.load_full())
}

/// For whoever reads the installation's own settings.
fn of_installation(cx: &Context) -> Result<()> {
    need(cx, &VALUE_READ)?;
    if cx.tenant() == TENANT_SYSTEM {
        return Ok(());
    }
    need(cx, &SYSTEM_WRITE)
}
