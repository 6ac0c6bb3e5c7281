//! Pages of a list: every row once, in order, from an index.

use portico_db::keyset::{asc, desc, page};
use portico_db::schema::index;
use portico_db::sea_orm::{ConnectionTrait as _, Value};
use portico_db::sea_query::{Query, SelectStatement};
use portico_db::testing::each_backend;
use portico_db::{Backend, Migrations, Step};

use crate::{put, words, words_step};

fn select() -> SelectStatement {
    Query::select()
        .columns(["word", "number"])
        .from("words")
        .take()
}

#[tokio::test]
async fn pages_have_every_row_once() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let tx = t.db.begin().await.unwrap();
        for i in 0..57 {
            put(&tx, &format!("w{i:02}"), i % 5).await.unwrap();
        }
        tx.commit().await.unwrap();
        for limit in [1, 7, 56, 57, 200] {
            let mut seen: Vec<(i64, String)> = Vec::new();
            let mut after: Option<[Value; 2]> = None;
            loop {
                let mut query = select();
                page(&mut query, [desc("number"), asc("word")], after, limit);
                let rows = t.db.reader().query_all(&query).await.unwrap();
                let more = rows.len() > limit;
                seen.extend(rows.iter().take(limit).map(|row| {
                    let number = row.try_get("", "number").unwrap();
                    (number, row.try_get("", "word").unwrap())
                }));
                if !more {
                    break;
                }
                let (number, word) = seen.last().unwrap().clone();
                after = Some([number.into(), word.into()]);
            }
            let mut sorted = seen.clone();
            sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            sorted.dedup();
            assert_eq!(seen.len(), 57);
            assert_eq!(seen, sorted);
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_comes_from_the_index() {
    each_backend(async |t| {
        let indexed = Migrations::new([
            words_step(),
            Step::new(
                "m0002_index",
                [index("words_number_word", "words", ["number", "word"]).into()],
            ),
        ]);
        t.db.migrate(&[("test", indexed)]).await.unwrap();
        let mut query = select();
        let after = Some([3_i64.into(), "w10".into()]);
        page(&mut query, [asc("number"), asc("word")], after, 50);
        let plan = t.db.explain(&query).await.unwrap();
        assert!(plan.contains("words_number_word"), "{plan}");
        if t.backend() == Backend::Sqlite {
            assert!(plan.contains("SEARCH"), "{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        } else {
            assert!(!plan.contains("Sort"), "{plan}");
        }
    })
    .await;
}
