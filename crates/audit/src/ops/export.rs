//! The chain as lines of JSON that verify on any machine: exactly what was hashed, with keys and signatures.

use portico_base::{Access, Context};
use portico_db::Db;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::chain::{Found, Head, Row, Verifier};
use crate::domain::checkpoint::{Checkpoint, Keys};
use crate::domain::record::{Hash, Stored, moment};
use crate::domain::report::Report;
use crate::error::Result;
use crate::hub::Core;
use crate::permissions::{READ_ALL, VERIFY};
use crate::store;

/// A part of the chain.
pub(crate) struct Part {
    /// What stands before it: whose chain, which keys, the link before the first.
    pub header: Value,
    /// Links with their records, and checkpoints behind the link that they sign.
    pub lines: Vec<Value>,
    /// Number of the last link.
    pub last: Option<u64>,
}

/// The next links behind `after`, at most `limit`.
pub(crate) async fn part(core: &Core, cx: &Context, after: u64, limit: u64) -> Result<Part> {
    cx.authorise(&Access::Permission(VERIFY))?;
    // The lines hold records of every tenant, with all that is private in them.
    cx.authorise(&Access::Permission(READ_ALL))?;
    read(&core.db, core.installation, after, limit).await
}

/// The same without regard to whoever asks.
pub(crate) async fn read(db: &Db, installation: Uuid, after: u64, limit: u64) -> Result<Part> {
    let conn = db.reader();
    let first = store::chain::first(conn).await?.unwrap_or(1);
    let after = after.max(first - 1);
    let before = match store::chain::at(conn, after).await? {
        Some(head) => head,
        None => match store::chain::checkpoint_at(conn, after).await? {
            Some(checkpoint) => checkpoint.head().unwrap_or(Head::genesis(installation)),
            None => Head::genesis(installation),
        },
    };
    let keys = store::keys::list(conn).await?;
    let keys: Vec<Value> = { keys.iter() }
        .map(|k| json!({ "key_id": k.key_id, "public_key": hex::encode(&k.public_key) }))
        .collect();
    let header = json!({
        "kind": "header",
        "v": 1,
        "installation_id": installation,
        "keys": keys,
        "after": { "seq": before.seq, "link": hex::encode(before.link) },
    });
    let rows = store::chain::rows(conn, after + 1, u64::MAX, limit).await?;
    let last = rows.last().map(|row| row.seq);
    let signed = match last {
        Some(last) => store::chain::checkpoints_between(conn, after + 1, last, limit).await?,
        None => Vec::new(),
    };
    let mut signed = signed.into_iter().peekable();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let seq = row.seq;
        lines.push(link_line(row));
        while let Some(checkpoint) = signed.next_if(|c| c.seq <= seq) {
            lines.push(checkpoint_line(&checkpoint));
        }
    }
    Ok(Part {
        header,
        lines,
        last,
    })
}

fn link_line(row: Row) -> Value {
    let (public, private, salt) = match row.record {
        Found::Record(record) => (Some(record.public), record.private, record.salt),
        Found::Unreadable(_) | Found::Nothing => (None, None, None),
    };
    json!({
        "kind": "link",
        "seq": row.seq,
        "record_id": row.record_id,
        "record_hash": hex::encode(row.record_hash),
        "link": hex::encode(row.link),
        "public": public,
        "private": private,
        "salt": salt,
    })
}

/// A checkpoint as a line.
pub(crate) fn checkpoint_line(c: &Checkpoint) -> Value {
    json!({
        "kind": "checkpoint",
        "seq": c.seq,
        "link": hex::encode(&c.link),
        "count": c.count,
        "at": moment(c.at),
        "key_id": c.key_id,
        "signature": hex::encode(&c.signature),
    })
}

/// Verifies the lines of an export, without a database. Keys that are given in hex count instead of those
/// of the file, which whoever made the file could have put there.
///
/// # Errors
/// A sentence when the lines are not an export.
pub fn verify_lines(
    lines: impl IntoIterator<Item = String>,
    pinned: &[String],
) -> std::result::Result<Report, String> {
    let mut lines = lines.into_iter().filter(|line| !line.trim().is_empty());
    let header = lines.next().ok_or("the file is empty")?;
    let mut verifier =
        begin(&header, pinned).ok_or("the first line is not the header of an export")?;
    let mut rows = Vec::new();
    for (at, line) in lines.enumerate() {
        let broken = || format!("line {} is not one of an export", at + 2);
        let line: Value = serde_json::from_str(&line).map_err(|_| broken())?;
        match line["kind"].as_str() {
            Some("link") => rows.push(row(&line).ok_or_else(broken)?),
            Some("checkpoint") => {
                // A line that cannot be read was not signed so.
                verifier.expect([checkpoint(&line).ok_or_else(broken)?]);
                if !verifier.rows(&std::mem::take(&mut rows)) {
                    return Ok(verifier.finish(false));
                }
            }
            _ => return Err(broken()),
        }
    }
    let good = verifier.rows(&rows);
    Ok(verifier.finish(good))
}

fn begin(header: &str, pinned: &[String]) -> Option<Verifier> {
    let header: Value = serde_json::from_str(header).ok()?;
    if header["kind"] != "header" || header["v"] != 1 {
        return None;
    }
    let installation = Uuid::parse_str(header["installation_id"].as_str()?).ok()?;
    let mut keys = Vec::new();
    for key in header["keys"].as_array()? {
        let text = key["public_key"].as_str()?;
        if pinned.is_empty() || pinned.iter().any(|p| p.eq_ignore_ascii_case(text)) {
            keys.push((key["key_id"].as_str()?.to_owned(), hex::decode(text).ok()?));
        }
    }
    let (seq, link) = (
        header["after"]["seq"].as_u64()?,
        hash(&header["after"]["link"])?,
    );
    let head = Head { seq, link };
    let genesis = Head::genesis(installation);
    let anchored = head.seq == 0;
    // Before the first link there is only one beginning.
    let head = if anchored { genesis } else { head };
    Some(Verifier::new(
        Keys::new(installation, keys),
        head,
        anchored,
        None,
    ))
}

fn row(line: &Value) -> Option<Row> {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    let record = match text("public") {
        None => Found::Nothing,
        Some(public) => match Stored::of_parts(&public, text("private"), text("salt")) {
            Some(record) => Found::Record(Box::new(record)),
            None => Found::Unreadable("the record cannot be read".to_owned()),
        },
    };
    Some(Row {
        seq: line["seq"].as_u64()?,
        record_id: Uuid::parse_str(line["record_id"].as_str()?).ok()?,
        record_hash: hex::decode(line["record_hash"].as_str()?).ok()?,
        link: hex::decode(line["link"].as_str()?).ok()?,
        record,
    })
}

fn checkpoint(line: &Value) -> Option<Checkpoint> {
    Some(Checkpoint {
        seq: line["seq"].as_u64()?,
        link: hex::decode(line["link"].as_str()?).ok()?,
        count: line["count"].as_u64()?,
        at: line["at"].as_str()?.parse().ok()?,
        key_id: line["key_id"].as_str()?.to_owned(),
        signature: hex::decode(line["signature"].as_str()?).ok()?,
    })
}

fn hash(value: &Value) -> Option<Hash> {
    Hash::try_from(hex::decode(value.as_str()?).ok()?).ok()
}
