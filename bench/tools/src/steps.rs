//! Closed-loop load of several steps: each connection repeats them, and what an answer held goes into later
//! requests (a refresh token, a transaction).

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::link::Link;

/// One request of the scenario. `${name}` in path and body stands for a value: `connection` and `turn` count,
/// others come from `variables` or were kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    headers: Vec<String>,
    /// Names of values and where they are in the answer (RFC 6901).
    #[serde(default)]
    keep: HashMap<String, String>,
    /// Done once by a connection, before the clock runs.
    #[serde(default)]
    once: bool,
    /// It does not count.
    #[serde(default)]
    silent: bool,
}

/// What all connections do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    steps: Vec<Step>,
    /// Values of each connection, by its number.
    #[serde(default)]
    variables: Vec<HashMap<String, String>>,
    /// Each connection ends after so many repetitions, if the time does not end it before.
    #[serde(default)]
    turns: Option<u64>,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    failed: u64,
    first_fault: Option<String>,
}

/// Runs a scenario from a file; times are in milliseconds.
pub(crate) fn run(address: &str, file: &str, connections: &str, seconds: &str) -> Result<Value> {
    let text = std::fs::read(file).with_context(|| format!("{file} cannot be read"))?;
    let scenario: Scenario = serde_json::from_slice(&text).context("the scenario")?;
    let address = address
        .to_socket_addrs()
        .context("HOST:PORT")?
        .next()
        .context("HOST:PORT has no address")?;
    let connections: usize = connections.parse().context("CONNECTIONS")?;
    let length = Duration::from_secs_f64(seconds.parse().context("SECONDS")?);
    // Everybody is ready before the clock runs.
    let barrier = std::sync::Barrier::new(connections);
    let mut all = Seen::default();
    let mut elapsed = Duration::ZERO;
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let (scenario, barrier) = (&scenario, &barrier);
                scope.spawn(move || connection(address, scenario, number, barrier, length))
            })
            .collect();
        for thread in threads {
            let Ok((seen, took)) = thread.join() else {
                bail!("a connection's thread panicked");
            };
            all.latencies.extend(seen.latencies);
            all.failed += seen.failed;
            all.first_fault = all.first_fault.take().or(seen.first_fault);
            elapsed = elapsed.max(took);
        }
        Ok(())
    })?;
    all.latencies.sort_unstable();
    let at = |share: f64| {
        let last = all.latencies.len().saturating_sub(1);
        let index = ((last as f64) * share).round() as usize;
        all.latencies
            .get(index)
            .map_or(0.0, |l| l.as_secs_f64() * 1e3)
    };
    Ok(json!({
        "done": all.latencies.len(),
        "failed": all.failed,
        "first_fault": all.first_fault,
        "seconds": elapsed.as_secs_f64(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    }))
}

fn connection(
    address: SocketAddr,
    scenario: &Scenario,
    number: usize,
    barrier: &std::sync::Barrier,
    length: Duration,
) -> (Seen, Duration) {
    let mut seen = Seen::default();
    let mut values = scenario.variables.get(number).cloned().unwrap_or_default();
    values.insert("connection".to_owned(), number.to_string());
    let mut link = TcpStream::connect(address).ok().map(Link::new);
    for step in scenario.steps.iter().filter(|s| s.once) {
        if let Err(error) = exchange(&mut link, address, step, &mut values) {
            seen.fault(&error);
        }
    }
    barrier.wait();
    let began = Instant::now();
    for turn in 0_u64.. {
        if began.elapsed() >= length || scenario.turns == Some(turn) {
            break;
        }
        values.insert("turn".to_owned(), turn.to_string());
        for step in scenario.steps.iter().filter(|s| !s.once) {
            let at = Instant::now();
            match exchange(&mut link, address, step, &mut values) {
                Ok(()) if step.silent => {}
                Ok(()) => seen.latencies.push(at.elapsed()),
                Err(error) => {
                    seen.fault(&error);
                    break;
                }
            }
        }
    }
    (seen, began.elapsed())
}

impl Seen {
    fn fault(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.first_fault.get_or_insert_with(|| format!("{error:#}"));
    }
}

fn exchange(
    link: &mut Option<Link>,
    address: SocketAddr,
    step: &Step,
    values: &mut HashMap<String, String>,
) -> Result<()> {
    let body = match &step.body {
        Some(body) => filled(&body.to_string(), values),
        None => String::new(),
    };
    let mut request = format!(
        "{} {} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        step.method,
        filled(&step.path, values),
        body.len(),
    );
    for header in &step.headers {
        request.push_str(&filled(header, values));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(&body);
    let open = match link {
        Some(link) => link,
        None => link.insert(Link::new(TcpStream::connect(address)?)),
    };
    let answer = open
        .stream
        .write_all(request.as_bytes())
        .map_err(anyhow::Error::from)
        .and_then(|()| open.whole());
    let (status, body) = match answer {
        Ok(answer) => {
            if open.ended() {
                *link = None;
            }
            answer
        }
        Err(error) => {
            *link = None;
            return Err(error);
        }
    };
    if !(200..300).contains(&status) {
        bail!(
            "{} {}: {status} {}",
            step.method,
            step.path,
            String::from_utf8_lossy(&body)
        );
    }
    if !step.keep.is_empty() {
        let body: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
        for (name, place) in &step.keep {
            let value = body
                .pointer(place)
                .with_context(|| format!("the answer has no {place}"))?;
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            values.insert(name.clone(), text);
        }
    }
    Ok(())
}

/// A text with its values.
fn filled(text: &str, values: &HashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        out.push_str(values.get(name).map_or("", String::as_str));
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in() {
        let values = HashMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(filled("x${a}y${b}z", &values), "x1yz");
        assert_eq!(filled("${a", &values), "${a");
    }
}
