//! `portico restore`, and the restore that a stopped process left as an order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use portico_backup::{BackupError, Outcome, Pending, Report, Restore, Source};
use portico_base::SystemRandom;
use portico_config::Loaded;
use portico_host::datadir::DataDir;
use portico_objects::{Key, Objects};

use super::ground::Ground;
use super::{failed, here, show};
use crate::cli::RestoreArgs;
use crate::composition;

/// Restores a backup where nobody lives.
pub(crate) async fn run(args: RestoreArgs) -> Result<u8> {
    crate::serve::use_small_pages();
    let (mut data_dir, mut database) = (args.data_dir.clone(), None);
    match &args.into {
        Some(url) if url.contains("://") => database = Some(url.clone()),
        Some(dir) => data_dir = Some(PathBuf::from(dir)),
        None => {}
    }
    let mut ground = Ground::load(args.config.clone(), data_dir.as_deref(), database)?;
    let own_key = ground.config.keys.master_file.clone();
    if let Some(file) = &args.master_key {
        ground.config.keys.master = None;
        ground.config.keys.master_file = file.clone();
    }
    // Held to the end: no process starts on a half-made database.
    let held = DataDir::open(&ground.config.node.data_dir, &*ground.clock)?;
    let source = here::source(&ground, &args.file)?;
    let unlock = ground.unlock(args.identity.as_deref())?;
    let objects = (!args.without_objects)
        .then(|| ground.objects())
        .transpose()?;
    let house = composition::house();
    let restore = Restore {
        source: &source,
        unlock: &unlock,
        house: &house,
        keep_sessions: args.keep_sessions,
        clock: Arc::clone(&ground.clock),
        random: Arc::new(SystemRandom),
    };
    let report = Box::pin(fill(&ground, &restore, objects.as_ref(), args.replace)).await?;
    if args.master_key.is_some() && !own_key.exists() {
        keep_key(&ground.config.keys.master_file, &own_key)?;
    }
    // The next start writes it into the audit.
    let outcome = Outcome {
        order: Pending {
            backup: report.backup,
            location: source.name(),
            safety: String::new(),
            keep_sessions: args.keep_sessions,
            objects: objects.is_some(),
            asked_by: "command line".to_owned(),
        },
        report: Some(report.clone()),
        error: None,
        replaced: None,
    };
    outcome
        .leave(&ground.config.node.data_dir)
        .map_err(failed)?;
    drop(held);
    show(&report, args.json)
}

async fn fill(
    ground: &Ground,
    restore: &Restore<'_>,
    objects: Option<&Objects>,
    replace: bool,
) -> Result<Report> {
    let Some(file) = ground.sqlite_file() else {
        let db = ground.connect().await?;
        let report = restore.into_db(&db, objects).await;
        db.close().await;
        return report.map_err(failed);
    };
    if replace && file.exists() {
        let (report, old) = restore.in_place_of(&file, objects).await.map_err(failed)?;
        eprintln!("portico: the database of before is {}", old.display());
        return Ok(report);
    }
    restore.into_file(&file, objects).await.map_err(|error| {
        let taken = matches!(error, BackupError::NotEmpty(_));
        let error = failed(error);
        if taken {
            error.context(
                "restore into an empty data directory with --into DIR, or use --replace --yes",
            )
        } else {
            error
        }
    })
}

/// The key becomes that of the data directory, readable for its owner alone.
fn keep_key(from: &Path, to: &Path) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = std::fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        .with_context(|| format!("{} cannot be written", to.display()))
}

/// Does what the process of before was asked to restore, before anything is open. Whatever goes wrong is
/// told, and the process starts with the database of before.
pub(crate) async fn pending(loaded: &Loaded) -> Result<()> {
    let data_dir = &loaded.config.node.data_dir;
    let Some(order) = Pending::find(data_dir).map_err(failed)? else {
        return Ok(());
    };
    let ground = Ground::of(loaded.config.clone());
    let held = DataDir::open(data_dir, &*ground.clock)?;
    let done = Box::pin(carry_out(&ground, &order)).await;
    let outcome = match done {
        Ok((report, old)) => Outcome {
            order,
            report: Some(report),
            error: None,
            replaced: Some(old.display().to_string()),
        },
        Err(error) => {
            eprintln!("portico: the backup was not restored: {error:#}");
            Outcome {
                order,
                report: None,
                error: Some(format!("{error:#}")),
                replaced: None,
            }
        }
    };
    let told = outcome.leave(data_dir).map_err(failed);
    drop(held);
    told
}

async fn carry_out(ground: &Ground, order: &Pending) -> Result<(Report, PathBuf)> {
    let file = ground
        .sqlite_file()
        .context("only a SQLite database is restored in place")?;
    let source = Source::Object(ground.store()?, Key::new(&*order.location)?);
    let unlock = ground.unlock(None)?;
    let objects = order.objects.then(|| ground.objects()).transpose()?;
    let house = composition::house();
    let restore = Restore {
        source: &source,
        unlock: &unlock,
        house: &house,
        keep_sessions: order.keep_sessions,
        clock: Arc::clone(&ground.clock),
        random: Arc::new(SystemRandom),
    };
    restore
        .in_place_of(&file, objects.as_ref())
        .await
        .map_err(failed)
}
