//! Bus messages on Redis: channel `{prefix}bus:{topic}`, payload = 8 bytes of the sender and what it says.

use bytes::Bytes;
use portico_base::Random;

/// Tells this process's own messages from the others': they were delivered here already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin([u8; 8]);

impl Origin {
    pub(crate) fn random(random: &dyn Random) -> Self {
        Self(random.u64().to_le_bytes())
    }

    pub(super) fn wrap(self, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(8 + payload.len());
        message.extend_from_slice(&self.0);
        message.extend_from_slice(payload);
        message
    }

    /// The payload of somebody else's message.
    pub(super) fn unwrap(self, message: &[u8]) -> Option<Bytes> {
        let (sender, payload) = message.split_at_checked(8)?;
        (sender != self.0).then(|| Bytes::copy_from_slice(payload))
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
        let (a, b) = (Origin::random(&SeededRandom::new(1)), Origin::random(&SeededRandom::new(2)));
        assert_eq!(b.unwrap(&a.wrap(b"x")).as_deref(), Some(b"x".as_slice()));
        assert_eq!(a.unwrap(&a.wrap(b"x")), None);
        assert_eq!(a.unwrap(b"short"), None);
        assert_eq!(topic("p:", &channel("p:", "registry")), Some("registry"));
        assert_eq!(topic("q:", "p:bus:x"), None);
    }
}
