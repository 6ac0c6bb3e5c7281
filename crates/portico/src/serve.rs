//! `portico serve`: start, say where, run until told to stop.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use portico_backup::Pending;
use portico_base::{Secret, SystemClock, SystemRandom};
use portico_config::{Flag, Loaded};
use portico_host::datadir::read_operator_token;
use portico_host::{Options, Process, Runtimes, exit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::ServeArgs;
use crate::client::Client;
use crate::run::{Output, supervise};
use crate::{banner, composition, config, demo};

/// Workers of the runtime of everything that is not the data plane.
const SHARED_WORKERS: usize = 2;
/// How often it is looked for an order that waits for the next start.
const ORDERS: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves until a signal; exit code 0 after a clean stop.
pub(crate) fn run(args: &ServeArgs) -> Result<u8> {
    let loaded = match load(args) {
        Ok(loaded) => Arc::new(loaded),
        Err(faults) => {
            eprintln!("{faults}");
            return Ok(exit::USAGE);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("portico: warning: {warning}");
    }
    raise_descriptors(&loaded);
    use_small_pages();
    let runtimes = Runtimes::default();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(SHARED_WORKERS)
        .thread_name("portico-shared")
        .enable_all();
    runtimes.count_threads(&mut builder, SHARED_WORKERS);
    let runtime = builder.build().context("the runtime could not be made")?;
    runtime.block_on(serve(args.clone(), loaded, runtimes))
}

fn load(args: &ServeArgs) -> std::result::Result<Loaded, portico_config::Faults> {
    let mut more = Vec::new();
    if args.insecure_listen {
        more.push(Flag::new("listen.insecure", "true", "--insecure-listen"));
    }
    config::load(&args.config, more)
}

async fn serve(args: ServeArgs, loaded: Arc<Loaded>, runtimes: Runtimes) -> Result<u8> {
    let mut hangup = signal(SignalKind::hangup())?;
    let options = Options {
        loaded: Arc::clone(&loaded),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        next_free_port: zero_arguments(&args, &loaded),
        own_logs: true,
        audit: None,
        runtimes,
    };
    let composition = composition::composition(&loaded.config);
    Box::pin(crate::backup::pending(&loaded)).await?;
    let mut process = Process::start(options, composition).await?;
    // Before anybody is told that it is ready, so that whoever stops it at once gets a clean stop.
    let stop = crate::signal::first();
    tokio::pin!(stop);
    let demo = loaded.config.demo();
    let setup = setup_link(&process).await;
    if args.ready_json {
        let mut ready = serde_json::to_value(process.ready())?;
        if let Some(url) = &setup {
            ready["setup_url"] = url.as_str().into();
        }
        crate::text::print(&format!("{ready}\n"));
    } else if !args.quiet {
        banner::print(&banner::Facts {
            ready: process.ready(),
            token_file: &process.operator_token_file(),
            setup: setup.as_deref(),
            demo,
            anonymous: loaded.config.anonymous_consul().is_ok(),
        });
    }
    let stop_demo = CancellationToken::new();
    let demo = demo.then(|| start_demo(&process, &stop_demo)).transpose()?;

    if args.open {
        browse(process.ready());
    }
    let mut reloads = 0;
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = restore_is_asked_for(&loaded) => break,
            _ = hangup.recv() => {
                reloads += 1;
                let outcome = reload(&args, &mut process);
                crate::reload::leave_word(&loaded.config.node.data_dir, reloads, &outcome);
            }
        }
    }
    stop_demo.cancel();
    if let Some(demo) = demo {
        // The demo's children deregister through the gateway, so they leave before it drains.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), demo).await;
    }
    let stopped = process.stop(crate::signal::first()).await;
    for cut in &stopped.cut {
        eprintln!("portico: cut at the stop: {cut}");
    }
    if Pending::find(&loaded.config.node.data_dir).is_ok_and(|order| order.is_some()) {
        return Err(start_anew());
    }
    Ok(if stopped.forced { exit::FAILED } else { 0 })
}

/// Returns when the running process has prepared a restore, which is done by its next start.
async fn restore_is_asked_for(loaded: &Loaded) {
    let is_there = || Pending::find(&loaded.config.node.data_dir).is_ok_and(|o| o.is_some());
    while !is_there() {
        tokio::time::sleep(ORDERS).await;
    }
}

