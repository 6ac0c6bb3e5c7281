//! Migrations: once, under a lock, by several processes at the same time, and never by one too old.

use std::sync::Arc;

use portico_base::id::TENANT_DEFAULT;
use portico_base::{Clock as _, SystemClock, Timestamp};
use portico_db::schema::{
    boolean, bytes, bytes_null, double, index, integer, json, json_null, key, one_of, references,
    table, text, text_null, timestamp, timestamp_null, uuid, uuid_null,
};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{ColumnDef, Expr, ExprTrait as _, InsertStatement, Query, Table};
use portico_db::testing::{TestDb, each_backend, postgres_options, sqlite_options};
use portico_db::{Db, DbError, DbOptions, Migrations, Step};

use crate::{get, words, words_step};

fn more_words() -> Migrations {
    Migrations::new([
        words_step(),
        Step::new(
            "m0002_more",
            [
                Table::alter()
                    .table("words")
                    .add_column(ColumnDef::new("language").text().null())
                    .into(),
                index("words_number", "words", ["number"]).unique().into(),
                Query::insert()
                    .into_table("words")
                    .columns(["word", "number"])
                    .values_panic(["first".into(), 7_i64.into()])
                    .into(),
            ],
        ),
    ])
}

#[tokio::test]
async fn steps_run_once_and_in_order() {
    each_backend(async |t| {
        let plan =
            t.db.migration_plan(&[("test", more_words())])
                .await
                .unwrap();
        let names: Vec<&str> = plan.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["test/m0001_words", "test/m0002_more"]);
        assert!(plan[0].sql[0].starts_with("CREATE TABLE \"words\""));
        let report = t.db.migrate(&[("test", words())]).await.unwrap();
        assert_eq!(report.applied, ["test/m0001_words"]);
        let report = t.db.migrate(&[("test", more_words())]).await.unwrap();
        assert_eq!(report.applied, ["test/m0002_more"]);
        let again = t.db.migrate(&[("test", more_words())]).await.unwrap();
        assert!(again.applied.is_empty());
        assert_eq!(again.schema_version, report.schema_version);
        assert_eq!(get(t.db.reader(), "first").await.unwrap(), Some(7));
        // An older release sees a step that it does not know, and works.
        let status = t.db.migration_status(&[("test", words())]).await.unwrap();
        let unknown: Vec<_> = status.iter().filter(|s| !s.known).collect();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].name, "test/m0002_more");
        assert_eq!(unknown[0].applied_at, Some(t.clock.now()));
        t.db.migrate(&[("test", words())]).await.unwrap();
        let installation = t.db.installation().await.unwrap();
        assert_eq!(installation.schema_version as u32, report.schema_version);
    })
    .await;
}

#[tokio::test]
async fn a_failing_step_leaves_nothing_behind() {
    each_backend(async |t| {
        let broken = Migrations::new([
            words_step(),
            Step::new(
                "m0002_broken",
                [
                    table("half").col(text("a").primary_key()).into(),
                    table("words").col(text("a").primary_key()).into(),
                ],
            ),
        ]);
        let error = t.db.migrate(&[("test", broken)]).await.unwrap_err();
        assert!(
            matches!(&error, DbError::Migration { name, .. } if name == "test/m0002_broken"),
            "{error}"
        );
        let status =
            t.db.migration_status(&[("test", more_words())])
                .await
                .unwrap();
        let pending: Vec<_> = status.iter().filter(|s| s.applied_at.is_none()).collect();
        assert_eq!(pending.len(), 1);
        // The table of the first statement was taken back with the rest.
        let mended = Migrations::new([
            words_step(),
            Step::new(
                "m0002_broken",
                [table("half").col(text("a").primary_key()).into()],
            ),
        ]);
        t.db.migrate(&[("test", mended)]).await.unwrap();
    })
    .await;
}

async fn together(options: &DbOptions) {
    let one = Db::connect(options, Arc::new(SystemClock)).await.unwrap();
    let two = Db::connect(options, Arc::new(SystemClock)).await.unwrap();
    let sets = [("test", more_words())];
    let (a, b) = tokio::join!(one.migrate(&sets), two.migrate(&sets));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.applied.len() + b.applied.len(), 3, "{a:?} {b:?}");
    assert!(a.schema_version == 3 || b.schema_version == 3);
    assert_eq!(get(one.reader(), "first").await.unwrap(), Some(7));
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn two_processes_on_an_empty_database_share_the_work() {
    let dir = tempfile::tempdir().unwrap();
    together(&sqlite_options(&dir)).await;
    if let Some((options, _)) = postgres_options().await {
        together(&options).await;
    }
}

#[tokio::test]
async fn a_release_that_is_too_old_changes_nothing() {
    each_backend(async |t: &TestDb| {
        let contract = || {
            Migrations::new([
                words_step(),
                Step::new("m0002_contract", []).needs_binary("99.1.0"),
            ])
        };
        // The release that brings the step meets its own demand only if it is new enough.
        let error = t.db.migrate(&[("test", contract())]).await.unwrap_err();
        assert!(matches!(error, DbError::SchemaTooNew { .. }), "{error}");
        let later = Migrations::new([
            words_step(),
            Step::new("m0003_later", [table("later").col(text("a")).into()]),
        ]);
        let error = t.db.migrate(&[("test", later)]).await.unwrap_err();
        let DbError::SchemaTooNew { needs, binary } = error else {
            panic!("{error}");
        };
        assert_eq!(
            (needs.as_str(), binary.as_str()),
            ("99.1.0", env!("CARGO_PKG_VERSION"))
        );
        let status = t.db.migration_status(&[]).await.unwrap();
        assert!(status.iter().all(|s| s.name != "test/m0003_later"));
    })
    .await;
}

