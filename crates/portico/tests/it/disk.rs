//! A full disk: changes are refused with a clear code, nothing breaks, and work goes on when there is room.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::house::{Answer, House, skip, until};
use crate::raw::{RawServer, answer_always};

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// A small file system of its own in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing, with a line that says so, where this process may not mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(at)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        let why = "a full disk, because this process may not mount a file system in memory";
        if is_root() {
            skip(why);
        } else {
            // Only root can: that is nobody's fault.
            let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
        }
        None
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let piece = vec![0; 4096];
        while file.write_all(&piece).is_ok() {}
        let _ = file.flush();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

async fn save(house: &House, number: usize) -> Answer {
    let body = json!({ "doc": { "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": number.to_string().repeat(2000) } } } });
    house
        .operate(Method::PUT, "/api/gateway/routes/word", Some(&body))
        .await
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_breaks_nothing() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let Some(disk) = SmallDisk::mount(&folder.path().join("data")) else {
        return;
    };
    let house = House::at(folder.clone(), &[]);
    let hello = RawServer::start(|stream, _| answer_always(stream, "hello"));
    house.register("hello", hello.port(), json!({})).await;
    assert_eq!(save(&house, 0).await.status, 200);
    disk.fill();
    let mut refused = None;
    for number in 1..500 {
        let answer = save(&house, number).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a full disk must be told");
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (507, Some("system.disk_low")),
        "{}",
        refused.text
    );
    assert_eq!(
        house.get("/api/hello/").await.text,
        "hello",
        "services are served"
    );
    let shown = house.get("/word").await.text;
    assert_eq!(
        house
            .operate(Method::GET, "/api/gateway/routes/word", None)
            .await
            .status,
        200,
        "reading works"
    );

    disk.free();
    until("changes are taken again", || async {
        save(&house, 1000).await.status == 200
    })
    .await;
    assert_ne!(house.get("/word").await.text, shown);
    let mut house = house;
    assert_eq!(house.stop(), 0, "{}", house.log());
    let house = House::at(folder, &[]);
    assert_eq!(
        house.get("/word").await.text,
        "1000".repeat(2000),
        "what was promised is there after a restart"
    );
    assert_eq!(house.get("/api/hello/").await.text, "hello");
    drop(house);
    drop(disk);
}
