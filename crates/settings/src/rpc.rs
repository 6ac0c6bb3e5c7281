//! `portico.settings.v1.SettingsService`: changes as a stream (CT-13).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use portico_base::Access;
use portico_proto::settings::v1 as proto;
use portico_proto::settings::v1::settings_service_server::{
    SettingsService, SettingsServiceServer,
};
use portico_rpc::{MAX_MESSAGE, Method, RpcRoutes, call};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::hub::Core;
use crate::live::Watching;
use crate::ops::scope::Sight;
use crate::ops::watch::{self, News};
use crate::views::Setting;

/// A quiet stream says so often that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The gRPC service of settings.
pub(crate) fn routes(core: &Arc<Core>, stop: CancellationToken) -> RpcRoutes {
    let service = Watcher {
        core: Arc::clone(core),
        stop,
    };
    let server = SettingsServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    // Plug-ins hold no permission for settings and watch their own; the use-case decides.
    RpcRoutes::new()
        .describe(portico_proto::DESCRIPTORS)
        .add(server, [Method::stream("Watch", Access::Authenticated)])
}

struct Watcher {
    core: Arc<Core>,
    stop: CancellationToken,
}

struct Open {
    core: Arc<Core>,
    stop: CancellationToken,
    sight: Sight,
    watching: Watching,
    position: u64,
    /// The first answer is given at once, so that the caller knows the position.
    first: bool,
    ended: bool,
}

#[tonic::async_trait]
impl SettingsService for Watcher {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let call = call(&request)?;
        let asked = request.into_inner();
        let scope = Some(&*asked.scope).filter(|scope| !scope.is_empty());
        let sight = Sight::of(&call.context, scope).map_err(|error| call.fail(&error))?;
        let open = Open {
            watching: self.core.live.watch().map_err(|error| call.fail(&error))?,
            position: asked.after.unwrap_or_else(|| self.core.live.state().seq),
            core: Arc::clone(&self.core),
            stop: self.stop.clone(),
            sight,
            first: true,
            ended: false,
        };
        let answers = stream::unfold(open, |mut open| async move {
            if open.ended {
                return None;
            }
            let next = next(&mut open).await;
            open.ended = next.is_err();
            Some((next, open))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

async fn next(open: &mut Open) -> Result<proto::WatchResponse, Status> {
    loop {
        let news = watch::next(&open.core, &open.sight, &mut open.watching, open.position);
        open.position = news.seq;
        if open.first || !news.changed.is_empty() {
            open.first = false;
            return Ok(answer(news));
        }
        tokio::select! {
            () = open.stop.cancelled() => {
                return Err(Status::unavailable("the process stops; call again"));
            }
            _ = open.watching.news.changed() => {}
            () = tokio::time::sleep(KEEP_ALIVE) => return Ok(answer(news)),
        }
    }
}

fn answer(news: News) -> proto::WatchResponse {
    proto::WatchResponse {
        seq: news.seq,
        changed: news.changed.into_iter().map(setting).collect(),
    }
}

fn setting(setting: Setting) -> proto::Setting {
    let fingerprint = setting.secret.as_ref().and_then(|s| s.fingerprint.clone());
    proto::Setting {
        key: setting.key,
        value_json: setting.value.map(|value| value.to_string()),
        secret: setting.secret.is_some(),
        fingerprint: fingerprint.unwrap_or_default(),
        version: setting.version,
        source: setting.source.layer.to_owned(),
    }
}
