//! `portico run`: any program behind the door with one command.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::house::{House, binary, until};

struct Run {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Run {
    fn start(house: &House, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .arg("run")
            .arg("--data-dir")
            .arg(house.data_dir())
            .args(arguments)
            .current_dir(house.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let (sink, stdout) = (Arc::clone(&output), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, output }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    fn interrupt(&mut self) -> i32 {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
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
        body = ('port %s path %s service %s' % (os.environ['PORT'], self.path, os.environ['PORTICO_SERVICE'])).encode()
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
        answer.text.ends_with("path /x?y=1 service hello"),
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
