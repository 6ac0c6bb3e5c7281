//! The demo plug-ins: separate processes of the same binary, registered like a stranger's program.

mod clock;
mod echo;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::response::Response;
use http::{HeaderValue, header};
use portico_web::serve::{Limits, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{Demo, DemoArgs};
use crate::run::{Endpoint, Plan};

/// Serves one demo plug-in until it is told to end.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let router: Router = match args.which {
        Demo::Echo => echo::router(),
        Demo::Clock => clock::router(args.show_version, Duration::from_millis(args.delay_ms)),
    };
    let router = router.layer(axum::middleware::map_response(never_guessed));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .with_context(|| format!("port {} cannot be used", args.port))?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let limits = Limits {
        connections: 1024,
        ..Limits::default()
    };
    let server = tokio::spawn(serve(listener, router, limits, tasks.clone(), stop.clone()));
    crate::signal::first().await;
    stop.cancel();
    tasks.close();
    // Streams do not end by themselves; two seconds are enough for a demo's answers.
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await;
    server.await.context("the server panicked")
}

/// What is echoed is a stranger's text: no browser shall guess that it is a page.
async fn never_guessed(mut response: Response) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// What the zero-argument start runs: echo, and clock in two versions of which one is slower.
pub(crate) fn plans() -> Result<Vec<Plan>> {
    let program = std::env::current_exe().context("the path of the binary is unknown")?;
    let program = program.to_string_lossy().into_owned();
    let plan =
        |name: &str, number: u16, version: &str, delay_ms: u64, endpoints: Vec<Endpoint>| Plan {
            name: name.to_owned(),
            label: format!("{name}@{version}"),
            number,
            version: version.to_owned(),
            // After a kill -9 the next start takes the place of the dead copies instead of standing beside them.
            key: Some(format!("demo-{number}")),
            public: true,
            endpoints,
            health: Some("/healthz".to_owned()),
            weight: 100,
            tags: vec!["demo".to_owned()],
            base_path: "/".to_owned(),
            command: [
                program.as_str(),
                "demo",
                name,
                "--port",
                "{port}",
                "--show-version",
                version,
                "--delay-ms",
                &delay_ms.to_string(),
            ]
            .map(str::to_owned)
            .to_vec(),
            environment: std::collections::BTreeMap::new(),
            restart: Some(crate::cli::Restart::Always),
            announce: false,
            quiet: true,
        };
    Ok(vec![
        plan("echo", 1, "1.0.0", 0, echo::endpoints()),
        plan("clock", 1, "1.0.0", 0, clock::endpoints()),
        plan("clock", 2, "2.0.0", 40, clock::endpoints()),
    ])
}
