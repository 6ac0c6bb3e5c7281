//! The audit's part of what is kept about a person: given out and taken out (ID-150, ID-152).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::Context;
use portico_contract::audit::Filter;
use portico_contract::personal::{PersonalData, PersonalError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Result;
use crate::hub::Core;
use crate::ops;

/// Records that one person is given at most: the newest.
const MOST: usize = 10_000;
const PAGE: usize = 500;

/// Records of what a person did.
pub(crate) struct Personal(pub Arc<Core>);

impl PersonalData for Personal {
    fn service(&self) -> &'static str {
        "audit"
    }

    fn export<'a>(
        &'a self,
        _context: &'a Context,
        tenant: Uuid,
        user: Uuid,
    ) -> BoxFuture<'a, std::result::Result<Option<Value>, PersonalError>> {
        Box::pin(async move {
            let records = acts(&self.0, tenant, user)
                .await
                .map_err(|error| PersonalError(error.into()))?;
            Ok((!records.is_empty()).then(|| json!({ "records": records })))
        })
    }

    fn erase<'a>(
        &'a self,
        context: &'a Context,
        tenant: Uuid,
        user: Uuid,
    ) -> BoxFuture<'a, std::result::Result<(), PersonalError>> {
        Box::pin(async move {
            ops::redact::person(&self.0, context, tenant, user)
                .await
                .map_err(|error| PersonalError(error.into()))?;
            Ok(())
        })
    }
}

/// What a person did. What others did to them names those others, and is not theirs to have.
async fn acts(core: &Core, tenant: Uuid, user: Uuid) -> Result<Vec<Value>> {
    let filter = Filter {
        tenant: Some(tenant),
        actor: Some(user.to_string()),
        ..Filter::default()
    };
    let (mut records, mut after) = (Vec::new(), None);
    while records.len() < MOST {
        let part = ops::search::find(core, &filter, after, PAGE).await?;
        records.extend(part.items.into_iter().map(|r| {
            json!({
                "at": r.at, "action": r.action, "target_type": r.target_type, "target_id": r.target_id,
                "outcome": r.outcome, "code": r.code, "ip": r.ip, "user_agent": r.agent,
            })
        }));
        match part.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(records)
}
