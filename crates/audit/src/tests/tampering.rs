//! The chain is attacked: one byte in any column of any record, link and checkpoint; rows removed, put in,
//! exchanged; the tail cut; another history written. Each is found and named (CT-37).

use portico_base::Timestamp;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::{TestDb, each_backend};
use portico_db::{DbError, WriteTx};
use uuid::Uuid;

use super::House;
use crate::domain::chain::{Found, Head, Row};
use crate::domain::checkpoint::Checkpoint;
use crate::domain::record::Stored;
use crate::store;
use crate::store::chain::NewLink;
use crate::{Fault, FaultKind};

/// All rows of an untouched chain.
struct Whole {
    rows: Vec<Row>,
    checkpoints: Vec<Checkpoint>,
}

impl Whole {
    async fn of(db: &TestDb) -> Self {
        let conn = db.db.reader();
        Self {
            rows: store::chain::rows(conn, 1, 1_000, 1_000).await.unwrap(),
            checkpoints: store::chain::checkpoints_between(conn, 1, 1_000, 100)
                .await
                .unwrap(),
        }
    }

    /// Puts everything back as it was.
    async fn restore(&self, db: &TestDb) {
        let tx = db.db.begin().await.unwrap();
        for table in [
            "audit_records",
            "audit_pending",
            "audit_chain",
            "audit_checkpoints",
        ] {
            let mut delete = Query::delete();
            delete.from_table(table);
            tx.execute(&delete).await.unwrap();
        }
        for row in &self.rows {
            store::records::insert(&tx, record(row)).await.unwrap();
        }
        let links: Vec<NewLink> = self.rows.iter().map(|row| new(row, row.seq)).collect();
        store::chain::append(&tx, &links).await.unwrap();
        for checkpoint in &self.checkpoints {
            store::chain::add_checkpoint(&tx, checkpoint).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

fn record(row: &Row) -> &Stored {
    match &row.record {
        Found::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

fn new(row: &Row, seq: u64) -> NewLink {
    NewLink {
        seq,
        record: row.record_id,
        record_hash: row.record_hash.clone().try_into().unwrap(),
        link: row.link.clone().try_into().unwrap(),
    }
}

async fn touch<F: AsyncFnOnce(&WriteTx) -> Result<(), DbError>>(db: &TestDb, how: F) {
    let tx = db.db.begin().await.unwrap();
    how(&tx).await.unwrap();
    tx.commit().await.unwrap();
}

async fn set(
    db: &TestDb,
    table: &'static str,
    key: (&'static str, Expr),
    column: &'static str,
    value: Expr,
) {
    let mut update = Query::update();
    update
        .table(table)
        .value(column, value)
        .and_where(Expr::col(key.0).eq(key.1));
    touch(db, async |tx| {
        assert_eq!(
            tx.execute(&update).await?.rows_affected(),
            1,
            "{table}.{column}"
        );
        Ok(())
    })
    .await;
}

async fn remove(
    tx: &WriteTx,
    table: &'static str,
    column: &'static str,
    value: impl Into<Expr>,
) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(table)
        .and_where(Expr::col(column).eq(value.into()));
    tx.execute(&delete).await?;
    Ok(())
}

async fn fault(house: &House) -> Fault {
    let report = house.verify().await;
    assert!(!report.ok);
    report.fault.expect("something was found")
}

/// The first fault is this one.
async fn finds(house: &House, seq: u64, kind: FaultKind) {
    let found = fault(house).await;
    assert_eq!((found.seq, found.kind), (seq, kind), "{found:?}");
}

async fn house(db: &TestDb) -> (House, Whole) {
    let house = House::new(db).await;
    house.disable(1).await;
    house.seal().await;
    for n in 2..6 {
        house.disable(n).await;
    }
    house.seal().await;
    house.sign().await;
    for n in 6..11 {
        house.disable(n).await;
    }
    let cx = house.cx(super::admin());
    let mut batch =
        portico_contract::audit::Record::done("t.thing.changed", "thing", "x", super::OTHER);
    batch.batch_id = Some(Uuid::from_u128(5));
    batch.code = Some("t.code");
    house.record(&cx, batch).await;
    house.seal().await;
    house.sign().await;
    house.disable(12).await;
    house.seal().await;
    let whole = Whole::of(db).await;
    assert_eq!((whole.rows.len(), whole.checkpoints.len()), (12, 3));
    let report = house.verify().await;
    assert!(report.ok, "{report:?}");
    (house, whole)
}

/// One bit of the character at `at`, so that it stays text.
fn flipped(text: &str, at: usize) -> String {
    let at = text.floor_char_boundary(at);
    let old = text[at..].chars().next().expect("the text is longer");
    let new = if old == 'x' { 'y' } else { 'x' };
    format!("{}{new}{}", &text[..at], &text[at + old.len_utf8()..])
}

fn later(at: Timestamp) -> Expr {
    Expr::value(at + chrono::Duration::microseconds(1))
}

fn other_id(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ 1)
}

/// Every column of a record with one thing changed.
fn touched_columns(r: &Stored) -> Vec<(&'static str, Expr)> {
    let private = r.private.as_deref().unwrap();
    let salt = r.salt.as_deref().unwrap();
    let mut all: Vec<(&'static str, Expr)> = vec![
        ("id", other_id(r.id).into()),
        ("at", later(r.at)),
        ("tenant_id", other_id(r.tenant).into()),
        ("actor_kind", flipped(&r.actor_kind, 0).into()),
        ("actor_id", flipped(&r.actor_id, 3).into()),
        ("action", flipped(&r.action, 2).into()),
        ("target_type", flipped(&r.target_type, 0).into()),
        ("target_id", flipped(&r.target_id, 0).into()),
        ("request_id", flipped(&r.request_id, 1).into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("outcome", "denied".into()),
        ("error_code", "x.y".into()),
        ("private", None::<String>.into()),
        ("salt", None::<String>.into()),
        ("private_hash", flipped(&r.private_hash, 7).into()),
        ("batch_id", Uuid::from_u128(6).into()),
        ("ip", "203.0.113.8".into()),
        ("ip", None::<String>.into()),
        ("paths", "\nother\n".into()),
        ("redacted_at", r.at.into()),
    ];
    let step = |len: usize| (0..len).step_by((len / 12).max(1));
    all.extend(step(r.public.len()).map(|at| ("public", flipped(&r.public, at).into())));
    all.extend(step(private.len()).map(|at| ("private", flipped(private, at).into())));
    all.extend(step(salt.len()).map(|at| ("salt", flipped(salt, at).into())));
    all
}

#[tokio::test]
async fn one_byte_of_any_column_of_any_record_is_found_at_its_number() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        for row in &whole.rows {
            let stored = record(row);
            for (column, value) in touched_columns(stored) {
                // Every column of two records, and some of each other one.
                if row.seq != 3
                    && row.seq != 11
                    && !matches!(column, "at" | "action" | "private_hash")
                {
                    continue;
                }
                set(db, "audit_records", ("id", stored.id.into()), column, value).await;
                let found = fault(&house).await;
                let kind = if column == "id" {
                    FaultKind::RecordMissing
                } else {
                    FaultKind::RecordAltered
                };
                assert_eq!(
                    (found.seq, found.kind),
                    (row.seq, kind),
                    "{column}: {found:?}"
                );
                assert_eq!(found.record_id, Some(stored.id), "{column}");
                whole.restore(db).await;
            }
        }
        assert!(house.verify().await.ok);
    })
    .await;
}

#[tokio::test]
async fn touched_links_are_found() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        for row in whole
            .rows
            .iter()
            .filter(|row| [1, 4, 5, 12].contains(&row.seq))
        {
            let flip = |bytes: &[u8], at: usize| {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 0x10;
                bytes
            };
            let key = || ("record_id", Expr::from(row.record_id));
            for (column, value, kind) in [
                (
                    "record_hash",
                    flip(&row.record_hash, 9).into(),
                    FaultKind::LinkAltered,
                ),
                ("link", flip(&row.link, 31).into(), FaultKind::LinkAltered),
                (
                    "link",
                    row.link[..31].to_vec().into(),
                    FaultKind::LinkAltered,
                ),
                (
                    "record_id",
                    other_id(row.record_id).into(),
                    FaultKind::RecordMissing,
                ),
                ("seq", 5_000_i64.into(), FaultKind::Gap),
            ] {
                set(db, "audit_chain", key(), column, value).await;
                let found = fault(&house).await;
                // Without its first link the chain has no beginning.
                let kind = if (row.seq, column) == (1, "seq") {
                    FaultKind::CutHead
                } else {
                    kind
                };
                assert_eq!(
                    (found.seq, found.kind),
                    (row.seq, kind),
                    "{column}: {found:?}"
                );
                whole.restore(db).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn touched_checkpoints_are_found() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        let second = &whole.checkpoints[1];
        let key = || ("seq", Expr::from(5_i64));
        let mut signature = second.signature.clone();
        signature[0] ^= 1;
        let mut link = second.link.clone();
        link[0] ^= 1;
        for (column, value) in [
            ("signature", Expr::from(signature)),
            ("link", link.into()),
            ("count", 5_i64.into()),
            ("at", later(second.at)),
            ("key_id", "0000000000000000".into()),
        ] {
            set(db, "audit_checkpoints", key(), column, value).await;
            let found = fault(&house).await;
            assert_eq!(
                (found.seq, found.kind),
                (5, FaultKind::Signature),
                "{column}: {found:?}"
            );
            whole.restore(db).await;
        }
        set(db, "audit_checkpoints", key(), "seq", 6_i64.into()).await;
        finds(&house, 6, FaultKind::Signature).await;
        whole.restore(db).await;
        touch(db, async |tx| {
            remove(tx, "audit_checkpoints", "seq", 5_i64).await
        })
        .await;
        finds(&house, 2, FaultKind::CheckpointMissing).await;
    })
    .await;
}

#[tokio::test]
async fn removed_inserted_and_exchanged_records_are_found() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        let (third, seventh) = (&whole.rows[2], &whole.rows[6]);
        // A record alone, then with its link.
        touch(db, async |tx| {
            remove(tx, "audit_records", "id", third.record_id).await
        })
        .await;
        finds(&house, 3, FaultKind::RecordMissing).await;
        touch(db, async |tx| remove(tx, "audit_chain", "seq", 3_i64).await).await;
        finds(&house, 3, FaultKind::Gap).await;
        whole.restore(db).await;
        // One that nobody sealed.
        let mut strange = record(third).clone();
        strange.id = Uuid::from_u128(strange.id.as_u128() ^ 0xff);
        touch(db, async |tx| {
            store::records::insert(tx, &strange).await?;
            remove(tx, "audit_pending", "record_id", strange.id).await
        })
        .await;
        let found = fault(&house).await;
        assert_eq!(
            (found.kind, found.record_id),
            (FaultKind::RecordInserted, Some(strange.id))
        );
        whole.restore(db).await;
        // Two links change places with all that they have.
        touch(db, async |tx| {
            remove(tx, "audit_chain", "seq", 3_i64).await?;
            remove(tx, "audit_chain", "seq", 7_i64).await?;
            store::chain::append(tx, &[new(seventh, 3)]).await?;
            store::chain::append(tx, &[new(third, 7)]).await
        })
        .await;
        finds(&house, 3, FaultKind::Order).await;
        whole.restore(db).await;
        // Two links change their records, but not their hashes.
        touch(db, async |tx| {
            remove(tx, "audit_chain", "seq", 3_i64).await?;
            remove(tx, "audit_chain", "seq", 7_i64).await?;
            store::chain::append(
                tx,
                &[NewLink {
                    record: seventh.record_id,
                    ..new(third, 3)
                }],
            )
            .await?;
            store::chain::append(
                tx,
                &[NewLink {
                    record: third.record_id,
                    ..new(seventh, 7)
                }],
            )
            .await
        })
        .await;
        finds(&house, 3, FaultKind::Order).await;
    })
    .await;
}

