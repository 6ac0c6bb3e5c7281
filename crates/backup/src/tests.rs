#![cfg(test)]
//! Files that are broken on purpose, with and without the key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portico_base::clock::from_unix_ms;
use portico_base::envelope::MasterKeys;
use portico_base::{Random as _, SeededRandom};
use portico_db::{Cell, CellKind, ColumnShape, TableShape};
use uuid::Uuid;

use crate::error::BackupError;
use crate::key::{self, FileKey, Lock, Unlock};
use crate::manifest::{
    Manifest, ObjectEntry, ObjectsIn, ObjectsSummary, Summary, TableSummary, hex,
};
use crate::read::Source;
use crate::record::{Batch, RecordKind};
use crate::restore::{check, peek};
use crate::write::{BLOCK, BlockWriter, MAX_RATIO, Sink, ZSTD};

const ZERO: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn unlock() -> Unlock {
    Unlock {
        master: Arc::new(MasterKeys::new("mk1", [7; 32])),
        identities: Vec::new(),
    }
}

fn sha(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn manifest() -> Manifest {
    Manifest {
        id: Uuid::from_u128(1),
        made_at: from_unix_ms(1_767_225_600_000),
        version: "0.1.0".to_owned(),
        backend: "sqlite".to_owned(),
        installation: "portico".to_owned(),
        key_check: None,
        steps: vec!["platform/m0001_platform".to_owned()],
        min_binary: String::new(),
        objects: ObjectsIn::Whole,
        tables: vec![TableShape {
            name: "notes".to_owned(),
            columns: vec![ColumnShape {
                name: "body".to_owned(),
                kind: CellKind::Text,
            }],
        }],
    }
}

/// A file that somebody writes who has the key and no good will.
struct Forge {
    out: BlockWriter,
    path: PathBuf,
}

impl Forge {
    async fn begin(folder: &Path, manifest: &Manifest) -> Self {
        let path = folder.join("forged.pbk");
        let lock = Lock::Master(unlock().master);
        let (head, key, _) = key::create(&lock, &SeededRandom::new(5)).unwrap();
        let mut out = BlockWriter::new(Sink::file(&path).unwrap(), head, key)
            .await
            .unwrap();
        out.json(RecordKind::Manifest, manifest).await.unwrap();
        Self { out, path }
    }

    async fn with(mut self, kind: RecordKind, body: &[u8]) -> Self {
        self.out.record(kind, body).await.unwrap();
        self
    }

    async fn judge(self) -> BackupError {
        self.out.finish().await.unwrap();
        check(&Source::File(self.path), &unlock())
            .await
            .expect_err("a forged file is found")
    }
}

/// A good file of three frames, and its key.
async fn good(folder: &Path) -> PathBuf {
    let manifest = manifest();
    let mut forge = Forge::begin(folder, &manifest).await;
    let manifest_sha256 = sha(&serde_json::to_vec(&manifest).unwrap());
    forge.out.record(RecordKind::Table, b"notes").await.unwrap();
    let random = SeededRandom::new(3);
    let mut rows = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for _ in 0..18 {
        let mut noise = vec![0; 65_000];
        random.fill(&mut noise);
        let mut batch = Batch::default();
        batch.add(&[Cell::Text(hex(&noise))]);
        let body = batch.take();
        rows.update(&body);
        forge.out.record(RecordKind::Rows, &body).await.unwrap();
    }
    let summary = Summary {
        manifest_sha256,
        tables: vec![TableSummary {
            name: "notes".to_owned(),
            rows: 18,
            sha256: hex(rows.finish().as_ref()),
        }],
        objects: ObjectsSummary {
            count: 0,
            bytes: 0,
            sha256: ZERO.to_owned(),
        },
    };
    forge.out.json(RecordKind::Summary, &summary).await.unwrap();
    forge.out.finish().await.unwrap();
    forge.path
}

/// Where the frames of a file begin, and its length at the end.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut at = 12 + word(8);
    let mut all = vec![at];
    while at < bytes.len() {
        at += 4 + word(at);
        all.push(at);
    }
    all
}

