//! Waiting for what must come, without sleeping and not for ever.

use std::time::Duration;

/// Longer than anything here takes; only a defect waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !check().await {
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, asking).await;
    assert!(outcome.is_ok(), "this did not come: {what}");
}
