//! What is damaged or does not fit is refused before a byte is written.

use portico_backup::{BackupError, Identity, Lock, Source, check, peek};
use portico_base::{Random as _, SeededRandom};
use portico_db::testing::sqlite;

use crate::house::{Bench, dump, furnish, sets, try_dump, unlock};

#[tokio::test]
async fn a_damaged_backup_touches_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite().await;
    from.db.migrate(&sets()).await.unwrap();
    furnish(&from).await;
    let path = folder.path().join("one.pbk");
    dump(&from.db, &path, None).await;
    let bytes = std::fs::read(&path).unwrap();
    let into = sqlite().await;
    let before = into.db.tables().await.unwrap();
    let random = SeededRandom::new(8);
    for _ in 0..40 {
        let mut changed = bytes.clone();
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let bench = Bench::new(path.clone(), &into.clock);
        assert!(bench.restore().into_db(&into.db, None).await.is_err());
        let file = folder.path().join("data").join("portico.db");
        assert!(bench.restore().into_file(&file, None).await.is_err());
        assert!(!folder.path().join("data").exists());
    }
    assert_eq!(into.db.tables().await.unwrap(), before);
    let done = into.db.migration_status(&sets()).await.unwrap();
    assert!(done.iter().any(|step| step.applied_at.is_none()));
    from.finish().await;
    into.finish().await;
}

#[tokio::test]
async fn strangers_files_are_no_backups() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strange.pbk");
    let huge = [&b"PORTBK\r\n\xff\xff\xff\x7f"[..], &[b'{'; 5_000]].concat();
    for bytes in [
        &b""[..],
        b"PORTBK",
        b"PK\x03\x04 a zip",
        &huge,
        b"PORTBK\r\n\x02\0\0\0{}",
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = check(&Source::File(path.clone()), &unlock())
            .await
            .unwrap_err();
        assert!(matches!(error, BackupError::Damaged(_)), "{error}");
    }
    std::fs::write(&path, b"PORTBK\r\n\x0c\0\0\0{\"format\":9}").unwrap();
    let error = peek(&Source::File(path), &unlock()).await.unwrap_err();
    assert!(matches!(error, BackupError::Newer { .. }), "{error}");
    let gone = Source::File(folder.path().join("gone.pbk"));
    let error = peek(&gone, &unlock()).await.unwrap_err();
    assert!(error.to_string().contains("gone.pbk"), "{error}");
}

#[tokio::test]
async fn a_recipient_alone_can_read_what_was_made_for_it() {
    const IDENTITY: &str =
        "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite().await;
    from.db.migrate(&sets()).await.unwrap();
    furnish(&from).await;
    let identities = Identity::parse_file(IDENTITY).unwrap();
    let lock = Lock::Recipient(identities[0].recipient());
    let path = folder.path().join("one.pbk");
    let made = try_dump(&from.db, &path, None, &lock).await.unwrap();
    assert_eq!(made.key_id, identities[0].recipient().to_string());
    let source = Source::File(path.clone());
    let error = check(&source, &unlock()).await.unwrap_err();
    assert!(matches!(error, BackupError::Identity(_)), "{error}");
    let mut bench = Bench::new(path, &from.clock);
    bench.unlock.identities = identities;
    let report = bench.restore().verify(folder.path(), None).await.unwrap();
    assert_eq!(report.rows, made.summary.rows());
    from.finish().await;
}
