//! Names of services: their form (RG-9) and the words that are reserved for the house.

/// Words that no plug-in may take as its service name.
pub const RESERVED: &[&str] = &[
    "portico",
    "admin",
    "api",
    "auth",
    "static",
    "oss",
    "www",
    "consul",
    "demo",
    "system",
    "console",
    "docs",
    "swagger",
    "registry",
    "gateway",
    "identity",
    "settings",
    "audit",
    "control",
    "storage",
    "realtime",
    "music",
    "video",
    "live",
    "fleet",
    "worker",
    "jobs",
    "agent",
    "sdk",
    "kv",
    "cache",
    "session",
    "user",
    "notification",
    "favorite",
    "playlist",
    "history",
    "queue",
    "library",
    "comment",
    "danmaku",
    "reaction",
    "follow",
    "ledger",
    "presence",
    "anomaly",
    "alert",
    "stats",
    "job",
    "backup",
    "export",
    "mail",
    "ops",
    "plugin",
    "node",
    "tenant",
];

/// True for `[a-z][a-z0-9-]{1,39}`.
#[must_use]
pub fn is_service_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (2..=40).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[1..]
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// True for the words of [`RESERVED`] and for `v` followed by digits (old API versions).
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || name
            .strip_prefix('v')
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_and_reservation() {
        for good in ["hello", "a1", "my-service-2"] {
            assert!(is_service_name(good) && !is_reserved(good), "{good}");
        }
        for bad in ["", "a", "1a", "Hello", "a_b", "a.b", &"a".repeat(41)] {
            assert!(!is_service_name(bad), "{bad}");
        }
        for reserved in ["gateway", "v1", "v22", "tenant"] {
            assert!(is_reserved(reserved), "{reserved}");
        }
        assert!(!is_reserved("vast"));
    }
}
