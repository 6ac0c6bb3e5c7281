//! Open-loop load: each request is due at a fixed time, and its latency counts from there, so that a
//! stalled server is charged for every request that it kept from being sent (coordinated omission).

use std::io::Write;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::link::Link;

/// Requests at a fixed rate, spread over connections; each connection has a thread and a schedule.
pub(crate) struct Plan {
    address: SocketAddr,
    request: Vec<u8>,
    rate: f64,
    connections: u32,
    seconds: f64,
}

/// What one connection, or all of them, saw.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    /// Answers that were not 2xx.
    refused: u64,
    /// Requests without a whole answer.
    broken: u64,
    first_fault: Option<String>,
}

impl Plan {
    /// Reads the words of the command line.
    pub(crate) fn parse(
        address: &str,
        path: &str,
        [rate, connections, seconds]: [&str; 3],
        headers: &[&str],
    ) -> Result<Self> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let plan = Self {
            address: address
                .to_socket_addrs()
                .context("HOST:PORT")?
                .next()
                .context("HOST:PORT has no address")?,
            request: request.into_bytes(),
            rate: rate.parse().context("RATE")?,
            connections: connections.parse().context("CONNECTIONS")?,
            seconds: seconds.parse().context("SECONDS")?,
        };
        if plan.rate <= 0.0 || plan.seconds <= 0.0 || plan.connections == 0 {
            bail!("RATE, CONNECTIONS and SECONDS are above zero");
        }
        Ok(plan)
    }

    /// Sends all requests; times are in milliseconds.
    pub(crate) fn run(&self) -> Result<Value> {
        // All connections are made before the first request is due.
        let start = Instant::now() + Duration::from_millis(200);
        let mut seen = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|number| scope.spawn(move || self.connection(number, start)))
                .collect();
            let mut all = Seen::default();
            for thread in threads {
                match thread.join() {
                    Ok(seen) => all.add(seen),
                    Err(_) => bail!("a connection's thread panicked"),
                }
            }
            Ok(all)
        })?;
        seen.latencies.sort_unstable();
        let at = |share: f64| {
            let last = seen.latencies.len().saturating_sub(1);
            let index = ((last as f64) * share).round() as usize;
            seen.latencies
                .get(index)
                .map_or(0.0, |l| l.as_secs_f64() * 1e3)
        };
        Ok(json!({
            "answered": seen.latencies.len(),
            "refused": seen.refused,
            "broken": seen.broken,
            "first_fault": seen.first_fault,
            "p50_ms": at(0.5),
            "p90_ms": at(0.9),
            "p99_ms": at(0.99),
            "p999_ms": at(0.999),
            "max_ms": at(1.0),
        }))
    }

    fn connection(&self, number: u32, start: Instant) -> Seen {
        // A thread's sleep is otherwise up to 50 µs longer than asked for.
        let _coarse = nix::sys::prctl::set_timerslack(1_000);
        let interval = f64::from(self.connections) / self.rate;
        let offset = f64::from(number) / self.rate;
        let mut link = TcpStream::connect(self.address).ok().map(Link::new);
        let mut seen = Seen::default();
        for turn in 0_u32.. {
            let after = offset + f64::from(turn) * interval;
            if after >= self.seconds {
                break;
            }
            let due = start + Duration::from_secs_f64(after);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.exchange(&mut link) {
                Ok(status) if (200..300).contains(&status) => seen.latencies.push(due.elapsed()),
                Ok(status) => {
                    seen.refused += 1;
                    seen.fault(|| format!("status {status}"));
                }
                Err(error) => {
                    link = None;
                    seen.broken += 1;
                    seen.fault(|| format!("{error:#}"));
                }
            }
        }
        seen
    }

    fn exchange(&self, link: &mut Option<Link>) -> Result<u16> {
        let link = match link {
            Some(link) => link,
            None => link.insert(Link::new(TcpStream::connect(self.address)?)),
        };
        link.stream.write_all(&self.request)?;
        link.answer()
    }
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.broken += other.broken;
        if self.first_fault.is_none() {
            self.first_fault = other.first_fault;
        }
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        self.first_fault.get_or_insert_with(text);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn latency_counts_from_the_time_that_a_request_was_due() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // A server that makes the first request wait delays the ones that are due meanwhile too.
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut room = [0; 4096];
            let mut first = true;
            while stream.read(&mut room).unwrap_or(0) > 0 {
                if std::mem::take(&mut first) {
                    thread::park_timeout(Duration::from_millis(300));
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .unwrap();
            }
        });
        let plan = Plan::parse(&address, "/", ["100", "1", "0.2"], &[]).unwrap();
        let report = plan.run().unwrap();
        server.join().unwrap();
        assert_eq!(report["answered"], 20);
        // A closed loop would have seen one slow request of twenty.
        assert!(report["p50_ms"].as_f64().unwrap() > 100.0, "{report}");
    }
}
