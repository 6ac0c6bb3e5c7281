//! Golden tests: inputs with their full messages. `UPDATE_GOLDEN=1` writes the messages anew; the
//! difference is then read by a person before it is committed.

use std::fmt::Write as _;
use std::path::Path;

use crate::world::World;

struct Case {
    name: String,
    source: String,
    world: World,
    expect: String,
}

fn cases(text: &str) -> Vec<Case> {
    text.split("\n=== ").skip(1).map(case).collect()
}

fn case(text: &str) -> Case {
    let (name, body) = text.split_once('\n').unwrap();
    let (source, expect) = body.split_once("@@ expect\n").unwrap();
    let mut world = World::new();
    for part in source.split("@@ ").skip(1) {
        let (head, content) = part.split_once('\n').unwrap();
        match head {
            "env" => {
                for line in content.lines().filter(|line| !line.is_empty()) {
                    let (name, value) = line.split_once('=').unwrap();
                    world = world.env(name, value);
                }
            }
            "flags" => {
                for line in content.lines().filter(|line| !line.is_empty()) {
                    let mut parts = line.splitn(3, ' ');
                    let (flag, key) = (parts.next().unwrap(), parts.next().unwrap());
                    world = match flag {
                        "--config" => world.config(key),
                        _ => world.flag(flag, key, parts.next().unwrap()),
                    };
                }
            }
            path => world = world.file(path, content),
        }
    }
    Case {
        name: name.to_owned(),
        source: source.to_owned(),
        world,
        expect: expect.trim_end().to_owned(),
    }
}

fn messages(world: &World) -> String {
    match world.load() {
        Err(faults) => faults.to_string(),
        Ok(loaded) if loaded.warnings.is_empty() => "fine".to_owned(),
        Ok(loaded) => {
            let lines: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("warnings:\n  {}", lines.join("\n  "))
        }
    }
}

fn run(file: &str, least: usize, begins: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let cases = cases(&text);
    assert!(cases.len() >= least, "{} cases", cases.len());
    let mut anew = text.split("\n=== ").next().unwrap().to_owned();
    let mut wrong = Vec::new();
    for case in &cases {
        let found = messages(&case.world);
        let kind_is_right = begins.iter().any(|begin| found.contains(begin));
        if found != case.expect || !kind_is_right {
            wrong.push(format!("=== {}\n{found}", case.name));
        }
        write!(
            anew,
            "\n=== {}\n{}@@ expect\n{found}\n",
            case.name, case.source
        )
        .unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, anew).unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn broken_configurations_say_what_is_wrong() {
    run("broken.txt", 60, &["configuration error"]);
}

#[test]
fn doubtful_configurations_start_with_warnings() {
    run("warned.txt", 10, &["warnings:"]);
}

#[test]
fn no_message_repeats_a_secret() {
    for file in ["broken.txt", "warned.txt"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(file);
        for case in cases(&std::fs::read_to_string(&path).unwrap()) {
            let found = messages(&case.world);
            // Every secret of the golden files has this mark in it.
            assert!(!found.contains("SECRET"), "{}: {found}", case.name);
        }
    }
}
