//! Debian's Prometheus finds targets here, through `http_sd_configs`, and through `consul_sd_configs` where it was
//! built with it; what Consul's service discovery asks for is asked in any case.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::house::{House, answer, client, skip, until};
use crate::raw::{RawServer, answer_always};

struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Runs it on a configuration; its log when it ended at once.
    fn start(folder: &Path, config: &str) -> Result<Self, String> {
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("prometheus").display()
            ))
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=info"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
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
            let _ = child.wait();
            return Err(log);
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, url })
    }

    /// The targets that it scrapes.
    async fn targets(&self) -> Vec<Value> {
        let url = format!("{}/api/v1/targets?state=active", self.url);
        let Ok(answer) = answer(client().get(url)).await else {
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

const HEAD: &str = "global: { scrape_interval: 1s, scrape_timeout: 1s }\nscrape_configs:\n";

fn by_http(house: &House) -> String {
    format!(
        "- job_name: by-http\n  http_sd_configs:\n  - url: '{}/api/registry/sd/prometheus?service=hello'\n    \
         refresh_interval: 1s\n    authorization: {{ type: Bearer, credentials: '{}' }}\n  relabel_configs:\n  \
         - {{ source_labels: [__meta_portico_meta_team], target_label: team }}\n  \
         - {{ source_labels: [__meta_portico_zone], target_label: zone }}\n  \
         - {{ source_labels: [__meta_portico_tag_blue], target_label: blue }}\n",
        house.http,
        house.operator(),
    )
}

fn by_consul(house: &House) -> String {
    format!(
        "- job_name: by-consul\n  consul_sd_configs: [{{ server: '{}', refresh_interval: 1s }}]\n  relabel_configs:\n  \
         - {{ source_labels: [__meta_consul_service], regex: hello, action: keep }}\n  \
         - {{ source_labels: [__meta_consul_tags], target_label: tags }}\n",
        house.consul.trim_start_matches("http://"),
    )
}

/// Prometheus with both jobs, or with one when it was built without Consul; nothing when it is not installed.
fn start(house: &House) -> Option<(Prometheus, Vec<&'static str>)> {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        skip("Prometheus is not installed");
        return None;
    }
    let folder = house.folder.path();
    match Prometheus::start(
        folder,
        &format!("{HEAD}{}{}", by_http(house), by_consul(house)),
    ) {
        Ok(both) => Some((both, vec!["by-http", "by-consul"])),
        Err(log) => {
            assert!(
                log.contains("consul_sd_configs not found"),
                "Prometheus did not start:\n{log}"
            );
            // Not a missing program: Debian builds it so, and the requests are made below.
            let line = b"skipped: consul_sd_configs, which this Prometheus was built without\n";
            let _ = std::io::stderr().write_all(line);
            let one = Prometheus::start(folder, &format!("{HEAD}{}", by_http(house)));
            Some((one.unwrap_or_else(|log| panic!("{log}")), vec!["by-http"]))
        }
    }
}

#[tokio::test]
async fn targets_are_found_and_scraped_until_they_leave() {
    let house = House::start(&[]);
    let hello = RawServer::start(|stream, _| answer_always(stream, "answer 42\n"));
    let more = json!({ "tags": ["blue"], "metadata": { "team": "core" }, "zone": "z1" });
    let id = house.register("hello", hello.port(), more).await;
    let Some((prometheus, jobs)) = start(&house) else {
        return;
    };
    let address = format!("127.0.0.1:{}", hello.port());
    until("every job scrapes the instance", || async {
        let targets = prometheus.targets().await;
        jobs.iter().all(|job| {
            let mut of_job = targets.iter().filter(|t| t["labels"]["job"] == *job);
            of_job.any(|t| t["labels"]["instance"] == address.as_str() && t["health"] == "up")
        })
    })
    .await;
    let targets = prometheus.targets().await;
    let labels = |job: &str| {
        targets
            .iter()
            .find(|t| t["labels"]["job"] == job)
            .map(|t| &t["labels"])
    };
    let http = labels("by-http").unwrap();
    assert_eq!(
        (&http["team"], &http["zone"], &http["blue"]),
        (&json!("core"), &json!("z1"), &json!("true"))
    );
    if let Some(consul) = labels("by-consul") {
        assert!(
            consul["tags"].as_str().unwrap().contains(",blue,"),
            "{consul}"
        );
    }
    let now = json!({ "now": true });
    house
        .operate(
            reqwest::Method::POST,
            &format!("/api/registry/deregister/{id}"),
            Some(&now),
        )
        .await;
    until("what left is forgotten", || async {
        prometheus.targets().await.is_empty()
    })
    .await;
}

/// The requests of Prometheus' `discovery/consul`, in their order, and the fields that it reads.
#[tokio::test]
async fn consuls_service_discovery_gets_what_it_reads() {
    let house = House::start(&[]);
    let more = json!({ "tags": ["blue"], "metadata": { "team": "core" } });
    house.register("hello", 9, more).await;
    let get = |path: &'static str| {
        let request = client().get(format!("{}/v1/{path}", house.consul));
        async { answer(request).await.unwrap() }
    };
    let own = get("agent/self").await.json();
    assert_eq!(own["Config"]["Datacenter"], "dc1", "{own}");
    let services = get("catalog/services?stale=&wait=1000ms").await;
    assert!(
        services.headers["x-consul-index"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    assert_eq!(services.json()["hello"], json!(["blue"]));
    let list = get("health/service/hello?stale=&wait=1000ms").await.json();
    let entry = &list[0];
    assert_eq!(
        (&entry["Service"]["Service"], &entry["Service"]["Port"]),
        (&json!("hello"), &json!(9)),
        "{list}"
    );
    assert_eq!(
        (&entry["Service"]["Address"], &entry["Service"]["Tags"]),
        (&json!("127.0.0.1"), &json!(["blue"]))
    );
    assert_eq!(entry["Service"]["Meta"]["team"], "core", "{list}");
    assert!(
        entry["Node"]["Node"].is_string() && entry["Node"]["Address"].is_string(),
        "{list}"
    );
    assert!(
        entry["Checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["Status"] == "passing"),
        "{list}"
    );
}