#[tokio::test]
async fn a_cut_tail_and_a_cut_beginning_are_found() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        // Cut behind the last checkpoint but one: the last one remembers.
        touch(db, async |tx| {
            for seq in 8..=12_i64 {
                remove(tx, "audit_chain", "seq", seq).await?;
            }
            for row in &whole.rows[7..] {
                remove(tx, "audit_records", "id", row.record_id).await?;
            }
            Ok(())
        })
        .await;
        finds(&house, 8, FaultKind::CutTail).await;
        whole.restore(db).await;
        // The beginning cut off, as if its time had come.
        touch(db, async |tx| {
            store::chain::remove_to(tx, 5).await?;
            Ok(())
        })
        .await;
        finds(&house, 1, FaultKind::CutHead).await;
        whole.restore(db).await;
        assert!(house.verify().await.ok);
        let op = portico_base::Principal::operator();
        assert_eq!(house.get(&op, "/chain").await["verified"]["ok"], true);
    })
    .await;
}

#[tokio::test]
async fn another_history_is_found_by_what_was_signed() {
    each_backend(async |db| {
        let (house, whole) = house(db).await;
        // Another record at 7, and every link from there on made anew as whoever has only the database can.
        let mut other = record(&whole.rows[6]).clone();
        other.public = other.public.replace("disabled", "enableed");
        other.action = other.action.replace("disabled", "enableed");
        let before = Head {
            seq: 6,
            link: whole.rows[5].link.clone().try_into().unwrap(),
        };
        touch(db, async |tx| {
            for row in &whole.rows[6..] {
                remove(tx, "audit_chain", "seq", i64::try_from(row.seq).unwrap()).await?;
            }
            remove(tx, "audit_records", "id", other.id).await?;
            store::records::insert(tx, &other).await?;
            let mut head = before;
            for row in &whole.rows[6..] {
                let public = if row.seq == 7 {
                    &other.public
                } else {
                    &record(row).public
                };
                let hash = crate::domain::record::record_hash(public);
                head = head.next(&hash);
                let link = NewLink {
                    seq: head.seq,
                    record: row.record_id,
                    record_hash: hash,
                    link: head.link,
                };
                store::chain::append(tx, &[link]).await?;
            }
            Ok(())
        })
        .await;
        let found = fault(&house).await;
        assert_eq!(
            (found.seq, found.kind),
            (6, FaultKind::Fork),
            "between 6 and 11: {found:?}"
        );
        assert!(found.detail.contains("from 6 to 11"), "{found:?}");
    })
    .await;
}

/// The sealer remembers where it left the chain: a tail that is cut while it runs is told at once.
#[tokio::test]
async fn the_sealer_notices_that_its_tail_is_gone() {
    each_backend(async |db| {
        let (house, _) = house(db).await;
        touch(db, async |tx| {
            remove(tx, "audit_chain", "seq", 12_i64).await
        })
        .await;
        house.disable(13).await;
        let head = db.db.outbox().head().await.unwrap();
        house.seal().await;
        let rows = db
            .db
            .outbox()
            .read(&[portico_contract::audit::BROKEN.to_owned()], head, 10)
            .await
            .unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
    })
    .await;
}
