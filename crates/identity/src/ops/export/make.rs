//! The job that makes a copy: every part as JSON into one zip file, streamed into the object store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portico_jobs::{Failure, Handler, JobRun};
use portico_objects::{Stored, Writer};
use serde_json::{Value, json};

use super::archive::Archive;
use super::{KIND, LIFE, Payload, object, readme, unavailable};
use crate::domain::personal::{Export, ExportState};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::ops::sms;
use crate::store;
use crate::unit::Unit;

/// Longest run.
const LIMIT: Duration = Duration::from_secs(1_800);

/// Bytes of one write into the store.
const CHUNK: usize = 256 * 1024;

/// What makes the copies.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job: JobRun| {
        let core = Arc::clone(&core);
        async move { run(&core, &job).await }
    })
    .limit(LIMIT)
    .at_once(1)
    .backoff(Duration::from_secs(30), Duration::from_secs(7_200))
}

async fn run(core: &Arc<Core>, job: &JobRun) -> std::result::Result<(), Failure> {
    let payload: Payload = job.payload()?;
    let found = store::exports::get(core.db.reader(), payload.tenant, payload.export).await?;
    let Some(export) = found.filter(|e| e.state == ExportState::Waiting) else {
        return Ok(());
    };
    match Box::pin(make(core, job, &export)).await {
        Ok((stored, parts)) => Ok(ready(core, job, export, stored, parts).await?),
        Err(error) => {
            if job.is_last() {
                let failed = Export {
                    state: ExportState::Failed,
                    ..export
                };
                let tx = core.db.begin().await?;
                job.fence(&tx).await?;
                store::exports::end(&tx, &failed).await?;
                tx.commit().await?;
            }
            Err(error.into())
        }
    }
}

/// Writes the zip file; gives what it is, and the services that had something.
async fn make(core: &Arc<Core>, job: &JobRun, export: &Export) -> Result<(Stored, Vec<String>)> {
    let user = store::users::get(core.db.reader(), export.tenant, export.user).await?;
    let user = user
        .filter(|user| user.status != UserStatus::Deleted)
        .ok_or(reason::USER_NOT_FOUND)?;
    let key = object(export)?;
    let writer = core.objects.writer(&key, "application/zip").await;
    let writer = writer.map_err(|error| unavailable(&error))?;
    let mut out = Out {
        archive: Some(Archive::new(job.context.now())),
        writer,
    };
    match fill(core, job, export, &user, &mut out).await {
        Ok(parts) => Ok((out.end().await?, parts)),
        Err(error) => {
            out.writer.abort().await;
            Err(error)
        }
    }
}

async fn fill(
    core: &Arc<Core>,
    job: &JobRun,
    export: &Export,
    user: &User,
    out: &mut Out,
) -> Result<Vec<String>> {
    let mut parts = vec!["identity".to_owned()];
    let mut others = Vec::new();
    for part in store::personal::PARTS {
        let rows = store::personal::rows(core.db.reader(), part, user.tenant, user.id).await?;
        let content = match part.file {
            "profile" => rows.into_iter().next().unwrap_or(Value::Null),
            _ => rows.into(),
        };
        out.add(&own_file(part.file), &content).await?;
    }
    for (file, content) in rest(core, user).await? {
        out.add(&own_file(file), &content).await?;
    }
    for part in core.personal.all() {
        let found = part.export(&job.context, user.tenant, user.id).await;
        let found = found.map_err(|error| {
            let why = portico_web::problem::chain(&error);
            Error::Internal(format!("the part of {}: {why}", part.service()))
        })?;
        if let Some(content) = found {
            let file = format!("{}.json", part.service());
            out.add(&file, &content).await?;
            others.push(file);
            parts.push(part.service().to_owned());
        }
    }
    let made_at = job.context.now().format("%Y-%m-%d %H:%M UTC").to_string();
    let text = readme::text(export, &made_at, &others);
    out.add_bytes("README.txt".to_owned(), text.into_bytes())
        .await?;
    Ok(parts)
}

fn own_file(name: &str) -> String {
    format!("identity/{name}.json")
}

