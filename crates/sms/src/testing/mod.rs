//! Strict stand-ins for the vendors: they check every signature by themselves and answer as the vendors do.
//!
//! The checkers know nothing of the signers of this crate: they take the request as it arrived, build
//! the canonical text from it, and refuse with the vendor's own code. The vendors' own clients are
//! accepted by them (`tests/sms`).

mod aliyun;
mod request;
mod server;
mod tencent;
mod twilio;

pub use request::Request;
pub use server::{Behaviour, Seen, StandIn};

use serde_json::Value;

/// Credentials that the stand-ins know.
pub mod account {
    /// Aliyun's AccessKey id.
    pub const ALIYUN_ID: &str = "LTAI5tStandInStandInStan";
    /// Aliyun's AccessKey secret.
    pub const ALIYUN_SECRET: &str = "aliyun-stand-in-secret-000001";
    /// Beginning of Aliyun's template codes that have no variables.
    pub const ALIYUN_NOTICE: &str = "SMS_9";
    /// Tencent's SecretId.
    pub const TENCENT_ID: &str = "AKIDStandInStandInStandInStandIn0001";
    /// Tencent's SecretKey.
    pub const TENCENT_SECRET: &str = "tencent-stand-in-secret-000001";
    /// Tencent's application.
    pub const TENCENT_APP: &str = "1400006666";
    /// Beginning of Tencent's template ids that have no variables.
    pub const TENCENT_NOTICE: &str = "9";
    /// Twilio's account.
    pub const TWILIO_SID: &str = "AC00000000000000000000000000000001";
    /// Twilio's token.
    pub const TWILIO_TOKEN: &str = "twilio-stand-in-token-00000001";
}

/// Which vendor is stood in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Aliyun Dysms.
    Aliyun,
    /// Tencent Cloud SMS.
    Tencent,
    /// Twilio.
    Twilio,
}

impl Vendor {
    /// All of them, in the default order of the chain.
    pub const ALL: [Self; 3] = [Self::Aliyun, Self::Tencent, Self::Twilio];

    /// Name of its provider.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aliyun => "aliyun",
            Self::Tencent => "tencent",
            Self::Twilio => "twilio",
        }
    }

    fn check(self, request: &Request, now_s: i64) -> Result<Order, Refused> {
        match self {
            Self::Aliyun => aliyun::check(request, now_s),
            Self::Tencent => tencent::check(request, now_s),
            Self::Twilio => twilio::check(request),
        }
    }

    fn answer(self, code: &str) -> (u16, Value) {
        match self {
            Self::Aliyun => aliyun::answer(code),
            Self::Tencent => tencent::answer(code),
            Self::Twilio => twilio::answer(code),
        }
    }

    /// What it says when it takes a message.
    const fn ok(self) -> &'static str {
        match self {
            Self::Aliyun => "OK",
            Self::Tencent => "Ok",
            Self::Twilio => "queued",
        }
    }
}

/// What a good request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub phone: String,
    /// The six digits, wherever the vendor has them; empty for a notice.
    pub code: String,
    /// Template or text of a notice.
    pub notice: Option<String>,
    /// What may be used only once.
    pub nonce: Option<String>,
}

/// The vendor's code for a bad one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: &'static str,
    pub why: String,
}

pub(crate) fn refuse(code: &'static str, why: impl Into<String>) -> Refused {
    Refused {
        code,
        why: why.into(),
    }
}

pub(crate) fn is_e164(phone: &str) -> bool {
    phone.strip_prefix('+').is_some_and(|rest| {
        (7..=15).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_digit())
    })
}
