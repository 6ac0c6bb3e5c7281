//! Settings that plug-ins declare with their registration, handed to whoever keeps settings (CT-15).

use std::sync::Arc;

use portico_contract::directory::DirectorySource as _;
use portico_contract::settings_tree::PluginSchema;
use portico_host::{BuildCx, Spawner};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::registration::Registration;
use crate::error::{Error, Result};
use crate::hub::{Core, Source};

/// Remembers whoever keeps settings, where there is somebody.
pub(crate) fn connect(cx: &BuildCx<'_>, core: &Core) {
    if let Some(tree) = cx.provided.get() {
        // Set once, here.
        let _ = core.settings_tree.set(tree);
    }
    if let Some(plugins) = cx.provided.get() {
        let _ = core.plugin_settings.set(plugins);
    }
}

/// What is wrong with the settings that a registration declares.
pub(crate) fn check(core: &Core, registration: &Registration) -> Result<()> {
    let part = registration.service.as_ref();
    let schema = part.and_then(|part| part.settings_schema.as_ref());
    let (Some(schema), Some(plugins)) = (schema, core.plugin_settings.get()) else {
        return Ok(());
    };
    let faults = plugins.check(&registration.name, schema, "settings_schema");
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid {
        code: "registry.invalid",
        faults,
    })
}

/// Hands over what plug-ins declare, whenever the directory changes.
pub(crate) fn start(spawner: &Spawner, core: &Arc<Core>) {
    let news = Arc::new(Notify::new());
    let wake = Arc::clone(&news);
    Source(Arc::clone(core)).subscribe(Arc::new(move |_| wake.notify_one()));
    hand_over(core, &mut Vec::new());
    let core = Arc::clone(core);
    let stop = spawner.stopping().clone();
    spawner.spawn("registry.plugin_settings", async move {
        follow(&core, &news, &stop).await;
    });
}

async fn follow(core: &Core, news: &Notify, stop: &CancellationToken) {
    let mut last = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = news.notified() => hand_over(core, &mut last),
        }
    }
}

fn hand_over(core: &Core, last: &mut Vec<PluginSchema>) {
    let Some(plugins) = core.plugin_settings.get() else {
        return;
    };
    let declared = declared(core);
    if declared != *last {
        last.clone_from(&declared);
        plugins.declared(declared);
    }
}

fn declared(core: &Core) -> Vec<PluginSchema> {
    let model = core.model.read();
    let mut all: Vec<PluginSchema> = model
        .services()
        .filter_map(|entry| {
            Some(PluginSchema {
                service: Arc::clone(&entry.service.name),
                tenant: entry.service.tenant,
                schema: entry.service.settings_schema.clone()?,
            })
        })
        .collect();
    all.sort_by(|a, b| (&a.service, a.tenant).cmp(&(&b.service, b.tenant)));
    all
}
