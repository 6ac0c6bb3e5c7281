//! Objects travel with the rows, or are named; a verification compares one in a hundred.

use futures_util::StreamExt as _;
use portico_backup::{ObjectsIn, peek};
use portico_base::{Random as _, SeededRandom};
use portico_db::testing::sqlite;
use portico_objects::{Key, Objects};
use portico_telemetry::metrics::Registry;

use crate::house::{Bench, dump, furnish, sets, unlock};

async fn filled(folder: &std::path::Path) -> Objects {
    let objects = Objects::local(folder, &Registry::default()).unwrap();
    let random = SeededRandom::new(6);
    for number in 0..300 {
        let key = Key::new(format!("albums/{number}/cover.png")).unwrap();
        let mut bytes = vec![0; if number == 7 { 1_500_000 } else { number }];
        random.fill(&mut bytes);
        objects.put_bytes(&key, "image/png", bytes).await.unwrap();
    }
    objects
}

async fn read(objects: &Objects, key: &Key) -> (String, Vec<u8>) {
    let mut object = objects.get(key).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = object.body.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    (object.content_type, bytes)
}

#[tokio::test]
async fn objects_come_back_with_their_types() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite().await;
    from.db.migrate(&sets()).await.unwrap();
    furnish(&from).await;
    let objects = filled(&folder.path().join("objects")).await;
    let path = folder.path().join("one.pbk");
    let made = dump(&from.db, &path, Some((&objects, ObjectsIn::Whole))).await;
    assert_eq!(made.summary.objects.count, 300);

    let into = Objects::local(&folder.path().join("other"), &Registry::default()).unwrap();
    let bench = Bench::new(path, &from.clock);
    let file = folder.path().join("data").join("portico.db");
    let report = bench.restore().into_file(&file, Some(&into)).await.unwrap();
    assert_eq!(report.objects, 300);
    for number in [0, 1, 7, 299] {
        let key = Key::new(format!("albums/{number}/cover.png")).unwrap();
        assert_eq!(read(&into, &key).await, read(&objects, &key).await);
    }
    compared(&bench, &objects, folder.path()).await;
    from.finish().await;
}

#[tokio::test]
async fn names_are_kept_where_the_bytes_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite().await;
    from.db.migrate(&sets()).await.unwrap();
    let objects = filled(&folder.path().join("objects")).await;
    let path = folder.path().join("one.pbk");
    let made = dump(&from.db, &path, Some((&objects, ObjectsIn::Names))).await;
    assert_eq!(made.summary.objects.count, 300);
    assert!(made.bytes < 100_000, "{}", made.bytes);
    let bench = Bench::new(path, &from.clock);
    let manifest = peek(&bench.source, &unlock()).await.unwrap();
    assert_eq!(manifest.objects, ObjectsIn::Names);
    compared(&bench, &objects, folder.path()).await;
    from.finish().await;
}

/// Equal at first; an object of another content is a fault; one that is gone is not.
async fn compared(bench: &Bench, objects: &Objects, scratch: &std::path::Path) {
    let says = |report: &portico_backup::Report| {
        let mut of_objects = report.findings.iter().filter(|f| f.service == "objects");
        of_objects
            .next_back()
            .map(|f| f.what.clone())
            .unwrap_or_default()
    };
    let good = bench
        .restore()
        .verify(scratch, Some(objects))
        .await
        .unwrap();
    let said = says(&good);
    let number: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(good.is_good() && (1..=20).contains(&number), "{said}");
    for i in 0..300 {
        let key = Key::new(format!("albums/{i}/cover.png")).unwrap();
        objects.put_bytes(&key, "image/png", "other").await.unwrap();
    }
    let bad = bench
        .restore()
        .verify(scratch, Some(objects))
        .await
        .unwrap();
    assert!(!bad.is_good(), "{}", says(&bad));
    assert!(
        says(&bad).starts_with(&format!("{number} of {number}")),
        "{}",
        says(&bad)
    );
    for i in 0..300 {
        let key = Key::new(format!("albums/{i}/cover.png")).unwrap();
        objects.delete(&key).await.unwrap();
    }
    let gone = bench
        .restore()
        .verify(scratch, Some(objects))
        .await
        .unwrap();
    assert!(gone.is_good(), "{}", says(&gone));
}
