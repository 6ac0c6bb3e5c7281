//! Values from outside are only values (SC-15).

use portico_base::Fault as _;
use portico_db::DbError;
use portico_db::testing::each_backend;

use crate::{get, put, words};

#[tokio::test]
async fn hostile_values_stay_values() {
    let long = "x".repeat(10_000);
    let values = [
        "'; DROP TABLE words; --",
        "\" OR 1=1 /*",
        "%_\\",
        "$1 ? :a @b",
        "\u{202e}\u{0}nul",
        "\u{feff}ünïcode 你好 🦀",
        &long,
        "",
    ];
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        for (i, value) in (0..).zip(values) {
            let tx = t.db.begin().await.unwrap();
            match put(&tx, value, i).await {
                Ok(()) => {
                    tx.commit().await.unwrap();
                    assert_eq!(get(t.db.reader(), value).await.unwrap(), Some(i));
                }
                // PostgreSQL's text cannot hold NUL: a refused value, not a broken database.
                Err(error) => {
                    assert!(value.contains('\0'), "{error}");
                    assert!(matches!(error, DbError::BadText), "{error}");
                    assert_eq!(error.kind().status(), 400);
                }
            }
        }
        assert_eq!(get(t.db.reader(), "nobody").await.unwrap(), None);
    })
    .await;
}
