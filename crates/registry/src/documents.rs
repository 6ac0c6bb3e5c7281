//! OpenAPI documents of registered services, fetched in the background with limits (PL-8, RG-10).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use parking_lot::RwLock;
use portico_contract::directory::InstanceState;
use portico_contract::documents::{ApiDocument, ApiDocuments};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checks::fetch;
use crate::domain::instance::{Definition, Instance};
use crate::hub::Core;
use crate::model::{Model, ServiceEntry, Topic};

/// Largest document.
const MOST: usize = 4 * 1024 * 1024;
/// Time for one document.
const LIMIT: Duration = Duration::from_secs(5);
/// How often a document is fetched again.
const FRESH: Duration = Duration::from_secs(300);
/// How long after a failure.
const RETRY: Duration = Duration::from_secs(30);
/// Documents kept at most; 1,000 services may be registered.
const KEPT: usize = 1_000;

/// The newest documents.
#[derive(Default)]
pub(crate) struct Documents(RwLock<HashMap<Uuid, Kept>>);

struct Kept {
    document: Option<ApiDocument>,
    /// What it was fetched by: another version or address asks for another look.
    from: (Arc<str>, Arc<str>),
    again: Instant,
}

impl ApiDocuments for Documents {
    fn all(&self) -> Vec<ApiDocument> {
        let mut all: Vec<ApiDocument> = self
            .0
            .read()
            .values()
            .filter_map(|k| k.document.clone())
            .collect();
        all.sort_by(|a, b| (&a.service, a.tenant).cmp(&(&b.service, b.tenant)));
        all
    }
}

/// A document to fetch.
struct Wanted {
    service: Uuid,
    name: Arc<str>,
    tenant: Option<Uuid>,
    url: Arc<str>,
    definition: Definition,
}

/// Runs until `stop`.
pub(crate) async fn run(core: Arc<Core>, documents: Arc<Documents>, stop: CancellationToken) {
    loop {
        let woken = core.topics.listen(Topic::Services);
        for wanted in documents.wanted(&core, Instant::now()) {
            if stop.is_cancelled() {
                return;
            }
            let fetched = get(&core, &wanted).await;
            documents.keep(wanted, fetched);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
            () = woken.woken() => {
                // Registrations come in groups, and a new instance may not answer at once.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Documents {
    /// What is to be fetched now; documents of services that are gone are dropped.
    fn wanted(&self, core: &Core, now: Instant) -> Vec<Wanted> {
        let model = core.model.read();
        let mut kept = self.0.write();
        kept.retain(|id, _| {
            model
                .service(*id)
                .is_some_and(|e| e.service.openapi_url.is_some())
        });
        model
            .services()
            .filter_map(|entry| {
                Some((
                    entry,
                    entry.service.openapi_url.as_ref()?,
                    newest(&model, entry)?,
                ))
            })
            .filter(|(entry, url, instance)| match kept.get(&entry.service.id) {
                Some(known) => {
                    known.again <= now
                        || known.from != ((*url).clone(), instance.definition.version.clone())
                }
                None => kept.len() < KEPT,
            })
            .map(|(entry, url, instance)| Wanted {
                service: entry.service.id,
                name: Arc::clone(&entry.service.name),
                tenant: entry.service.tenant,
                url: Arc::clone(url),
                definition: instance.definition.clone(),
            })
            .collect()
    }

    fn keep(&self, wanted: Wanted, fetched: Result<Value, String>) {
        let mut kept = self.0.write();
        let before = kept.remove(&wanted.service).and_then(|k| k.document);
        let version = Arc::clone(&wanted.definition.version);
        let (document, again) = match fetched {
            Ok(value) => {
                let document = ApiDocument {
                    service: wanted.name,
                    tenant: wanted.tenant,
                    version: Arc::clone(&version),
                    document: Arc::new(value),
                };
                (Some(document), Instant::now() + FRESH)
            }
            Err(error) => {
                tracing::debug!(service = %wanted.name, err = %error, "an API document could not be fetched");
                // The last good one is better than none.
                (before, Instant::now() + RETRY)
            }
        };
        kept.insert(
            wanted.service,
            Kept {
                document,
                from: (wanted.url, version),
                again,
            },
        );
    }
}

/// A ready instance of the highest version.
fn newest<'a>(model: &'a Model, entry: &ServiceEntry) -> Option<&'a Instance> {
    entry
        .instances
        .iter()
        .filter_map(|id| model.instance(*id))
        .map(|e| &*e.instance)
        .filter(|i| i.state == InstanceState::Ready && !i.definition.host.is_empty())
        .max_by_key(|i| {
            (
                crate::domain::service::semver_key(&i.definition.version),
                i.id,
            )
        })
}

async fn get(core: &Core, wanted: &Wanted) -> Result<Value, String> {
    let (target, path) = fetch::target(&wanted.url, &wanted.definition)?;
    let request = Request::get(path)
        .header(header::HOST, target.to_string())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "Portico")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::new()))
        .map_err(|e| e.to_string())?;
    // One byte more than allowed tells a document that is too long from one that just fits.
    let exchange = fetch::send(&core.net, &target, request, MOST + 1);
    let (status, body) = tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| "no answer in time".to_owned())??;
    if status != http::StatusCode::OK {
        return Err(format!("status {status}"));
    }
    if body.len() > MOST {
        return Err(format!("longer than {MOST} bytes"));
    }
    // Reading some megabytes of JSON is work for a thread that may block.
    tokio::task::spawn_blocking(move || serde_json::from_slice::<Value>(&body))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())
        .and_then(|value| {
            if value.is_object() {
                Ok(value)
            } else {
                Err("not an object".to_owned())
            }
        })
}