async fn judged(folder: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let path = folder.join("changed.pbk");
    std::fs::write(&path, bytes).unwrap();
    check(&Source::File(path), &unlock()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_at_a_thousand_places_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(good(folder.path()).await).unwrap();
    assert_eq!(judged(folder.path(), &bytes).await.map_err(drop), Ok(()));
    let starts = frames(&bytes);
    assert_eq!(starts.len(), 4, "three frames and the end");
    // Everything before the frames, every length, and places all over.
    let random = SeededRandom::new(9);
    let mut places: Vec<usize> = (0..starts[0]).collect();
    places.extend(starts[..3].iter().flat_map(|start| *start..start + 4));
    while places.len() < 1_000 {
        let all = bytes.len() as u64;
        places.push(usize::try_from(random.below(all)).unwrap());
    }
    let mut changed = bytes.clone();
    for place in places {
        let bit = 1 << random.below(8);
        changed[place] ^= bit;
        let judged = judged(folder.path(), &changed).await;
        assert!(judged.is_err(), "byte {place}, bit {bit}");
        changed[place] ^= bit;
    }
    assert_eq!(changed, bytes);
}

#[tokio::test]
async fn what_is_cut_swapped_doubled_or_added_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(good(folder.path()).await).unwrap();
    let starts = frames(&bytes);
    let part = |i: usize| &bytes[starts[i]..starts[i + 1]];
    let head = &bytes[..starts[0]];
    let random = SeededRandom::new(4);
    let mut all: Vec<Vec<u8>> = starts.iter().map(|at| bytes[..*at].to_vec()).collect();
    all.pop();
    all.extend((0..60).map(|_| {
        let at = random.below(bytes.len() as u64);
        bytes[..usize::try_from(at).unwrap()].to_vec()
    }));
    all.push([head, part(1), part(0), part(2)].concat());
    all.push([head, part(0), part(2), part(1)].concat());
    all.push([head, part(0), part(0), part(1), part(2)].concat());
    all.push([head, part(0), part(2)].concat());
    all.push([&bytes[..], b"x"].concat());
    all.push([&bytes[..], part(2)].concat());
    for (i, changed) in all.iter().enumerate() {
        let error = judged(folder.path(), changed).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged(_)), "{i}: {error}");
    }
}

#[tokio::test]
async fn another_key_says_which_one_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::File(good(folder.path()).await);
    assert_eq!(peek(&source, &unlock()).await.unwrap(), manifest());
    let other = Unlock {
        master: Arc::new(MasterKeys::new("mk2", [7; 32])),
        identities: Vec::new(),
    };
    let error = peek(&source, &other).await.unwrap_err();
    assert!(
        matches!(&error, BackupError::Key(id) if id == "mk1"),
        "{error}"
    );
    let wrong = Unlock {
        master: Arc::new(MasterKeys::new("mk1", [8; 32])),
        identities: Vec::new(),
    };
    let error = peek(&source, &wrong).await.unwrap_err();
    assert!(matches!(error, BackupError::Damaged(_)), "{error}");
}

