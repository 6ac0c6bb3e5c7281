//! Bus messages on Redis: channel `{prefix}bus:{topic}`, payload = 8 bytes of the sender,
//! 8 bytes of its time in Unix milliseconds, and what it says.

use bytes::Bytes;
use portico_base::Random;

const HEAD: usize = 16;

/// Tells this process's own messages from the others': they were delivered here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin([u8; 8]);

impl Origin {
    pub(crate) fn random(random: &dyn Random) -> Self {
        Self(random.u64().to_le_bytes())
    }

    pub(super) fn wrap(self, at_ms: i64, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEAD + payload.len());
        message.extend_from_slice(&self.0);
        message.extend_from_slice(&at_ms.to_le_bytes());
        message.extend_from_slice(payload);
        message
    }

    /// Time and payload of somebody else's message.
    pub(super) fn unwrap(self, message: &[u8]) -> Option<(i64, Bytes)> {
        let (sender, rest) = message.split_first_chunk::<8>()?;
        let (at_ms, payload) = rest.split_first_chunk::<8>()?;
        let payload = || Bytes::copy_from_slice(payload);
        (*sender != self.0).then(|| (i64::from_le_bytes(*at_ms), payload()))
    }
}

pub(super) fn channel(prefix: &str, topic: &str) -> String {
    format!("{prefix}bus:{topic}")
}

pub(super) fn topic<'a>(prefix: &str, channel: &'a str) -> Option<&'a str> {
    channel.strip_prefix(prefix)?.strip_prefix("bus:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::SeededRandom;

    #[test]
    fn own_and_broken_messages_are_left_out() {
        let (a, b) = (
            Origin::random(&SeededRandom::new(1)),
            Origin::random(&SeededRandom::new(2)),
        );
        let message = a.wrap(5, b"x");
        assert_eq!(b.unwrap(&message), Some((5, Bytes::from_static(b"x"))));
        assert_eq!(a.unwrap(&message), None);
        assert_eq!(a.unwrap(b"0123456789abcde"), None);
        assert_eq!(topic("p:", &channel("p:", "registry")), Some("registry"));
        assert_eq!(topic("q:", "p:bus:x"), None);
    }
}