fn every_type() -> Migrations {
    Migrations::new([Step::new(
        "m0001_all",
        [
            table("parents").col(uuid("id").primary_key()).into(),
            table("children")
                .col(uuid("id"))
                .col(uuid_null("parent"))
                .col(one_of("kind", &["a", "b"]))
                .col(boolean("flag"))
                .col(integer("small"))
                .col(double("ratio"))
                .col(timestamp("at"))
                .col(timestamp_null("until"))
                .col(json("doc"))
                .col(json_null("more"))
                .col(bytes("raw"))
                .col(bytes_null("rest"))
                .col(text_null("note"))
                .primary_key(&mut key(["id", "kind"]))
                .foreign_key(&mut references("children", "parent", "parents", "id"))
                .into(),
        ],
    )])
}

fn child(kind: &str, parent: Option<uuid::Uuid>, at: Timestamp) -> InsertStatement {
    Query::insert()
        .into_table("children")
        .columns([
            "id", "parent", "kind", "flag", "small", "ratio", "at", "doc", "raw",
        ])
        .values_panic([
            TENANT_DEFAULT.into(),
            parent.into(),
            kind.into(),
            true.into(),
            (-3).into(),
            0.25.into(),
            at.into(),
            serde_json::json!({"x": [1, "é"]}).into(),
            vec![0_u8, 255].into(),
        ])
        .take()
}

#[tokio::test]
async fn all_column_types_keep_their_values() {
    each_backend(async |t| {
        t.db.migrate(&[("test", every_type())]).await.unwrap();
        let at = t.clock.now() + chrono::Duration::microseconds(123_456);
        let tx = t.db.begin().await.unwrap();
        tx.execute(&child("a", None, at)).await.unwrap();
        let mut select = Query::select();
        select
            .columns(["id", "at", "until", "doc", "raw", "flag", "ratio", "small"])
            .from("children");
        let row = tx.query_one(&select).await.unwrap().unwrap();
        let id: uuid::Uuid = row.try_get("", "id").unwrap();
        assert_eq!(id, TENANT_DEFAULT);
        assert_eq!(row.try_get::<Timestamp>("", "at").unwrap(), at);
        let until: Option<Timestamp> = row.try_get("", "until").unwrap();
        assert_eq!(until, None);
        let doc: serde_json::Value = row.try_get("", "doc").unwrap();
        assert_eq!(doc["x"][1], "é");
        assert_eq!(row.try_get::<Vec<u8>>("", "raw").unwrap(), [0, 255]);
        assert!(row.try_get::<bool>("", "flag").unwrap());
        assert_eq!(row.try_get::<i32>("", "small").unwrap(), -3);
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tables_refuse_what_they_do_not_allow() {
    each_backend(async |t| {
        t.db.migrate(&[("test", every_type())]).await.unwrap();
        let at = t.clock.now();
        let tx = t.db.begin().await.unwrap();
        let refused = tx.execute(&child("c", None, at)).await;
        let error = DbError::from(refused.unwrap_err());
        assert!(matches!(error, DbError::Check(_)), "{error}");
        drop(tx);
        let tx = t.db.begin().await.unwrap();
        let refused = tx.execute(&child("b", Some(TENANT_DEFAULT), at)).await;
        let error = DbError::from(refused.unwrap_err());
        assert!(matches!(error, DbError::Reference { .. }), "{error}");
    })
    .await;
}

/// The order of times as text on SQLite is their order in time, whatever digits they have.
#[tokio::test]
async fn times_sort_and_compare() {
    let times = || {
        Migrations::new([Step::new(
            "m0001_times",
            [table("times").col(timestamp("at")).into()],
        )])
    };
    each_backend(async |t| {
        t.db.migrate(&[("test", times())]).await.unwrap();
        let base = t.clock.now();
        let steps = [
            0, 1, 100, 1_000, 123_000, 123_456, 500_000, 999_999, 1_000_000, 60_000_000,
        ];
        let tx = t.db.begin().await.unwrap();
        for us in steps.iter().rev() {
            let at = base + chrono::Duration::microseconds(*us);
            let mut insert = Query::insert();
            insert
                .into_table("times")
                .columns(["at"])
                .values_panic([at.into()]);
            tx.execute(&insert).await.unwrap();
        }
        tx.commit().await.unwrap();
        for (i, us) in steps.iter().enumerate() {
            let at = base + chrono::Duration::microseconds(*us);
            let mut select = Query::select();
            select
                .column("at")
                .from("times")
                .and_where(Expr::col("at").lt(at))
                .order_by("at", portico_db::sea_query::Order::Asc);
            let rows = t.db.reader().query_all(&select).await.unwrap();
            let got: Vec<Timestamp> = rows.iter().map(|r| r.try_get("", "at").unwrap()).collect();
            assert_eq!(got.len(), i);
            assert!(got.is_sorted());
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_claim_on_the_key_check_counts() {
    each_backend(async |t| {
        assert_eq!(t.db.claim_key_check("mine").await.unwrap(), "mine");
        assert_eq!(t.db.claim_key_check("other").await.unwrap(), "mine");
        let installation = t.db.installation().await.unwrap();
        assert_eq!(installation.key_check.as_deref(), Some("mine"));
        assert_eq!(
            (installation.term, installation.region.as_str()),
            (1, "local")
        );
        assert_eq!(installation.created_at, t.clock.now());
        t.db.migrate(&[]).await.unwrap();
        assert_eq!(t.db.installation().await.unwrap(), installation);
    })
    .await;
}
