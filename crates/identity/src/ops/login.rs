//! The end of every login: from a proof to tokens, or to the next step (ID-60).

use std::sync::Arc;

use portico_base::Context;

use crate::hub::Core;
use crate::domain::login::{LoginResult, Proof};
use crate::error::{Error, Result};

/// Decides what follows a proof: a second factor, a new password, a choice of device, or tokens.
pub(crate) async fn finish(
    _core: &Arc<Core>,
    _cx: &Context,
    _proof: Proof,
) -> Result<LoginResult> {
    std::future::ready(Err(Error::Internal("not built yet".to_owned()))).await
}
