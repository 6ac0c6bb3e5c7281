//! The listeners of the door, from configuration: for clients, for administration, and between services.

use std::net::SocketAddr;
use std::sync::Arc;

use portico_config::{Config, TlsVersion};
use portico_contract::certificates::{Certificate, Certificates};
use portico_host::{BuildCx, StartError, exit};

use crate::operating::Crew;
use crate::pipeline::entrance::{CONSOLE, INTERNAL};
use crate::pipeline::errand::Errands;
use crate::pipeline::{Door as WorkerDoor, Gate};
use crate::serve::{CertFiles, CertSource, CertStore, Listener, Options, ServeLimits, Server};
use crate::surface::{Door, DoorControl};

/// Ports above a busy one that the listener between services tries: whoever calls there is told the real one.
const INTERNAL_PORTS: u16 = 20;

/// The door of a process that opens one.
///
/// # Errors
/// When certificates cannot be used.
pub(crate) fn door(
    cx: &BuildCx<'_>,
    gate: &Arc<Gate>,
    control: DoorControl,
    errands: &Errands,
    crew: &Crew,
) -> Result<Option<Door>, StartError> {
    let config = cx.config;
    let listeners = listeners(cx, crew)?;
    if listeners.is_empty() {
        return Ok(None);
    }
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let options = Options {
        workers: config.node.workers.unwrap_or(cores),
        limits: ServeLimits {
            connections: config.server.max_connections as usize,
            ..ServeLimits::default()
        },
        shared: cx.spawner.runtime().clone(),
    };
    let (gate, workers) = (Arc::clone(gate), options.workers);
    let (errands, crew) = (errands.clone(), crew.clone());
    let runtimes = cx.telemetry.runtimes.clone();
    Ok(Some(Door {
        listeners,
        workers,
        start: Box::new(move |bound| {
            let (gate, runtimes) = (Arc::clone(&gate), runtimes.clone());
            let (errands, crew) = (errands.clone(), crew.clone());
            errands.opened(&bound);
            Server::start(&options, bound, move |worker| {
                runtimes.watch("gateway", &tokio::runtime::Handle::current());
                let door = WorkerDoor::new(&gate, worker);
                crew.welcome(worker, &door);
                door.serve_errands(&errands);
                door
            })
        }),
        control,
    }))
}

/// The listeners, those for clients first.
fn listeners(cx: &BuildCx<'_>, crew: &Crew) -> Result<Vec<Listener>, StartError> {
    let (config, listen) = (cx.config, &cx.config.listen);
    let public = certificates(config)?;
    if let Some(store) = &public {
        // Set once: there is one store for clients.
        let _ = crew.certificates.set(Arc::clone(store));
        watch(cx, store);
    }
    let mut all = Vec::new();
    all.extend(listen.http.addr().map(|a| Listener::plain("http", a)));
    if let (Some(address), Some(store)) = (listen.https.addr(), &public) {
        all.push(secured("https", address, store));
    }
    if let Some(address) = listen.console.addr() {
        // On this machine a name's certificate would only be in the way.
        let store = public.as_ref().filter(|_| !listen.console.is_private());
        all.push(match store {
            Some(store) => secured(CONSOLE, address, store),
            None => Listener::plain(CONSOLE, address),
        });
    }
    if let Some(address) = listen.internal.addr() {
        let listener = match between_services(config)? {
            Some(store) => {
                watch(cx, &store);
                secured(INTERNAL, address, &store)
            }
            None => Listener::plain(INTERNAL, address),
        };
        all.push(Listener {
            fallback_ports: INTERNAL_PORTS,
            ..listener
        });
    }
    Ok(all)
}

fn secured(name: &'static str, address: SocketAddr, store: &Arc<CertStore>) -> Listener {
    Listener {
        tls: Some(Arc::clone(store)),
        ..Listener::plain(name, address)
    }
}

fn watch(cx: &BuildCx<'_>, store: &Arc<CertStore>) {
    if let Some(cell) = cx.provided.get::<Certificates>() {
        let shown = Arc::clone(store);
        cell.add(move || {
            let certificate = |(name, ends_s)| Certificate { name, ends_s };
            shown.expiries().into_iter().map(certificate).collect()
        });
    }
    let (store, stop) = (Arc::clone(store), cx.spawner.stopping().clone());
    cx.spawner.spawn("gateway-certificates", async move {
        stop.run_until_cancelled(store.watch()).await;
    });
}

/// The certificates of the public listener (`tls`).
fn certificates(config: &Config) -> Result<Option<Arc<CertStore>>, StartError> {
    let tls = &config.tls;
    let files = match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => vec![CertFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            names: Vec::new(),
        }],
        _ => Vec::new(),
    };
    if files.is_empty() && tls.cert_dir.is_none() {
        return Ok(None);
    }
    let source = CertSource {
        files,
        folder: tls.cert_dir.clone(),
        only_tls13: tls.min_version == TlsVersion::V1_3,
        client_ca: None,
    };
    CertStore::open(source)
        .map(Some)
        .map_err(|error| StartError::new(exit::USAGE, format!("[tls]: {error}")).because(error))
}

/// Mutual TLS between replicas and services (`tls.internal`): whoever calls shows a certificate of the authority.
fn between_services(config: &Config) -> Result<Option<Arc<CertStore>>, StartError> {
    let internal = &config.tls.internal;
    let (Some(certificate), Some(key), Some(ca)) =
        (&internal.cert_file, &internal.key_file, &internal.ca_file)
    else {
        return Ok(None);
    };
    let source = CertSource {
        files: vec![CertFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            names: Vec::new(),
        }],
        folder: None,
        only_tls13: true,
        client_ca: Some(ca.clone()),
    };
    CertStore::open(source).map(Some).map_err(|error| {
        StartError::new(exit::USAGE, format!("[tls.internal]: {error}")).because(error)
    })
}
