//! A small service with every kind of column, and what a test needs around it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use portico_backup::{Dump, House, Lock, Made, ObjectsIn, Restore, Source, Unlock};
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, ManualClock, Random, SeededRandom, Tx};
use portico_contract::backup::{AfterRestore, Finding, Findings, PartFailed, Restoring};
use portico_db::schema::{
    big_integer, boolean, bytes_null, double, integer, json, references, table, text, text_null,
    timestamp, timestamp_null, uuid,
};
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::TestDb;
use portico_db::{Cell, Db, Migrations, Step, WriteTx, step_names};
use portico_objects::Objects;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the binary of these tests knows.
pub(crate) fn sets() -> Vec<(&'static str, Migrations)> {
    vec![("bank", Migrations::new([accounts(), later()]))]
}

/// What an older one knew.
pub(crate) fn older() -> Vec<(&'static str, Migrations)> {
    vec![("bank", Migrations::new([accounts()]))]
}

fn accounts() -> Step {
    let parent = &mut references("accounts", "parent", "accounts", "name");
    Step::new(
        "m0001_accounts",
        [
            table("accounts")
                .col(text("name").primary_key())
                .col(text_null("parent"))
                .col(uuid("id"))
                .col(big_integer("balance"))
                .col(integer("rank"))
                .col(boolean("open"))
                .col(double("rate"))
                .col(timestamp("since"))
                .col(timestamp_null("until"))
                .col(json("data"))
                .col(bytes_null("photo"))
                .foreign_key(parent)
                .into(),
            table("entries")
                .col(uuid("id").primary_key())
                .col(text("account"))
                .col(big_integer("amount"))
                .foreign_key(&mut references("entries", "account", "accounts", "name"))
                .into(),
            Query::insert()
                .into_table("accounts")
                .columns([
                    "name", "id", "balance", "rank", "open", "rate", "since", "data",
                ])
                .values_panic([
                    "first".into(),
                    Uuid::nil().into(),
                    0.into(),
                    0.into(),
                    true.into(),
                    0.5.into(),
                    portico_base::clock::from_unix_ms(0).into(),
                    serde_json::json!({}).into(),
                ])
                .into(),
        ],
    )
}

fn later() -> Step {
    Step::new(
        "m0002_tags",
        [table("tags").col(text("name").primary_key()).into()],
    )
}

/// The service's part: it counts, and closes an account.
pub(crate) struct Bank;

impl AfterRestore for Bank {
    fn service(&self) -> &'static str {
        "bank"
    }

    fn check<'a>(&'a self, tx: &'a dyn Tx, _: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let all = total(WriteTx::of(tx).map_err(failed)?).await;
            Ok(vec![match all {
                0 => Finding::note("bank", "the books balance"),
                other => Finding::fault("bank", format!("{other} are missing in the books")),
            }])
        })
    }

    fn settle<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let mut close = Query::update();
            close
                .table("accounts")
                .value("until", restoring.now)
                .and_where(Expr::col("name").eq("first"));
            let tx = WriteTx::of(tx).map_err(failed)?;
            tx.execute(&close).await.map_err(|e| failed(e.into()))?;
            Ok(vec![Finding::note("bank", "the first account is closed")])
        })
    }
}

fn failed(error: portico_db::DbError) -> PartFailed {
    PartFailed(Box::new(error))
}

/// Sum of all balances plus all entries: nothing, whenever it is looked at.
pub(crate) async fn total(conn: &impl ConnectionTrait) -> i128 {
    let mut sum = 0;
    for (table, column) in [("accounts", "balance"), ("entries", "amount")] {
        let mut select = Query::select();
        select.column(column).from(table);
        for row in conn.query_all(&select).await.unwrap() {
            sum += i128::from(row.try_get::<i64>("", column).unwrap());
        }
    }
    sum
}

pub(crate) fn house() -> House {
    House {
        migrations: Arc::new(sets()),
        parts: vec![Arc::new(Bank)],
        version: env!("CARGO_PKG_VERSION"),
    }
}

pub(crate) fn keys() -> Arc<MasterKeys> {
    Arc::new(MasterKeys::new("mk1", [7; 32]))
}

pub(crate) fn unlock() -> Unlock {
    Unlock {
        master: keys(),
        identities: Vec::new(),
    }
}

