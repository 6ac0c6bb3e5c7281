//! Backups made, listed and verified by this command itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use portico_backup::{Dump, Made, ObjectsIn, Restore, Source, file_name, peek};
use portico_base::{SystemRandom, id};
use portico_db::{Db, step_names};
use portico_objects::{Key, Objects};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::{failed, show};
use crate::cli::{BackupNow, Remote};
use crate::composition;
use crate::table::Table;
use crate::text::say;
use crate::version::VERSION;

/// Makes a backup.
pub(super) async fn now(remote: &Remote, config: Option<PathBuf>, now: &BackupNow) -> Result<u8> {
    let ground = Ground::load(config, remote.connect.data_dir.as_deref(), None)?;
    let db = ground.db().await?;
    let made = Box::pin(make(&ground, &db, now)).await;
    db.close().await;
    let (made, place) = made?;
    if remote.json {
        let told = json!({
            "id": made.manifest.id, "made_at": made.manifest.made_at, "location": place,
            "bytes": made.bytes, "sha256": made.sha256, "key_id": made.key_id,
            "rows": made.summary.rows(), "objects": made.summary.objects.count,
        });
        say!("{told:#}");
    } else {
        say!(
            "{place}: {} rows, {} objects, {} bytes; not verified yet",
            made.summary.rows(),
            made.summary.objects.count,
            made.bytes
        );
    }
    Ok(0)
}

async fn make(ground: &Ground, db: &Db, now: &BackupNow) -> Result<(Made, String)> {
    let objects = ground.objects()?;
    let steps = step_names(&composition::migration_sets())?;
    let lock = ground.lock()?;
    let random = SystemRandom;
    let dump = Dump {
        id: id::new_id(&*ground.clock, &random),
        db,
        steps: &steps,
        version: VERSION,
        objects: Some((&objects, taken(now.include_objects))),
        lock: &lock,
        clock: &*ground.clock,
        random: &random,
        cancel: &CancellationToken::new(),
    };
    if let Some(to) = &now.to {
        let made = Box::pin(dump.to_file(to)).await.map_err(failed)?;
        return Ok((made, to.display().to_string()));
    }
    let name = file_name(dump.id, ground.clock.now());
    let store = ground.store()?;
    let made = Box::pin(dump.to_store(&store, &Key::new(&*name)?)).await;
    Ok((made.map_err(failed)?, name))
}

/// What is taken of the objects.
const fn taken(whole: bool) -> ObjectsIn {
    if whole {
        ObjectsIn::Whole
    } else {
        ObjectsIn::Names
    }
}

/// The backups that there are, the newest first.
pub(super) async fn list(remote: &Remote, config: Option<PathBuf>) -> Result<u8> {
    let ground = Ground::load(config, remote.connect.data_dir.as_deref(), None)?;
    let store = ground.store()?;
    let unlock = ground.unlock(None)?;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(None, after.as_ref(), 500).await?;
        for meta in page.items {
            let source = Source::Object(store.clone(), meta.key.clone());
            // One that another key opens is listed nevertheless.
            let manifest = peek(&source, &unlock).await.ok();
            found.push((meta, manifest));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.sort_by_key(|(meta, _)| std::cmp::Reverse(meta.modified));
    if remote.json {
        let all = found.iter().map(|(meta, manifest)| {
            json!({ "name": meta.key.as_str(), "bytes": meta.size, "manifest": manifest })
        });
        say!("{}", serde_json::Value::from_iter(all));
        return Ok(0);
    }
    let mut table = Table::new(&["BACKUP", "MADE", "BYTES", "VERSION", "DATABASE"]);
    for (meta, manifest) in found {
        let of = |text: fn(&portico_backup::Manifest) -> String| {
            manifest.as_ref().map_or_else(|| "?".to_owned(), text)
        };
        table.row([
            meta.key.to_string(),
            of(|m| m.made_at.format("%F %T UTC").to_string()),
            meta.size.to_string(),
            of(|m| m.version.clone()),
            of(|m| m.backend.clone()),
        ]);
    }
    if table.is_empty() {
        say!("there is no backup yet; `portico backup` makes one");
    } else {
        table.print();
    }
    Ok(0)
}

/// Verifies a file, or one of those that are kept.
pub(super) async fn verify(
    remote: &Remote,
    config: Option<PathBuf>,
    backup: &str,
    identity: Option<PathBuf>,
) -> Result<u8> {
    let ground = Ground::load(config, remote.connect.data_dir.as_deref(), None)?;
    let source = source(&ground, backup)?;
    let unlock = ground.unlock(identity.as_deref())?;
    let house = composition::house();
    let objects: Option<Objects> = ground.objects().ok();
    let restore = Restore {
        source: &source,
        unlock: &unlock,
        house: &house,
        keep_sessions: false,
        clock: Arc::clone(&ground.clock),
        random: Arc::new(SystemRandom),
    };
    // The scratch database goes where there should be room for it.
    let folder = ground.config.node.data_dir.clone();
    let report = Box::pin(restore.verify(&folder, objects.as_ref())).await;
    show(&report.map_err(failed)?, remote.json)
}

/// A file, or the name of one that is kept.
pub(super) fn source(ground: &Ground, backup: &str) -> Result<Source> {
    let path = Path::new(backup);
    if path.exists() {
        return Ok(Source::File(path.to_owned()));
    }
    match Key::new(backup) {
        Ok(key) if !backup.contains('/') => Ok(Source::Object(ground.store()?, key)),
        _ => anyhow::bail!("there is no file {backup}"),
    }
}
