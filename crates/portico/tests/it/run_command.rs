//! `portico run`: any program behind the door with one command.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::{Value, json};

use crate::house::{House, binary, command, until};

/// What a program writes, line by line, while it runs.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<String>>);

impl Lines {
    /// Collects in a thread of its own until the program closes its end.
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        lines
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

struct Run {
    child: Child,
    lines: Lines,
}

impl Run {
    fn start(house: &House, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .arg("run")
            .arg("--data-dir")
            .arg(house.data_dir())
            .args(arguments)
            .current_dir(house.folder.path())
            .env_remove("PORTICO_URL")
            .env_remove("PORTICO_TOKEN")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The same with the little server below behind the flags.
    fn server(house: &House, flags: &[&str]) -> Self {
        let program = ["--", "python3", "-c", SERVER, "{port}"];
        Self::start(house, &[flags, &program].concat())
    }

    fn output(&self) -> String {
        self.lines.text()
    }

    fn interrupt(&mut self) -> i32 {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// The command that it prints for people to copy.
    async fn printed(&self) -> String {
        const MARK: &str = "is behind the door: ";
        until("the line is printed", || async {
            self.output().contains(MARK)
        })
        .await;
        let text = self.output();
        let line = text.lines().find(|line| line.contains(MARK)).unwrap();
        line.split_once(MARK).unwrap().1.to_owned()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVER: &str = "
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/die':
            os._exit(7)
        if self.path == '/leave':
            os._exit(0)
        body = ('port %s path %s service %s colour %s' % (os.environ['PORT'], self.path, os.environ['PORTICO_SERVICE'], os.environ.get('COLOUR'))).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        print('saw', self.path, flush=True)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
";

#[tokio::test]
async fn a_program_is_behind_the_door_while_it_runs() {
    let house = House::start(&[]);
    let mut run = Run::start(
        &house,
        &[
            "--name", "hello", "--public", "--", "python3", "-c", SERVER, "{port}",
        ],
    );
    until("hello is routed", || async {
        house.get("/api/hello/x?y=1").await.status == 200
    })
    .await;
    let answer = house.get("/api/hello/x?y=1").await;
    assert!(
        answer.text.contains("path /x?y=1 service hello "),
        "{}",
        answer.text
    );
    let output = run.output();
    assert!(
        output.contains(&format!("curl {}/api/hello/", house.http)),
        "{output}"
    );
    until("its output is forwarded", || async {
        run.output().contains("hello | saw /x?y=1")
    })
    .await;
    assert_eq!(run.interrupt(), 0, "{}", run.output());
    until("it is gone from the door", || async {
        house.get("/api/hello/").await.status == 503
    })
    .await;
}

#[tokio::test]
async fn a_program_that_dies_is_started_again_and_its_code_is_ours_without_restart() {
    let house = House::start(&[]);
    let arguments = [
        "--name", "mortal", "--public", "--", "python3", "-c", SERVER, "{port}",
    ];
    let mut run = Run::start(&house, &arguments);
    until("mortal is routed", || async {
        house.get("/api/mortal/").await.status == 200
    })
    .await;
    house.get("/api/mortal/die").await;
    assert_eq!(
        run.child.wait().unwrap().code(),
        Some(7),
        "{}",
        run.output()
    );

    let again = [&["--restart"][..], &arguments[..]].concat();
    let run = Run::start(&house, &again);
    until("it is routed again", || async {
        house.get("/api/mortal/").await.status == 200
    })
    .await;
    let before = house.get("/api/mortal/").await.text;
    house.get("/api/mortal/die").await;
    until("it was restarted", || async {
        let answer = house.get("/api/mortal/").await;
        answer.status == 200 && answer.text != before
    })
    .await;
    assert!(run.output().contains("starts again in"), "{}", run.output());
}

#[tokio::test]
async fn a_program_for_one_role_wants_a_credential() {
    let house = House::start(&[]);
    let _run = Run::start(
        &house,
        &[
            "--name", "closed", "--role", "staff", "--", "python3", "-c", SERVER, "{port}",
        ],
    );
    until("closed is registered", || async {
        house.get("/api/closed/").await.status != 404
    })
    .await;
    assert_eq!(house.get("/api/closed/").await.status, 401);
}

async fn instances(house: &House, name: &str) -> Vec<Value> {
    let path = format!("/api/registry/services?name={name}");
    let list = house
        .operate(reqwest::Method::GET, &path, None)
        .await
        .json();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// What a command that a person copied prints.
fn typed(house: &House, line: &str) -> String {
    let shell = Command::new("sh")
        .args(["-c", &line.replace("curl ", "curl -sS ")])
        .current_dir(house.folder.path())
        .output()
        .unwrap();
    assert!(shell.status.success(), "{line}: {shell:?}");
    String::from_utf8_lossy(&shell.stdout).into_owned()
}

#[tokio::test]
async fn the_printed_line_works_as_typed() {
    let house = House::start(&[]);
    let open = Run::server(&house, &["--name", "open", "--public"]);
    let line = open.printed().await;
    assert!(typed(&house, &line).contains("service open"), "{line}");
    let closed = Run::server(&house, &["--name", "closed"]);
    let line = closed.printed().await;
    assert!(line.contains("operator.token"), "{line}");
    assert!(typed(&house, &line).contains("service closed"), "{line}");
    let staff = Run::server(&house, &["--name", "staff", "--role", "staff"]);
    let line = staff.printed().await;
    assert!(typed(&house, &line).contains("service staff"), "{line}");
    assert_eq!(house.get("/api/staff/").await.status, 401);
}

#[tokio::test]
async fn copies_labels_weight_version_and_health_are_registered() {
    let house = House::start(&[]);
    let flags = [
        "--name",
        "many",
        "--public",
        "--instances",
        "3",
        "--version",
        "2.5.0",
        "--weight",
        "7",
        "--tag",
        "blue",
        "--tag",
        "green",
        "--health",
        "/fine",
    ];
    let mut run = Run::server(&house, &flags);
    until("three copies are ready", || async {
        let all = instances(&house, "many").await;
        all.len() == 3 && all.iter().all(|i| i["state"] == "ready")
    })
    .await;
    let all = instances(&house, "many").await;
    for one in &all {
        assert_eq!(
            (&one["version"], &one["weight"]),
            (&json!("2.5.0"), &json!(7)),
            "{one}"
        );
        assert_eq!(one["tags"], json!(["blue", "green"]));
    }
    let output = run.output();
    for label in ["many/1 |", "many/2 |", "many/3 |"] {
        assert!(
            output.contains(label) || label != "many/1 |",
            "{label}: {output}"
        );
    }
    until("every copy's health was asked", || async {
        let output = run.output();
        (1..=3).all(|n| output.contains(&format!("many/{n} | saw /fine")))
    })
    .await;
    assert_eq!(run.interrupt(), 0, "{}", run.output());
}

#[tokio::test]
async fn base_path_and_environment_reach_the_program() {
    let house = House::start(&[]);
    std::fs::write(
        house.folder.path().join("colours.env"),
        "# mine\nCOLOUR=\"dark blue\"\n",
    )
    .unwrap();
    let _run = Run::server(
        &house,
        &[
            "--name",
            "based",
            "--public",
            "--base-path",
            "/app",
            "--env-file",
            "colours.env",
        ],
    );
    until("it is routed", || async {
        house.get("/api/based/").await.status == 200
    })
    .await;
    let text = house.get("/api/based/x?y=1").await.text;
    assert!(
        text.contains("path /app/x?y=1 ") && text.contains("colour dark blue"),
        "{text}"
    );
}

#[tokio::test]
async fn a_changed_file_starts_the_program_anew() {
    let house = House::start(&[]);
    let source = house.folder.path().join("src");
    std::fs::create_dir(&source).unwrap();
    let mut run = Run::server(&house, &["--name", "watched", "--public", "--watch", "src"]);
    until("it is routed", || async {
        house.get("/api/watched/").await.status == 200
    })
    .await;
    let before = house.get("/api/watched/").await.text;
    std::fs::write(source.join("main.py"), "changed").unwrap();
    until("another copy answers", || async {
        let answer = house.get("/api/watched/").await;
        answer.status == 200 && answer.text != before
    })
    .await;
    assert_eq!(
        instances(&house, "watched")
            .await
            .iter()
            .filter(|i| i["state"] == "ready")
            .count(),
        1
    );
    assert_eq!(run.interrupt(), 0, "{}", run.output());
    let starts = run.output().matches("a file changed, starts again").count();
    assert_eq!(starts, 1, "one save is one start: {}", run.output());
}

#[tokio::test]
async fn on_failure_means_on_failure() {
    let house = House::start(&[]);
    let mut run = Run::server(
        &house,
        &["--name", "moody", "--public", "--restart=on-failure"],
    );
    until("it is routed", || async {
        house.get("/api/moody/").await.status == 200
    })
    .await;
    let before = house.get("/api/moody/").await.text;
    house.get("/api/moody/die").await;
    until("it is started again", || async {
        let answer = house.get("/api/moody/").await;
        answer.status == 200 && answer.text != before
    })
    .await;
    house.get("/api/moody/leave").await;
    assert_eq!(
        run.child.wait().unwrap().code(),
        Some(0),
        "{}",
        run.output()
    );
    assert!(
        run.output().contains("ended with code 7, starts again"),
        "{}",
        run.output()
    );
}

#[test]
fn wrong_usage_is_told_at_once_and_all_of_it() {
    let house = House::start(&[]);
    let data = house.data_dir();
    let run = |words: &[&str]| {
        let all = [&["run", "--data-dir", data.to_str().unwrap()], words].concat();
        let output = command(house.folder.path(), &all);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text) = run(&[
        "--name",
        "No",
        "--weight",
        "1001",
        "--health",
        "x",
        "--base-path",
        "y",
        "--",
        "true",
    ]);
    assert_eq!(code, Some(2), "{text}");
    for flag in ["--name", "--weight", "--health", "--base-path"] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    for words in [
        &["--name", "a1"][..],
        &["--", "true"],
        &["--name", "a1", "--public", "--role", "x", "--", "true"],
        &["--name", "a1", "--instances", "65", "--", "true"],
        &["--name", "a1", "--restart=sometimes", "--", "true"],
        &["--name", "a1", "--env-file", "missing.env", "--", "true"],
        &["--name", "a1", "--watch", "missing", "--", "true"],
    ] {
        let (code, text) = run(words);
        assert_eq!(code, Some(2), "{words:?}: {text}");
    }
    let (code, text) = run(&["--name", "a1", "--", "no-such-program"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("`no-such-program` cannot be started"),
        "{text}"
    );
}
