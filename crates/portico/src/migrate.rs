//! `portico migrate`: the database's schema.

use std::sync::Arc;

use anyhow::Result;
use portico_base::SystemClock;
use portico_db::Db;
use portico_host::{StartError, exit};
use serde_json::{Value, json};

use crate::cli::{MigrateAction, MigrateArgs};
use crate::table::Table;
use crate::text::say;
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
    let sets = portico_host::migrations(services.iter().map(|service| &**service));
    let code = act(
        &db,
        &sets,
        args.action.unwrap_or(MigrateAction::Up),
        args.json,
    )
    .await;
    db.close().await;
    code
}

async fn act(
    db: &Db,
    sets: &[(&'static str, portico_db::Migrations)],
    action: MigrateAction,
    as_json: bool,
) -> Result<u8> {
    match action {
        MigrateAction::Status => {
            let steps = db.migration_status(sets).await?;
            if as_json {
                let all = steps
                    .iter()
                    .map(|s| json!({ "name": s.name, "applied_at": s.applied_at }));
                say!("{}", Value::from_iter(all));
                return Ok(0);
            }
            let mut table = Table::new(&["STEP", "DONE"]);
            for step in steps {
                let when = step
                    .applied_at
                    .map_or_else(|| "pending".to_owned(), |at| at.to_rfc3339());
                table.row([step.name.to_string(), when]);
            }
            table.print();
        }
        MigrateAction::Plan => {
            let steps = db.migration_plan(sets).await?;
            if as_json {
                say!(
                    "{}",
                    Value::from_iter(steps.iter().map(|s| s.name.to_string()))
                );
                return Ok(0);
            }
            for step in steps {
                say!("{}", step.name);
            }
        }
        MigrateAction::Up => {
            let report = db
                .migrate(sets)
                .await
                .map_err(|error| portico_host::migration_error(&error))?;
            if as_json {
                say!("{}", json!({ "applied": report.applied.len() }));
            } else {
                say!("{} steps done", report.applied.len());
            }
        }
    }
    Ok(0)
}
