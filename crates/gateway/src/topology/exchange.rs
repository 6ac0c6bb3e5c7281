//! Seconds on their way between replicas: over the bus, where a lost message costs a second of figures.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ring::{Entry, Key, Process, Second};
use crate::balance::flow::BUCKETS;
use crate::pipeline::metrics::Passage;

/// Topic of the bus.
pub(super) const TOPIC: &str = "gateway.seconds";
/// Longest message; the bus carries 64 KiB.
const LONGEST: usize = 48 * 1024;
/// Messages of one second; what is beyond is not told to the others.
const PARTS: usize = 16;
/// Longest names that are believed.
const NAME: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
struct Wire<'a> {
    from: Uuid,
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    /// 0 in all but the first part.
    lasted_ms: u32,
    process: Option<Process>,
    entries: Vec<WireEntry>,
}

/// Key, requests, refused, failed, in flight, buckets.
#[derive(Debug, Serialize, Deserialize)]
struct WireEntry(WireKey, u32, u32, u32, u32, Vec<(u8, u32)>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum WireKey {
    Instance(Uuid),
    Passage(String, String),
}

/// A part of a second, as another replica told it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) from: Uuid,
    pub(super) name: String,
    pub(super) second: Second,
}

/// The messages for one second.
pub(super) fn write(from: Uuid, name: &str, second: &Second) -> Vec<Bytes> {
    let mut parts: Vec<Vec<WireEntry>> = vec![Vec::new()];
    let mut length = 0;
    for entry in &second.entries {
        let entry = WireEntry::from(entry);
        let adds = entry.length();
        if length + adds > LONGEST {
            if parts.len() == PARTS {
                break;
            }
            parts.push(Vec::new());
            length = 0;
        }
        length += adds;
        if let Some(part) = parts.last_mut() {
            part.push(entry);
        }
    }
    let wire = |(at, entries): (usize, Vec<WireEntry>)| Wire {
        from,
        name: name.into(),
        lasted_ms: if at == 0 { second.lasted_ms } else { 0 },
        process: (at == 0).then(|| second.process.clone()),
        entries,
    };
    let all = parts.into_iter().enumerate().map(wire);
    all.filter_map(|w| serde_json::to_vec(&w).ok().map(Bytes::from))
        .collect()
}

/// Reads a message; nothing when it is not one of ours. It is dated by our clock.
pub(super) fn read(message: &[u8], now_ms: i64) -> Option<Told> {
    let wire: Wire<'_> = serde_json::from_slice(message).ok()?;
    if wire.name.len() > NAME {
        return None;
    }
    Some(Told {
        from: wire.from,
        name: wire.name.into_owned(),
        second: Second {
            at_ms: now_ms,
            lasted_ms: wire.lasted_ms,
            process: wire.process.unwrap_or_default(),
            entries: wire
                .entries
                .into_iter()
                .filter_map(WireEntry::entry)
                .collect(),
        },
    })
}

impl WireEntry {
    /// At least as long as it will be in JSON.
    fn length(&self) -> usize {
        let key = match &self.0 {
            WireKey::Instance(_) => 40,
            // Every byte may be escaped.
            WireKey::Passage(service, route) => 8 + 6 * (service.len() + route.len()),
        };
        key + 60 + 18 * self.5.len()
    }

    fn entry(self) -> Option<Entry> {
        let Self(key, requests, refused, failed, in_flight, times) = self;
        let key = match key {
            WireKey::Instance(id) => Key::Instance(id),
            WireKey::Passage(service, route) => {
                if service.len() > NAME || route.len() > NAME {
                    return None;
                }
                Key::Passage(Passage {
                    service: Arc::from(service),
                    route: Arc::from(route),
                })
            }
        };
        Some(Entry {
            key,
            requests,
            refused,
            failed,
            in_flight,
            times: times.into_iter().take(BUCKETS).collect(),
        })
    }
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> Self {
        let key = match &entry.key {
            Key::Instance(id) => WireKey::Instance(*id),
            Key::Passage(passage) => {
                WireKey::Passage(passage.service.to_string(), passage.route.to_string())
            }
        };
        Self(
            key,
            entry.requests,
            entry.refused,
            entry.failed,
            entry.in_flight,
            entry.times.to_vec(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(entries: usize) -> Second {
        let entry = |n: usize| Entry {
            key: if n.is_multiple_of(2) {
                Key::Instance(Uuid::from_u128(n as u128))
            } else {
                Key::Passage(Passage {
                    service: format!("service-{n}").into(),
                    route: "api".into(),
                })
            },
            requests: 7,
            refused: 1,
            failed: 2,
            in_flight: 3,
            times: Box::new([(4, 5), (88, 2)]),
        };
        Second {
            at_ms: 5,
            lasted_ms: 1_001,
            process: Process {
                connections: 9,
                busy: vec![0.5, 0.25],
                ..Process::default()
            },
            entries: (0..entries).map(entry).collect(),
        }
    }

    #[test]
    fn a_second_arrives_as_it_was_sent_in_parts_that_the_bus_carries() {
        let (me, sent) = (Uuid::from_u128(1), second(2_000));
        let messages = write(me, "one", &sent);
        assert!(messages.len() > 1 && messages.iter().all(|m| m.len() < 64 * 1024));
        let told: Vec<Told> = messages.iter().filter_map(|m| read(m, 77)).collect();
        assert_eq!(told.len(), messages.len());
        let entries: Vec<Entry> = told
            .iter()
            .flat_map(|t| t.second.entries.iter().cloned())
            .collect();
        assert_eq!(entries, sent.entries.to_vec());
        assert_eq!(
            (told[0].from, told[0].name.as_str(), told[0].second.at_ms),
            (me, "one", 77)
        );
        assert_eq!(told[0].second.process, sent.process);
        let lasted: u32 = told.iter().map(|t| t.second.lasted_ms).sum();
        assert_eq!(lasted, 1_001, "told once");
    }

    #[test]
    fn what_is_too_much_is_cut_and_nonsense_is_nothing() {
        assert_eq!(write(Uuid::nil(), "one", &second(60_000)).len(), PARTS);
        assert!(read(b"", 0).is_none());
        assert!(read(b"{\"from\":1}", 0).is_none());
        let long = format!(
            "{{\"from\":\"{}\",\"name\":\"{}\",\"lasted_ms\":1,\"process\":null,\"entries\":[]}}",
            Uuid::nil(),
            "x".repeat(NAME + 1)
        );
        assert!(read(long.as_bytes(), 0).is_none());
    }
}