/// What is not simply rows of one table.
async fn rest(core: &Arc<Core>, user: &User) -> Result<[(&'static str, Value); 5]> {
    let conn = core.db.reader();
    let roles = store::roles::of_user(conn, user.id).await?;
    let roles: Vec<String> = roles.into_iter().map(|role| role.name).collect();
    let secrets = store::secrets::get(conn, user.id).await?;
    let totp = store::factors::get(conn, user.id).await?;
    let codes = store::factors::codes(conn, user.id).await?.len();
    let credentials = json!({
        "password": { "set": secrets.password.is_some(), "changed_at": secrets.password_changed_at },
        "totp": { "confirmed_at": totp.and_then(|totp| totp.confirmed_at) },
        "recovery_codes_left": codes,
    });
    let invitations = store::personal::invitations(conn, user.tenant, user.id).await?;
    let messages = match &user.phone {
        Some(phone) => {
            let hash = sms::number_hash(core, phone);
            store::personal::messages(conn, user.tenant, hash).await?
        }
        None => Vec::new(),
    };
    Ok([
        ("roles", roles.into()),
        ("credentials", credentials),
        ("consents", Value::Array(Vec::new())),
        ("invitations", invitations.into()),
        ("messages", messages.into()),
    ])
}

/// It can be fetched from now on; whoever asked is told.
async fn ready(
    core: &Arc<Core>,
    job: &JobRun,
    export: Export,
    stored: Stored,
    parts: Vec<String>,
) -> Result<()> {
    let unit = Unit::begin(core, &job.context).await?;
    job.fence(&unit.tx).await?;
    let export = Export {
        state: ExportState::Ready,
        bytes: i64::try_from(stored.size).ok(),
        sha256: Some(hex::encode(stored.sha256)),
        parts,
        ready_at: Some(unit.now()),
        expires_at: unit.now() + LIFE,
        ..export
    };
    if !store::exports::end(&unit.tx, &export).await? {
        drop(unit);
        // The person was erased meanwhile, and this with them.
        let deleted = core.objects.delete(&object(&export)?).await;
        return deleted.map_err(|error| unavailable(&error));
    }
    // Their own copy; an administrator's is the administrator's business.
    if export.requester == format!("user:{}", export.user)
        && let Some(user) = store::users::get(&unit.tx, export.tenant, export.user).await?
    {
        let notices = &core.notices;
        notices.send(&unit, &user, Notice::ExportReady).await?;
    }
    job.done(&unit.tx).await?;
    unit.commit().await
}

/// The zip file on its way into the store.
struct Out {
    /// Away only while a file is compressed.
    archive: Option<Archive>,
    writer: Writer,
}

impl Out {
    async fn add(&mut self, name: &str, content: &Value) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(content);
        let bytes = bytes.map_err(|error| Error::Internal(error.to_string()))?;
        self.add_bytes(name.to_owned(), bytes).await
    }

    async fn add_bytes(&mut self, name: String, content: Vec<u8>) -> Result<()> {
        let mut archive = self.archive.take().ok_or_else(lost)?;
        // Compression takes a while; it must not hold up who else is served.
        let added = tokio::task::spawn_blocking(move || {
            let added = archive.add(&name, &content);
            (archive, added)
        });
        let (archive, added) = added.await.map_err(|_| lost())?;
        self.archive = Some(archive);
        write(&mut self.writer, added.map_err(|error| broken(&error))?).await
    }

    async fn end(self) -> Result<Stored> {
        let Self {
            archive,
            mut writer,
        } = self;
        let last = archive
            .ok_or_else(lost)?
            .end()
            .map_err(|error| broken(&error))?;
        write(&mut writer, last).await?;
        let stored = writer.finish().await;
        stored.map_err(|error| unavailable(&error))
    }
}

async fn write(writer: &mut Writer, mut bytes: Bytes) -> Result<()> {
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        let written = writer.write(chunk).await;
        written.map_err(|error| unavailable(&error))?;
    }
    Ok(())
}

fn broken(error: &std::io::Error) -> Error {
    Error::Internal(format!("the zip file: {error}"))
}

fn lost() -> Error {
    Error::Internal("the zip file was lost".to_owned())
}
