//! Messages as they are counted and recorded: sends that were let through, attempts at providers, blocks.

use portico_base::Timestamp;
use uuid::Uuid;

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendStatus {
    /// Under way, or its process ended meanwhile.
    Pending,
    Sent,
    /// Perhaps delivered.
    Ambiguous,
    /// The number was refused.
    Stopped,
    /// Nobody could take it, so that the phone was not touched.
    Failed,
    /// To a test number: no provider was asked.
    Test,
    /// News about the account: no code comes back, and no code has to wait for it.
    Notice,
}

impl SendStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Ambiguous => "ambiguous",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Test => "test",
            Self::Notice => "notice",
        }
    }
}

/// A message that was let through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SmsSend {
    pub id: Uuid,
    pub tenant: Uuid,
    pub transaction: Uuid,
    pub phone_hash: [u8; 32],
    pub prefix_hash: [u8; 32],
    /// Calling code with its plus.
    pub country: String,
    pub device_hash: Option<[u8; 32]>,
    pub ip: Option<String>,
    pub net: Option<String>,
    pub status: SendStatus,
    pub at: Timestamp,
}

/// One provider was asked (ID-53).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SmsRecord {
    pub id: Uuid,
    pub tenant: Uuid,
    pub transaction: Uuid,
    pub provider: String,
    pub attempt_no: u32,
    pub phone_masked: String,
    pub phone_hash: [u8; 32],
    pub prefix_hash: [u8; 32],
    /// Calling code with its plus.
    pub country: String,
    /// `sent`, `failed`, `ambiguous`; with receipts also `delivered`, `undelivered`.
    pub status: String,
    pub class: String,
    /// News about the account and not a code.
    pub notice: bool,
    pub provider_code: String,
    pub provider_message: String,
    pub receipt_id: Option<String>,
    pub latency_ms: u32,
    pub segments: u32,
    pub cost_micro: i64,
    pub verified_at: Option<Timestamp>,
    pub at: Timestamp,
}

/// Something that gets no codes for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SmsBlock {
    /// `prefix:<hash>`, `country:+86`, `budget:hour`, `budget:day`.
    pub subject: String,
    /// `conversion`, `budget`.
    pub reason: String,
    pub sent: u32,
    pub verified: u32,
    pub at: Timestamp,
    pub until: Timestamp,
}

/// Sends of a window, and how many of their codes came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub sent: u32,
    pub verified: u32,
}

impl Conversion {
    /// True when there are enough sends to tell, and too few codes came back.
    pub(crate) const fn is_bad(self, least_sends: u32, percent: u32) -> bool {
        self.sent >= least_sends
            && (self.verified as u64) * 100 < (self.sent as u64) * (percent as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_is_judged_when_there_is_enough_of_it() {
        let of = |sent, verified| Conversion { sent, verified }.is_bad(30, 15);
        assert!(!of(29, 0), "too few to tell");
        assert!(of(30, 0) && of(30, 4));
        assert!(!of(40, 6), "15 percent are enough");
        assert!(of(41, 6));
        assert!(
            !Conversion {
                sent: 99,
                verified: 0
            }
            .is_bad(30, 0),
            "switched off"
        );
    }
}
