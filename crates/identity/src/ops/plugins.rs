//! Permissions of plug-ins, as the registry hears of them (ID-20).

use std::sync::Arc;

use portico_contract::directory::DirectorySource;
use portico_host::Spawner;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::seed;
use crate::domain::role::Known;
use crate::hub::Core;

/// After a failure.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Takes over what plug-ins declare whenever the directory changes.
pub(crate) fn start(spawner: &Spawner, core: &Arc<Core>, directory: &dyn DirectorySource) {
    let news = Arc::new(Notify::new());
    let wake = Arc::clone(&news);
    directory.subscribe(Arc::new(move |_| wake.notify_one()));
    let core = Arc::clone(core);
    let stop = spawner.stopping().clone();
    spawner.spawn("identity.plugins", async move {
        follow(&core, &news, &stop).await;
    });
}

/// What plug-ins declare now that is theirs to declare.
pub(crate) fn declared(core: &Core) -> Vec<Known> {
    let Some(services) = &core.services else {
        return Vec::new();
    };
    services
        .permissions()
        .iter()
        .filter_map(|(service, permission)| Known::plugin(service, permission))
        .collect()
}

async fn follow(core: &Arc<Core>, news: &Notify, stop: &CancellationToken) {
    let mut last = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = news.notified() => {}
        }
        let known = declared(core);
        if known == last {
            continue;
        }
        match seed::plugins(core, known.clone()).await {
            Ok(()) => last = known,
            Err(error) => {
                tracing::warn!(err = %error, "permissions of plug-ins could not be written");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => news.notify_one(),
                }
            }
        }
    }
}
