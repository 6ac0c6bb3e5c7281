//! Debian's Prometheus finds targets here, through `consul_sd_configs` and `http_sd_configs`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::house::{House, answer, client, until};
use crate::raw::{RawServer, answer_always};

struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Nothing, with a line that says so, where it is not installed.
    fn start(folder: &std::path::Path) -> Option<Self> {
        let mut command = Command::new("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("prometheus").display()
            ))
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=info"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "Prometheus is not installed, and CI must not skip its tests"
            );
            eprintln!("skipped: Prometheus is not installed");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut log = String::new();
        let url = lines.by_ref().find_map(|line| {
            log.push_str(&line);
            log.push('\n');
            let address = line
                .contains("Listening on")
                .then(|| line.split("address=").nth(1))
                .flatten()?;
            Some(format!("http://{}", address.trim()))
        });
        let Some(url) = url else {
            panic!("Prometheus did not start:\n{log}")
        };
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, url })
    }

    /// The targets that it scrapes.
    async fn targets(&self) -> Vec<Value> {
        let Ok(answer) =
            answer(client().get(format!("{}/api/v1/targets?state=active", self.url))).await
        else {
            return Vec::new();
        };
        answer.json()["data"]["activeTargets"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn targets_are_found_both_ways_and_scraped() {
    let house = House::start(&[]);
    let hello = RawServer::start(|stream, _| answer_always(stream, "answer 42\n"));
    house
        .register(
            "hello",
            hello.port(),
            json!({ "tags": ["blue"], "metadata": { "team": "core" }, "zone": "z1" }),
        )
        .await;
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         scrape_configs:\n\
         - job_name: by-consul\n  consul_sd_configs: [{{ server: '{}', refresh_interval: 1s }}]\n  \
           relabel_configs:\n  - {{ source_labels: [__meta_consul_service], regex: hello, action: keep }}\n  \
           - {{ source_labels: [__meta_consul_tags], target_label: tags }}\n\
         - job_name: by-http\n  http_sd_configs:\n  - url: '{}/api/registry/sd/prometheus?service=hello'\n    refresh_interval: 1s\n    \
           authorization: {{ credentials: '{}' }}\n  \
           relabel_configs:\n  - {{ source_labels: [__meta_portico_meta_team], target_label: team }}\n  \
           - {{ source_labels: [__meta_portico_zone], target_label: zone }}\n  \
           - {{ source_labels: [__meta_portico_tag_blue], target_label: blue }}\n",
        house.consul.trim_start_matches("http://"),
        house.http,
        house.operator(),
    );
    std::fs::write(house.folder.path().join("prometheus.yml"), config).unwrap();
    let Some(prometheus) = Prometheus::start(house.folder.path()) else {
        return;
    };
    let address = format!("127.0.0.1:{}", hello.port());
    until("both jobs scrape the instance", || async {
        let targets = prometheus.targets().await;
        ["by-consul", "by-http"].iter().all(|job| {
            targets.iter().any(|t| {
                t["labels"]["job"] == *job
                    && t["labels"]["instance"] == address.as_str()
                    && t["health"] == "up"
            })
        })
    })
    .await;
    let targets = prometheus.targets().await;
    let labels = |job: &str| {
        targets
            .iter()
            .find(|t| t["labels"]["job"] == job)
            .map(|t| t["labels"].clone())
            .unwrap()
    };
    assert_eq!(
        (
            &labels("by-http")["team"],
            &labels("by-http")["zone"],
            &labels("by-http")["blue"]
        ),
        (&json!("core"), &json!("z1"), &json!("true"))
    );
    assert!(
        labels("by-consul")["tags"]
            .as_str()
            .unwrap()
            .contains(",blue,"),
        "{targets:?}"
    );

    let list = house
        .operate(
            reqwest::Method::GET,
            "/api/registry/services?name=hello",
            None,
        )
        .await
        .json();
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    house
        .operate(
            reqwest::Method::POST,
            &format!("/api/registry/deregister/{id}"),
            Some(&json!({ "now": true })),
        )
        .await;
    until("what left is forgotten", || async {
        prometheus.targets().await.is_empty()
    })
    .await;
}
