//! `portico migrate`: the database's schema.

use std::sync::Arc;

use anyhow::Result;
use portico_base::SystemClock;
use portico_db::Db;
use portico_host::{StartError, exit};

use crate::cli::{MigrateAction, MigrateArgs};
use crate::{composition, config};

/// Shows or does the steps.
pub(crate) async fn run(args: MigrateArgs) -> Result<u8> {
    let loaded = match config::load(&args.config, Vec::new()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return Ok(exit::USAGE);
        }
    };
    std::fs::create_dir_all(&loaded.config.node.data_dir)?;
    let options = portico_host::db_options(&loaded.config);
    let db = Db::connect(&options, Arc::new(SystemClock))
        .await
        .map_err(|error| {
            StartError::new(exit::DEPENDENCY, "the database cannot be reached").because(error)
        })?;
    let services = composition::all_services();
    let sets: Vec<_> = services
        .iter()
        .map(|service| (service.name(), service.migrations()))
        .collect();
    let code = act(&db, &sets, args.action.unwrap_or(MigrateAction::Up)).await;
    db.close().await;
    code
}

async fn act(
    db: &Db,
    sets: &[(&'static str, portico_db::Migrations)],
    action: MigrateAction,
) -> Result<u8> {
    match action {
        MigrateAction::Status => {
            for step in db.migration_status(sets).await? {
                let when = step
                    .applied_at
                    .map_or_else(|| "pending".to_owned(), |at| at.to_rfc3339());
                println!("{:50}  {when}", step.name);
            }
        }
        MigrateAction::Plan => {
            for step in db.migration_plan(sets).await? {
                println!("{}", step.name);
            }
        }
        MigrateAction::Up => {
            let report = db
                .migrate(sets)
                .await
                .map_err(portico_host::migration_error)?;
            println!("{} steps done", report.applied.len());
        }
    }
    Ok(0)
}
