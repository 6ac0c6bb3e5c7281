//! An export verifies on another machine: by our own code without a database, and by the guide's script.

use std::io::Write as _;

use futures_util::StreamExt as _;
use portico_base::Principal;
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::House;
use crate::{FaultKind, verify_lines};

/// All bytes of an object.
pub(crate) async fn bytes(object: portico_objects::Object) -> Vec<u8> {
    let mut body = object.body;
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk.unwrap());
    }
    all
}

async fn lines(house: &House) -> Vec<String> {
    let (mut lines, mut after) = (Vec::new(), 0);
    loop {
        let part = house
            .get(
                &Principal::operator(),
                &format!("/links?after={after}&limit=4"),
            )
            .await;
        if after == 0 {
            lines.push(part["header"].to_string());
        }
        lines.extend(
            part["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(Value::to_string),
        );
        match part["next"].as_u64() {
            Some(next) => after = next,
            None => return lines,
        }
    }
}

/// The script of `docs/audit.md`, so that what the guide shows is what was tried.
fn script() -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/audit.md");
    let text = std::fs::read_to_string(guide).unwrap();
    let code = text.split("```python\n").nth(1).unwrap();
    code.split("```").next().unwrap().to_owned()
}

fn python(script: &str, lines: &[String]) -> Option<(bool, String)> {
    let has = std::process::Command::new("python3")
        .args(["-c", "import cryptography"])
        .output();
    if !has.is_ok_and(|out| out.status.success()) {
        assert!(
            std::env::var("CI").is_err(),
            "python3 with cryptography is needed"
        );
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, data) = (
        folder.path().join("verify.py"),
        folder.path().join("audit.jsonl"),
    );
    std::fs::write(&code, script).unwrap();
    let mut file = std::fs::File::create(&data).unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    let out = std::process::Command::new("python3")
        .arg(code)
        .arg(data)
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Some((out.status.success(), told))
}

#[tokio::test]
async fn an_export_verifies_elsewhere_and_every_touch_is_found() {
    each_backend(async |db| {
        let house = House::new(db).await;
        for n in 0..9 {
            house.disable(n).await;
        }
        house.seal().await;
        house.sign().await;
        for n in 9..12 {
            house.disable(n).await;
        }
        house.seal().await;
        house.sign().await;
        let good = lines(&house).await;
        assert!(good.len() >= 15, "{}", good.len());
        let report = verify_lines(good.clone(), &[]).unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!((report.checked, report.to_seq), (12, 12));
        let key = serde_json::from_str::<Value>(&good[0]).unwrap()["keys"][0]["public_key"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(verify_lines(good.clone(), &[key]).unwrap().ok);
        let fault = verify_lines(good.clone(), &["00".repeat(32)])
            .unwrap()
            .fault
            .unwrap();
        assert_eq!(
            fault.kind,
            FaultKind::Signature,
            "a key that is not the pinned one proves nothing"
        );
        let script = script();
        let told = python(&script, &good);
        assert!(told.as_ref().is_none_or(|(ok, _)| *ok), "{told:?}");
        let touched = |at: usize, name: &str, with: Value| {
            let mut lines = good.clone();
            let mut line: Value = serde_json::from_str(&lines[at]).unwrap();
            line[name] = with;
            lines[at] = line.to_string();
            lines
        };
        let public: Value = serde_json::from_str::<Value>(&good[4]).unwrap()["public"].clone();
        let altered = public.as_str().unwrap().replace("disabled", "enabledd");
        let mut swapped = good.clone();
        swapped.swap(3, 4);
        let mut short = good.clone();
        short.remove(5);
        let mut tail = good.clone();
        tail.remove(good.len() - 2);
        for (what, lines) in [
            ("a changed record", touched(4, "public", altered.into())),
            ("a changed private part", touched(4, "private", "{}".into())),
            ("a changed link", touched(4, "link", "00".repeat(32).into())),
            (
                "a changed signature",
                touched(good.len() - 1, "signature", "00".repeat(64).into()),
            ),
            ("two that changed places", swapped),
            ("one that is missing", short),
            ("a tail that was cut", tail),
        ] {
            let report = verify_lines(lines.clone(), &[]).unwrap();
            assert!(!report.ok && report.fault.is_some(), "{what}: {report:?}");
            if let Some((ok, told)) = python(&script, &lines) {
                assert!(!ok, "{what}: {told}");
            }
        }
        assert!(verify_lines(vec!["{}".to_owned()], &[]).is_err());
        assert!(
            verify_lines(
                vec![good[0].clone(), json!({ "kind": "x" }).to_string()],
                &[]
            )
            .is_err()
        );
    })
    .await;
}
