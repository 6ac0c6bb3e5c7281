//! `portico backup` and `portico restore`: beside a running process over HTTP, without one by hand.

mod asked;
mod ground;
mod here;
mod key_copy;
mod restore;

pub(crate) use key_copy::{export as export_keys, import as import_keys};
pub(crate) use restore::{pending, run as restore};

use anyhow::Result;
use portico_backup::BackupError;
use portico_host::{StartError, exit};

use crate::cli::{BackupArgs, BackupCommand};
use crate::client::data_dir_or_default;
use crate::text::say;

/// Carries out one command about backups.
pub(crate) async fn run(args: BackupArgs) -> Result<u8> {
    crate::serve::use_small_pages();
    let BackupArgs {
        command,
        now,
        remote,
        config,
    } = args;
    let data_dir = data_dir_or_default(remote.connect.data_dir.as_deref());
    // Whoever names a Portico means that one.
    let named = remote.connect.url.is_some() || crate::client::variable("PORTICO_URL").is_some();
    let runs = named || portico_host::datadir::holder(&data_dir).is_some();
    match command.unwrap_or(BackupCommand::Now(now)) {
        BackupCommand::Now(now) if runs && now.to.is_none() => asked::now(&remote, &now).await,
        BackupCommand::Now(now) => Box::pin(here::now(&remote, config, &now)).await,
        BackupCommand::List if runs => asked::list(&remote).await,
        BackupCommand::List => here::list(&remote, config).await,
        BackupCommand::Verify { backup, identity } => {
            let file = std::path::Path::new(&backup).is_file();
            if runs && !file && identity.is_none() {
                asked::verify(&remote, &backup).await
            } else {
                Box::pin(here::verify(&remote, config, &backup, identity)).await
            }
        }
    }
}

/// A failed backup or restore with its exit code.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn failed(error: BackupError) -> anyhow::Error {
    let code = match &error {
        BackupError::Key(_) | BackupError::Identity(_) | BackupError::BadKey(_) => exit::KEY,
        BackupError::Newer { .. } => exit::SCHEMA,
        _ => exit::FAILED,
    };
    StartError::new(code, portico_web::problem::chain(&error)).into()
}

/// What a restore or a verification did, for people or as JSON; exit code 1 with a fault.
fn show(report: &portico_backup::Report, as_json: bool) -> Result<u8> {
    let code = if report.is_good() { 0 } else { exit::FAILED };
    if as_json {
        say!("{}", serde_json::to_string_pretty(report)?);
        return Ok(code);
    }
    say!(
        "backup {} of {}, made by Portico {} from {}",
        report.backup,
        report.made_at.format("%F %T UTC"),
        crate::table::plain(&report.version),
        crate::table::plain(&report.from)
    );
    say!(
        "{} rows in {} tables, {} objects, {} later migrations, {} ms",
        report.rows,
        report.tables,
        report.objects,
        report.migrations.len(),
        report.took_ms
    );
    for finding in &report.findings {
        let mark = if finding.fault { "FAULT" } else { "ok" };
        say!("{mark:5} {}: {}", finding.service, finding.what);
    }
    Ok(code)
}
