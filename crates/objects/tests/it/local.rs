//! Objects as files: what a directory can do to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use portico_objects::{ObjectError, Objects};
use portico_telemetry::metrics::{Format, Registry};

use crate::suite::{self, key, names, read};

fn open(path: &Path) -> Objects {
    Objects::local(path, &Registry::default()).expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_pass_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    suite::all(&open(&dir.path().join("made/on/the/way"))).await;
}

#[tokio::test]
async fn an_object_is_a_file_of_its_name_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path());
    objects
        .put_bytes(&key("x/y.json"), "application/json", "{}")
        .await
        .unwrap();
    let file = dir.path().join("x/y.json");
    assert_eq!(fs::read(&file).unwrap(), b"{}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&dir.path().join("x")), 0o700);
    let again = open(dir.path());
    let object = again.get(&key("x/y.json")).await.unwrap();
    assert_eq!(object.content_type, "application/json");
    assert_eq!(read(object).await, b"{}");
}

#[tokio::test]
async fn what_dies_while_growing_is_swept_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path());
    let growing = dir.path().join(".tmp");
    let mut writer = objects.writer(&key("a"), "text/plain").await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(fs::read_dir(&growing).unwrap().count(), 1);
    drop(writer);
    assert_eq!(fs::read_dir(&growing).unwrap().count(), 0);
    // What a killed process leaves.
    for (name, hours) in [("old", 25), ("new", 23)] {
        let file = fs::File::create(growing.join(name)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_modified(then).unwrap();
    }
    let again = open(dir.path());
    assert!(!growing.join("old").exists() && growing.join("new").exists());
    assert_eq!(names(&again, None).await, [""; 0]);
}

#[tokio::test]
async fn nothing_outside_is_read_written_or_listed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let objects = open(dir.path());
    symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    symlink("/dev/zero", dir.path().join("zero")).unwrap();
    fs::write(dir.path().join("not a name"), "x").unwrap();
    for name in ["link", "zero"] {
        let refused = objects.get(&key(name)).await.unwrap_err();
        assert!(matches!(refused, ObjectError::NotFound), "{refused:?}");
    }
    assert_eq!(names(&objects, None).await, [""; 0]);
    // A link is replaced, not followed.
    objects
        .put_bytes(&key("link"), "text/plain", "mine")
        .await
        .unwrap();
    objects.delete(&key("zero")).await.unwrap();
    assert_eq!(
        fs::read_to_string(outside.path().join("secret")).unwrap(),
        "s"
    );
    assert_eq!(names(&objects, None).await, ["link"]);
}

#[tokio::test]
async fn a_name_is_an_object_or_a_folder_but_not_both() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path());
    objects
        .put_bytes(&key("a/b"), "text/plain", "1")
        .await
        .unwrap();
    for name in ["a", "a/b/c", "a/b/c/d"] {
        let refused = objects.put_bytes(&key(name), "text/plain", "2").await;
        assert!(
            matches!(refused, Err(ObjectError::Invalid(_))),
            "{name}: {refused:?}"
        );
        let missing = objects.get(&key(name)).await.unwrap_err();
        assert!(matches!(missing, ObjectError::NotFound), "{missing:?}");
    }
    assert_eq!(names(&objects, None).await, ["a/b"]);
    assert_eq!(read(objects.get(&key("a/b")).await.unwrap()).await, b"1");
}

#[tokio::test]
async fn a_reader_keeps_what_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path());
    let content = suite::pattern(1_000_000);
    objects
        .put_bytes(&key("a"), "text/plain", content.clone())
        .await
        .unwrap();
    let opened = objects.get(&key("a")).await.unwrap();
    objects
        .put_bytes(&key("a"), "text/plain", "other")
        .await
        .unwrap();
    let also = objects.get(&key("a")).await.unwrap();
    objects.delete(&key("a")).await.unwrap();
    assert!(read(opened).await == content);
    assert_eq!(read(also).await, b"other");
}

#[tokio::test]
async fn a_cut_file_is_an_error_and_not_an_early_end() {
    use futures_util::TryStreamExt as _;

    let dir = tempfile::tempdir().unwrap();
    let objects = open(dir.path());
    objects
        .put_bytes(&key("a"), "text/plain", suite::pattern(5_000_000))
        .await
        .unwrap();
    let opened = objects.get(&key("a")).await.unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("a"))
        .unwrap();
    file.set_len(10).unwrap();
    let error = opened.body.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_is_gone_is_trouble_and_not_a_missing_object() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    let objects = Objects::local(dir.path(), &registry).unwrap();
    assert_eq!(objects.trouble(), None);
    fs::remove_dir_all(dir.path().join(".tmp")).unwrap();
    let error = objects
        .put_bytes(&key("a"), "text/plain", "x")
        .await
        .unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error:?}");
    assert!(objects.trouble().is_some());
    fs::create_dir(dir.path().join(".tmp")).unwrap();
    objects
        .put_bytes(&key("a"), "text/plain", "xyz")
        .await
        .unwrap();
    assert_eq!(objects.trouble(), None);
    read(objects.get(&key("a")).await.unwrap()).await;
    let text = registry.render(Format::Prometheus);
    for line in [
        "portico_objects_requests_total{op=\"put\",result=\"unavailable\"} 1",
        "portico_objects_requests_total{op=\"put\",result=\"ok\"} 1",
        "portico_objects_bytes_total{direction=\"in\"} 3",
        "portico_objects_bytes_total{direction=\"out\"} 3",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

/// In a file system of 256 KiB, which only a process with a mount space of its own can have: this test runs
/// itself there.
#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    const INSIDE: &str = "PORTICO_TEST_SMALL_DISK";
    if let Some(path) = std::env::var_os(INSIDE) {
        return fill(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=256k none \"$1\" || exit 77; PORTICO_TEST_SMALL_DISK=\"$1\" exec \"$2\" --exact local::a_full_disk_is_told_and_leaves_nothing --nocapture";
    let run = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .args([dir.path(), &this])
        .output();
    match run {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        _ => {
            let line =
                b"SKIPPED: no mount space of our own, the test with a full disk did not run\n";
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        }
    }
}

async fn fill(path: &Path) {
    let objects = open(path);
    objects
        .put_bytes(&key("small"), "text/plain", "s")
        .await
        .unwrap();
    for (name, size) in [("once", 300_000), ("chunks", 10_000_000)] {
        let chunks = suite::pattern(size)
            .chunks(65_536)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect::<Vec<_>>();
        let body = futures_util::stream::iter(chunks);
        let full = objects
            .put(&key(name), "text/plain", body)
            .await
            .unwrap_err();
        assert!(matches!(full, ObjectError::Full(_)), "{full:?}");
        assert_eq!(objects.trouble(), Some("the object store is full"));
    }
    assert_eq!(names(&objects, None).await, ["small"]);
    assert_eq!(fs::read_dir(path.join(".tmp")).unwrap().count(), 0);
    // There is room again at once.
    objects
        .put_bytes(&key("next"), "text/plain", suite::pattern(100_000))
        .await
        .unwrap();
    assert_eq!(objects.trouble(), None);
}