/// A backup of a database in a file.
pub(crate) async fn dump(db: &Db, path: &Path, objects: Option<(&Objects, ObjectsIn)>) -> Made {
    try_dump(db, path, objects, &Lock::Master(keys()))
        .await
        .expect("the backup is made")
}

pub(crate) async fn try_dump(
    db: &Db,
    path: &Path,
    objects: Option<(&Objects, ObjectsIn)>,
    lock: &Lock,
) -> portico_backup::Result<Made> {
    let steps: BTreeSet<String> = step_names(&sets()).unwrap();
    let dump = Dump {
        id: Uuid::from_u128(77),
        db,
        steps: &steps,
        version: env!("CARGO_PKG_VERSION"),
        objects,
        lock,
        clock: &**db.clock(),
        random: &SeededRandom::new(1),
        cancel: &CancellationToken::new(),
    };
    dump.to_file(path).await
}

/// A restore with the usual things around it.
pub(crate) struct Bench {
    pub(crate) source: Source,
    pub(crate) unlock: Unlock,
    pub(crate) house: House,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Bench {
    pub(crate) fn new(path: PathBuf, clock: &ManualClock) -> Self {
        Self {
            source: Source::File(path),
            unlock: unlock(),
            house: house(),
            clock: Arc::new(clock.clone()),
        }
    }

    pub(crate) fn restore(&self) -> Restore<'_> {
        Restore {
            source: &self.source,
            unlock: &self.unlock,
            house: &self.house,
            keep_sessions: false,
            clock: Arc::clone(&self.clock),
            random: Arc::new(SeededRandom::new(2)) as Arc<dyn Random>,
        }
    }
}

/// Rows of every kind, with everything that is easily lost.
pub(crate) async fn furnish(db: &TestDb) {
    let tx = db.db.begin().await.unwrap();
    let texts = ["", "a'b\"c", "多行\n文字 🦀", "\u{7f}\t"];
    for (i, text) in texts.iter().enumerate() {
        let mut insert = Query::insert();
        insert
            .into_table("accounts")
            .columns([
                "name", "parent", "id", "balance", "rank", "open", "rate", "since", "until",
                "data", "photo",
            ])
            .values_panic([
                format!("{text}{i}").into(),
                None::<String>.into(),
                Uuid::from_u128(u128::MAX - i as u128).into(),
                [i64::MIN, i64::MAX, -1, 2][i].into(),
                [i32::MIN, i32::MAX, 0, 1][i].into(),
                (i % 2 == 0).into(),
                [-0.25, f64::MAX, f64::MIN_POSITIVE, 1.0 / 3.0][i].into(),
                (db.clock.now() + chrono::Duration::microseconds(i as i64)).into(),
                (i == 1).then(|| db.clock.now()).into(),
                serde_json::json!({ "n": [1, 2.5, null, "\"x\"", { "ü": "🦀" }], "i": i }).into(),
                (i != 2).then(|| vec![0_u8, 255, 1, 2]).into(),
            ]);
        tx.execute(&insert).await.unwrap();
    }
    // A row refers to one that comes later.
    let mut refer = Query::update();
    refer
        .table("accounts")
        .value("parent", format!("{}3", texts[3]))
        .and_where(Expr::col("name").eq(format!("{}0", texts[0])));
    assert_eq!(tx.execute(&refer).await.unwrap().rows_affected(), 1);
    tx.commit().await.unwrap();
}

/// All rows of the tables of the service, sorted, JSON by its meaning.
pub(crate) async fn everything(db: &Db) -> Vec<String> {
    let mut snapshot = db.snapshot().await.unwrap();
    let mut all = Vec::new();
    for mut table in snapshot.tables().await.unwrap() {
        if !["accounts", "entries", "tags", "outbox"].contains(&table.name.as_str()) {
            continue;
        }
        // A column that came later stands elsewhere.
        table.columns.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rows = snapshot.rows(&table);
        while let Some(row) = rows.next().await {
            let cells = row.unwrap().into_iter().map(|cell| match cell {
                Cell::Json(text) => {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    format!("json {value}")
                }
                other => format!("{other:?}"),
            });
            let cells: Vec<String> = cells.collect();
            all.push(format!("{}: {}", table.name, cells.join(" | ")));
        }
    }
    snapshot.close().await.unwrap();
    all.sort();
    all
}
