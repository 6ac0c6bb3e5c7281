//! What happens to people's rows when they come out of a backup: whatever was handed out after the backup was
//! made must be worth nothing (CT-122).

use portico_base::Tx;
use portico_base::envelope::MasterKeys;
use portico_contract::backup::{AfterRestore, Finding, Findings, PartFailed, Restoring};
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::Query;
use portico_db::{DbError, WriteTx};

use crate::{edge, store};

const SERVICE: &str = "identity";
/// Links, tickets and codes: one that was used after the backup would be good again.
const ONE_TIME: [&str; 2] = ["one_time_tokens", "otp_transactions"];

/// Identity's part of a restore.
pub(crate) struct RestoredPeople;

impl AfterRestore for RestoredPeople {
    fn service(&self) -> &'static str {
        SERVICE
    }

    fn check<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let tx = WriteTx::of(tx).map_err(failed)?;
            check(tx, &restoring.keys).await.map_err(failed)
        })
    }

    fn settle<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let tx = WriteTx::of(tx).map_err(failed)?;
            settle(tx, restoring).await.map_err(failed)
        })
    }
}

async fn check(tx: &WriteTx, keys: &MasterKeys) -> Result<Vec<Finding>, DbError> {
    let rows = store::keys::all(tx).await?;
    let sealed = rows.iter().filter(|row| !row.private.is_empty());
    let (mut open, mut closed) = (0, 0);
    for row in sealed {
        match keys.open(edge::place(&row.kid), &row.private) {
            Ok(_) => open += 1,
            Err(_) => closed += 1,
        }
    }
    Ok(vec![match closed {
        0 => Finding::note(SERVICE, format!("{open} signing keys can be opened")),
        _ => Finding::fault(
            SERVICE,
            format!("{closed} signing keys were sealed with a master key that is not at hand"),
        ),
    }])
}

async fn settle(tx: &WriteTx, restoring: &Restoring) -> Result<Vec<Finding>, DbError> {
    let mut findings = Vec::new();
    // The moment is beyond every epoch that was ever given out, also after the backup was made: each is a
    // small number, or the moment of an earlier restore and some raises by one.
    let moment = u32::try_from(restoring.now.timestamp()).unwrap_or(u32::MAX);
    let ge = store::keys::raise_epoch_to(tx, moment).await?;
    findings.push(Finding::note(
        SERVICE,
        format!("every access token of before is dead (epoch {ge})"),
    ));
    findings.push(if restoring.keep_sessions {
        Finding::note(
            SERVICE,
            "sessions of the backup go on with their refresh tokens",
        )
    } else {
        let ended = store::sessions::end_everywhere(tx, None, "restored", restoring.now).await?;
        Finding::note(
            SERVICE,
            format!("{ended} sessions ended with their refresh tokens"),
        )
    });
    let mut gone = 0;
    for table in ONE_TIME {
        let mut delete = Query::delete();
        delete.from_table(table);
        gone += tx.execute(&delete).await?.rows_affected();
    }
    findings.push(Finding::note(
        SERVICE,
        format!("{gone} links, tickets and codes of the backup removed"),
    ));
    Ok(findings)
}

fn failed(error: DbError) -> PartFailed {
    PartFailed(Box::new(error))
}