/// Becomes the same program again, for a restore that was asked for: the same process for whoever watches
/// over it. Comes back only when that is not possible.
fn start_anew() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let again = std::env::current_exe().map(|program| {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        std::process::Command::new(program)
            .arg0(name)
            .args(arguments)
            .exec()
    });
    let (Ok(error) | Err(error)) = again;
    anyhow::Error::new(error).context("the restore waits for the next start")
}

/// Reads the configuration again; answers the keys that need a restart, or every fault.
fn reload(args: &ServeArgs, process: &mut Process) -> std::result::Result<Vec<String>, String> {
    let loaded = load(args)
        .map(Arc::new)
        .map_err(|faults| faults.to_string());
    let result = process.reload(loaded);
    match &result {
        Ok(restart) if restart.is_empty() => tracing::info!("configuration reloaded"),
        Ok(restart) => {
            tracing::warn!(
                keys = restart.join(", "),
                "configuration reloaded; these changes need a restart"
            );
        }
        Err(faults) => {
            tracing::error!(err = %faults, "the configuration was not reloaded, the old values hold")
        }
    }
    result
}

/// The one-time link to make the first administrator, while there is none and identity runs here. A start
/// does not fail for lack of it: `portico admin setup-link` makes another.
async fn setup_link(process: &Process) -> Option<String> {
    let ready = process.ready();
    let url = ready.url("http").or_else(|| ready.url("https"))?;
    let token = read_operator_token(&process.operator_token_file()).ok()??;
    let client = Client::new(url, token, None).ok()?;
    let nothing = serde_json::json!({});
    match client.post("/api/identity/setup/link", &nothing).await {
        Ok(link) => link["url"].as_str().map(str::to_owned),
        Err(error) => {
            let expected = error
                .downcast_ref::<crate::client::ApiError>()
                .is_some_and(|e| [404, 409].contains(&e.status));
            if !expected {
                tracing::warn!(err = %format!("{error:#}"), "no set-up link could be made");
            }
            None
        }
    }
}

/// `--open`: shows the API page in the browser of whoever started this.
fn browse(ready: &portico_host::Ready) {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let Some(url) = ready.url("http").or_else(|| ready.url("https")) else {
        return;
    };
    let started = tokio::process::Command::new(program)
        .arg(format!("{url}/docs"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    if let Err(error) = started {
        eprintln!("portico: warning: no browser could be opened: {program}: {error}");
    }
}

/// Nothing was chosen: a taken port is answered by the next free one.
fn zero_arguments(args: &ServeArgs, loaded: &Loaded) -> bool {
    let flags = &args.config;
    loaded.file.is_none()
        && flags.listen.is_none()
        && flags.consul_listen.is_none()
        && flags.admin_listen.is_none()
}

fn start_demo(
    process: &Process,
    stop: &CancellationToken,
) -> Result<impl Future<Output = ()> + use<>> {
    let url = process.ready().url("http").unwrap_or_default().to_owned();
    let token = read_operator_token(&process.operator_token_file())?
        .unwrap_or_else(|| Secret::from(String::new()));
    let client = Client::new(&url, token, None)?;
    let mut copies = tokio::task::JoinSet::new();
    for plan in demo::plans()? {
        let (client, stop) = (client.clone(), stop.clone());
        copies.spawn(async move {
            // Demo plug-ins never change on disk.
            let (_keep, changed) = watch::channel(0);
            let output = Output::new();
            let name = plan.label.clone();
            if let Err(error) = supervise(&client, plan, &output, changed, stop).await {
                tracing::warn!(service = name, err = %format!("{error:#}"), "a demo plug-in could not run");
            }
        });
    }
    Ok(async move { while copies.join_next().await.is_some() {} })
}

/// Asks the kernel for no huge pages: the heap of an idle process is spread thinly, and pages of 2 MiB
/// made 29 MB resident where 10 MB are used. What is hot fits in the TLB either way.
pub(crate) fn use_small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        eprintln!("portico: warning: huge pages stay on: {error}");
    }
}

/// Raises the limit of open files to the hard limit, or to what the configuration says.
fn raise_descriptors(loaded: &Loaded) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = loaded.config.limits.nofile.unwrap_or(hard).min(hard);
    if wanted > soft
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        eprintln!("portico: warning: the limit of open files stays at {soft}: {error}");
    }
}