#[tokio::test]
async fn a_holder_of_the_key_cannot_lead_elsewhere_or_promise_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let begin = || async { Forge::begin(folder, &manifest()).await };
    let entry = |key: &str, size| {
        serde_json::to_vec(&ObjectEntry {
            key: key.to_owned(),
            size,
            content_type: "text/plain".to_owned(),
            sha256: None,
        })
        .unwrap()
    };
    for name in ["../evil", "/etc/passwd", "a/../../b", ".hidden", "a\\b", ""] {
        let forge = begin().await.with(RecordKind::Table, b"notes").await;
        let error = forge
            .with(RecordKind::Object, &entry(name, 1))
            .await
            .judge()
            .await;
        assert!(matches!(error, BackupError::Refused(_)), "{name}: {error}");
    }
    let mut batch = Batch::default();
    batch.add(&[Cell::Text("x".to_owned())]);
    let row = batch.take();
    let short = begin().await.with(RecordKind::Table, b"notes").await;
    let short = short.with(RecordKind::Object, &entry("a", 3)).await;
    let short = short.with(RecordKind::Chunk, b"abcd").await;
    let forged = vec![
        begin().await,
        begin().await.with(RecordKind::Rows, &row).await,
        begin().await.with(RecordKind::Table, b"users").await,
        begin().await.with(RecordKind::Object, &entry("a", 1)).await,
        begin().await.with(RecordKind::Chunk, b"abc").await,
        begin()
            .await
            .with(RecordKind::Table, b"notes")
            .await
            .with(RecordKind::Rows, b"\xff\xff\xff\xff\x0f")
            .await,
        short,
    ];
    for (i, forge) in forged.into_iter().enumerate() {
        let error = forge.judge().await;
        assert!(matches!(error, BackupError::Damaged(_)), "{i}: {error}");
    }
    let mut unsorted = manifest();
    unsorted.tables.push(unsorted.tables[0].clone());
    let error = Forge::begin(folder, &unsorted).await.judge().await;
    assert!(matches!(error, BackupError::Refused(_)), "{error}");
    let mut quoted = manifest();
    quoted.tables[0].columns[0].name = "a\"; DROP TABLE users; --".to_owned();
    let error = Forge::begin(folder, &quoted).await.judge().await;
    assert!(matches!(error, BackupError::Refused(_)), "{error}");
}

/// A frame made by hand: what it says of its length is its own business.
fn frame(key: &FileKey, block_len: usize, stored: &[u8]) -> Vec<u8> {
    let mut sealed = vec![ZSTD];
    sealed.extend_from_slice(&u32::try_from(block_len).unwrap().to_le_bytes());
    sealed.extend_from_slice(stored);
    key.seal(0, true, &mut sealed);
    let mut all = u32::try_from(sealed.len()).unwrap().to_le_bytes().to_vec();
    all.append(&mut sealed);
    all
}

#[tokio::test]
async fn a_decompression_bomb_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = vec![0; BLOCK];
    let small = zstd::bulk::compress(&zeros, 3).unwrap();
    assert!(small.len() * MAX_RATIO < BLOCK);
    for (len, stored) in [
        (BLOCK, &small[..]),
        (BLOCK + 1, &zeros[..1000]),
        // A frame that says less than it holds is stopped at what it says.
        (small.len() * MAX_RATIO, &small[..]),
        (usize::try_from(u32::MAX).unwrap(), &small[..]),
    ] {
        let lock = Lock::Master(unlock().master);
        let (mut file, key, _) = key::create(&lock, &SeededRandom::new(6)).unwrap();
        file.extend_from_slice(&frame(&key, len, stored));
        let error = judged(folder.path(), &file).await.unwrap_err();
        assert!(
            matches!(error, BackupError::Refused(_) | BackupError::Damaged(_)),
            "{len}: {error}"
        );
    }
    // Our own zeros are stored as they are, so that they come back.
    let forge = Forge::begin(folder.path(), &manifest()).await;
    let forge = forge.with(RecordKind::Table, b"notes").await;
    let entry = br#"{"key":"zeros","size":2000000,"content_type":"x/y","sha256":null}"#;
    let mut forge = forge.with(RecordKind::Object, entry).await;
    for chunk in vec![0; 2_000_000].chunks(250_000) {
        forge.out.record(RecordKind::Chunk, chunk).await.unwrap();
    }
    let sum = sha(&vec![0; 2_000_000]);
    forge = forge.with(RecordKind::ObjectEnd, sum.as_bytes()).await;
    let records = [&entry[..], sum.as_bytes()].concat();
    let summary = Summary {
        manifest_sha256: sha(&serde_json::to_vec(&manifest()).unwrap()),
        tables: vec![TableSummary {
            name: "notes".to_owned(),
            rows: 0,
            sha256: ZERO.to_owned(),
        }],
        objects: ObjectsSummary {
            count: 1,
            bytes: 2_000_000,
            sha256: sha(&records),
        },
    };
    forge.out.json(RecordKind::Summary, &summary).await.unwrap();
    forge.out.finish().await.unwrap();
    let checked = check(&Source::File(forge.path), &unlock()).await.unwrap();
    assert_eq!(checked.summary, summary);
    assert_eq!(checked.key_id, "mk1");
}
